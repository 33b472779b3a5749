"""Gauss–Newton on whole curves, within a trust region: many curves at once, each stops when it is done.

A step is as long as the radius at most, by Levenberg's damping; the radius grows where the quadratic model has been
right and shrinks where it has not. Directions of latent space that hardly move φ, such as collapsed latents, ask for
steps far beyond where the model holds, which is what the radius is for. Undamped steps converge linearly, on the unit
sphere by (L/π)² per step; where many more would be needed, the exact second derivative of the energy takes the place of
Gauss–Newton's, if it is positive definite.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from vaelid.geometry import forward
from vaelid.geometry.blocks import Solution, System, assemble, put, sloped, solve, taken
from vaelid.geometry.manifold import Embedding

_MANY, _MANY_KEPT = 6, 60  # steps that cost more than one with exact second derivatives; where a matrix is kept
_SEARCH = 4  # solves, at most, for the damping that gives a step its length
_FEW = 4  # latents, at most, for which a Jacobian is worth more than a look
_OLD, _TRUE = 8, 0.25  # steps, at most, with one matrix, while the energy falls by that share of what it promises
_SHORTEST = 1e-7  # radius, of the size of a curve, at which nothing is left to try


class Status(enum.IntEnum):
    """How the search for a path ended."""

    CONVERGED = 0
    MORE = 1  # the iterations ran out
    STALLED = 2  # no step lowers the energy any more
    BROKEN = 3  # the function gives values that are not finite on the way

    @property
    def reason(self) -> str:
        """In words."""
        return {
            Status.CONVERGED: "converged",
            Status.MORE: "the iterations ran out; ask for more: iterations=…",
            Status.STALLED: "no step lowers the energy any more; float32 may be too coarse for the tolerance",
            Status.BROKEN: "the function is not finite at or between the endpoints",
        }[self]


@final
@dataclass(frozen=True, eq=False)
class Minimum:
    """Curves of least energy.

    Attributes:
        nodes: (n, N + 1, d).
        energy: chord energy, (n,), float64.
        decrement: squared undamped Newton decrement by the energy, (n,), float64.
        status: a `Status` each, (n,).
        iterations: steps tried, (n,).
    """

    nodes: Tensor
    energy: Tensor
    decrement: Tensor
    status: Tensor
    iterations: Tensor


@final
@dataclass(frozen=True, eq=False)
class _State:
    """Curves on their way, each tensor with a row per curve.

    Attributes:
        nodes: (n, N + 1, d).
        system: energy, gradient and matrix there.
        size: how far a curve reached from its first node, at first.
        radius: how far a node may move in one step.
        damping: what kept the last step within it, where to look first.
        before: squared decrement by energy before the last step; infinite where that step was not an undamped one.
        age: how many steps ago the matrix was that of the nodes.
    """

    nodes: Tensor
    system: System
    size: Tensor
    radius: Tensor
    damping: Tensor
    before: Tensor
    age: Tensor


@torch.no_grad()
def minimise(f: Embedding, start: Tensor, tolerance: float, iterations: int) -> Minimum:
    """Lower the chord energy of curves (n, N + 1, d), their ends held, until decrement² ≤ tolerance · energy.

    In few dimensions a Jacobian costs little more than φ: every trial is assembled. In many it costs d times φ: a trial
    is evaluated first, and the matrix is kept for some steps while it serves; none but a fresh one declares an end.
    """
    n, device = len(start), start.device
    size = (start - start[:, :1]).norm(dim=2).amax(1).double().clamp_min(torch.finfo(start.dtype).tiny)
    state = _State(
        start.clone(),
        assemble(f, start),
        size,
        0.5 * size,
        torch.full_like(size, 1e-3),
        torch.full_like(size, torch.inf),
        torch.zeros(n, dtype=torch.int64, device=device),
    )
    result = Minimum(
        start.clone(),
        state.system.energy.clone(),
        torch.full_like(size, torch.inf),
        torch.full((n,), int(Status.MORE), device=device),
        torch.zeros(n, dtype=torch.int64, device=device),
    )
    active = torch.arange(n, device=device)
    for count in range(iterations + 1):
        newton = _solve(state.system, torch.zeros_like(state.radius))
        relative = _relative(newton, state.system)
        lost = state.radius < _SHORTEST * state.size
        unsure = ((relative <= tolerance) | lost | (count == iterations)) & (state.age > 0)
        if unsure.any():
            _renew(f, state, unsure.nonzero()[:, 0])
            newton = _solve(state.system, torch.zeros_like(state.radius))
            relative = _relative(newton, state.system)
        broken = ~state.system.energy.isfinite() | ~state.system.gradient.flatten(1).isfinite().all(1)
        ended = torch.full_like(active, int(Status.MORE))
        ended[lost] = int(Status.STALLED)
        ended[relative <= tolerance] = int(Status.CONVERGED)
        ended[broken] = int(Status.BROKEN)
        going = ended == int(Status.MORE)
        put(result, active, Minimum(state.nodes, state.system.energy, relative, ended, result.iterations[active]))
        if count == iterations or not going.any():
            break
        if not going.all():
            active, state, newton, relative = active[going], taken(state, going), taken(newton, going), relative[going]
        state = _stepped(f, state, newton, relative, tolerance)
        result.iterations[active] += 1
    return result


def _stepped(f: Embedding, state: _State, newton: Solution, relative: Tensor, tolerance: float) -> _State:
    """One step of every curve, taken where it lowers the energy."""
    system, radius = state.system, state.radius
    step, damping = _within(system, newton, radius, state.damping)
    free = damping == 0
    rate = (relative / state.before).clamp(1e-3, 0.999)
    eager = state.nodes.shape[2] <= _FEW
    ahead = (tolerance / relative).log() / rate.log()  # steps to come, if they go on as the last one
    slow = free & (state.age == 0) & state.before.isfinite() & (ahead > (_MANY if eager else _MANY_KEPT))
    if slow.any():
        step = _exact(f, state.nodes, system, step, slow, radius)
    length = step.step[..., 0].norm(dim=2).amax(1).double()
    trial = state.nodes.clone()
    trial[:, 1:-1] += step.step[..., 0]
    found = assemble(f, trial) if eager else None
    reached = f.path_energy(trial) if found is None else found.energy
    fall = system.energy - reached
    better = fall > -system.noise  # never for what is not finite
    agreement = torch.where(better, fall / step.fall.clamp_min(1e-300), -1.0)
    agreement[step.fall < 4 * system.noise] = 1.0  # nothing can be said against the model
    rows = better.nonzero()[:, 0]
    state.nodes[rows] = trial[rows]
    shrunk = torch.where(agreement < 0.25, 0.3 * torch.minimum(length, radius), radius)
    grown = torch.where((agreement > 0.75) & ~free, 2.5 * radius, shrunk)
    radius = torch.where(~better & (state.age > 0), radius, grown)  # an old matrix is to blame, not the radius
    before = torch.where(better & free, relative, torch.inf)
    state = replace(state, radius=radius, damping=damping, before=before)
    if found is not None:
        put(system, rows, taken(found, rows))
        return state
    kept = better & (agreement > _TRUE) & (state.age < _OLD)
    if kept.any():
        rows = kept.nonzero()[:, 0]
        put(system, rows, sloped(f, state.nodes[rows], taken(system, rows)))
        state.age[rows] += 1
    renew = (better | (state.age > 0)) & ~kept
    if renew.any():
        _renew(f, state, renew.nonzero()[:, 0])
    return state


def _renew(f: Embedding, state: _State, rows: Tensor) -> None:
    """Assemble the systems of some curves where they are now."""
    put(state.system, rows, assemble(f, state.nodes[rows]))
    state.age[rows] = 0


@final
@dataclass(frozen=True, eq=False)
class _Step:
    """A step (n, M, d, 1), and the fall of the energy that the quadratic model promises, (n,)."""

    step: Tensor
    fall: Tensor


def _relative(solution: Solution, system: System) -> Tensor:
    """decrement² / energy; what rounding alone can do counts as nothing."""
    scale = system.energy.clamp_min(torch.finfo(torch.float64).tiny)
    decrement = solution.decrement[:, 0]
    share = torch.where(decrement <= system.floor, 0.0, decrement) / scale
    share = torch.where(solution.positive & share.isfinite(), share, torch.inf)
    return torch.where(system.energy == 0, 0.0, share)  # nothing moves


def _scale(system: System) -> Tensor:
    """The size of the blocks on the diagonal, (n, M)."""
    return system.diagonal.diagonal(dim1=-2, dim2=-1).mean(-1)


def damped(system: System, damping: Tensor, exact: Tensor | None = None) -> Tensor:
    """The blocks on the diagonal, or exact ones, with damping in units of their size, (n,), and a ridge of rounding's.

    The ridge goes by each coordinate's own size: latents that hardly move φ are known as exactly as others.
    """
    own = system.diagonal.diagonal(dim1=-2, dim2=-1)
    ridge = damping.to(own)[:, None, None] * own.mean(-1, keepdim=True) + 10 * torch.finfo(own.dtype).eps * own
    return (system.diagonal if exact is None else exact) + torch.diag_embed(ridge)


def _solve(system: System, damping: Tensor, exact: Tensor | None = None) -> Solution:
    """The step of a damped system."""
    return solve(damped(system, damping, exact), system.upper, system.gradient.unsqueeze(-1))


def _promise(system: System, solution: Solution, damping: Tensor) -> _Step:
    """What a damped step promises: ½ decrement² + ½ damping · |step|², the norm being that of the damping."""
    squares = solution.step[..., 0].square().sum(2) * _scale(system)
    return _Step(solution.step, 0.5 * (solution.decrement[:, 0] + damping * squares.sum(1, dtype=torch.float64)))


def _within(system: System, newton: Solution, radius: Tensor, damping: Tensor) -> tuple[_Step, Tensor]:
    """The undamped steps that stay within the radius at every node, and damped ones for the others; and the damping."""
    found = _promise(system, newton, torch.zeros_like(radius))
    length = newton.step[..., 0].norm(dim=2).amax(1).double()
    free = (length <= radius) & newton.positive
    if free.all():
        return found, torch.zeros_like(radius)
    damping = damping.clamp(1e-9, 1e6)
    waiting = (~free).nonzero()[:, 0]
    for attempt in range(_SEARCH):
        some = taken(system, waiting)
        solution = _solve(some, damping[waiting])
        length = torch.where(
            solution.positive, solution.step[..., 0].norm(dim=2).amax(1).double() / radius[waiting], 1e3
        )
        good = (length <= 1.2) & (length > 0.4)
        if attempt == _SEARCH - 1:
            good = length > -1
        put(found, waiting[good], taken(_promise(some, solution, damping[waiting]), good))
        waiting, length = waiting[~good], length[~good]
        if not len(waiting):
            break
        damping[waiting] = (damping[waiting] * (1.3 * length).clamp(1e-3, 1e3) ** 1.5).clamp(1e-9, 1e6)
    return found, torch.where(free, 0.0, damping)


def _exact(f: Embedding, nodes: Tensor, system: System, step: _Step, slow: Tensor, radius: Tensor) -> _Step:
    """Steps with exact second derivatives where Gauss–Newton is slow, if positive definite and not too long."""
    rows = slow.nonzero()[:, 0]
    some = taken(system, rows)
    exact = _solve(some, torch.zeros_like(radius[rows]), second(f, nodes[rows]))
    good = exact.positive & (exact.step[..., 0].norm(dim=2).amax(1).double() <= 2 * radius[rows])
    put(step, rows[good], taken(_promise(some, exact, torch.zeros_like(radius[rows])), good))
    return step


def lowest(f: Embedding, nodes: Tensor) -> Tensor:
    """Whether curves where the gradient vanishes are minima, by exact second derivatives, and not saddles, (n,)."""
    none = torch.zeros(len(nodes), dtype=torch.float64, device=nodes.device)
    return _solve(assemble(f, nodes), none, second(f, nodes)).positive


def second(f: Embedding, nodes: Tensor) -> Tensor:
    """The energy's second derivatives at each inner node, the others held, (n, M, d, d).

    Gauss–Newton's blocks leave out, in a flat target, N ⟨2φₖ − φₖ₋₁ − φₖ₊₁, ∇²φ⟩.
    """
    n, size, d = nodes.shape
    values = f.values(nodes.reshape(-1, d)).view(n, size, -1)
    before, after = values[:, :-2].flatten(0, 1), values[:, 2:].flatten(0, 1)
    z = nodes[:, 1:-1].reshape(-1, d)
    found = []
    for rows in torch.split(torch.arange(len(z), device=z.device), f.rows(4 * d)):
        left, right = before[rows], after[rows]

        def local(z: Tensor, left: Tensor = left, right: Tensor = right) -> Tensor:
            here = f(z)
            return 0.5 * (f.target.residual(left, here).square().sum() + f.target.residual(here, right).square().sum())

        slope = torch.func.grad(local)
        at = z[rows]
        turn = torch.vmap(lambda v, at=at, slope=slope: forward.derivative(slope, at, v)[1])
        eye = torch.eye(d, dtype=z.dtype, device=z.device)[:, None].expand(d, len(rows), d)
        found.append(turn(eye).movedim(0, 1))
    hessian = (size - 1) * torch.cat(found).view(n, size - 2, d, d)
    return 0.5 * (hessian + hessian.mT)
