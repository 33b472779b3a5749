"""Damped Gauss–Newton on whole curves: many at once, each stops when it is done.

Undamped steps converge linearly, on the unit sphere by (L/π)² per step. Where that is slow the exact second derivative
of the energy takes the place of Gauss–Newton's, if it is positive definite. A step that does not lower the energy is
taken again with Levenberg's and Marquardt's damping.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from vaelid.geometry.blocks import Solution, System, assemble, each, put, solve, taken
from vaelid.geometry.manifold import Embedding

_SLOW = 0.2  # a squared decrement that falls by less than this factor asks for second derivatives
_FIRST = 0.1  # damping after the first step that fails, in units of the diagonal blocks
_LAST = 1e6  # damping at which nothing is left to try


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
            Status.STALLED: "no step lowers the energy any more; the arithmetic's precision may be spent: try float64",
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


@torch.no_grad()
def minimise(f: Embedding, start: Tensor, tolerance: float, iterations: int) -> Minimum:
    """Lower the chord energy of curves (n, N + 1, d), their ends held, until decrement² ≤ tolerance · energy."""
    n, device = len(start), start.device
    nodes = start.clone()
    energy = torch.full((n,), torch.inf, dtype=torch.float64, device=device)
    decrement = torch.full_like(energy, torch.inf)
    status = torch.full((n,), int(Status.MORE), device=device)
    steps = torch.zeros(n, dtype=torch.int64, device=device)
    active = torch.arange(n, device=device)
    system = assemble(f, nodes)
    damping, before = torch.zeros_like(energy), torch.full_like(energy, torch.inf)
    for step in range(iterations + 1):
        undamped = _newton(system, torch.zeros_like(damping))
        relative = _relative(undamped, system)
        broken = ~system.energy.isfinite() | ~system.gradient.flatten(1).isfinite().all(1)
        ended = torch.full_like(active, int(Status.MORE))
        ended[damping > _LAST] = int(Status.STALLED)
        ended[relative <= tolerance] = int(Status.CONVERGED)
        ended[broken] = int(Status.BROKEN)
        energy[active], decrement[active], status[active] = system.energy, relative, ended
        going = ended == int(Status.MORE)
        if step == iterations or not going.any():
            break
        if not going.all():
            active, damping, before, relative = active[going], damping[going], before[going], relative[going]
            system, undamped = taken(system, going), taken(undamped, going)
        slow = (damping == 0) & (relative > _SLOW * before) & (relative < 1)
        solution = _step(f, nodes[active], system, undamped, damping, slow)
        trial = nodes[active].clone()
        trial[:, 1:-1] += solution.step[..., 0]
        found = assemble(f, trial)
        steps[active] += 1
        better = found.energy < system.energy + system.noise  # never for what is not finite
        fall = (system.energy - found.energy) / (0.5 * solution.decrement[:, 0]).clamp_min(1e-300)
        rows = better.nonzero()[:, 0]
        nodes[active[rows]] = trial[rows]
        put(system, rows, taken(found, rows))
        before = torch.where(better & (damping == 0), relative, torch.inf)
        eased = torch.where(damping < 0.02, 0.0, damping / 5)
        kept = torch.where(fall > 0.5, eased, torch.where(fall < 0.1, (4 * damping).clamp_min(_FIRST), damping))
        damping = torch.where(better, kept, (8 * damping).clamp_min(_FIRST))
    return Minimum(nodes, energy, decrement, status, steps)


def _relative(solution: Solution, system: System) -> Tensor:
    """decrement² / energy; what rounding alone can do counts as nothing."""
    scale = system.energy.clamp_min(torch.finfo(torch.float64).tiny)
    decrement = solution.decrement[:, 0]
    share = torch.where(decrement <= system.floor, 0.0, decrement) / scale
    return torch.where(solution.positive & share.isfinite(), share, torch.inf)


def _newton(system: System, damping: Tensor, exact: Tensor | None = None) -> Solution:
    """A step with the blocks on the diagonal multiplied by 1 + damping, and a ridge of rounding's size."""
    diagonal = system.diagonal if exact is None else exact
    scale = system.diagonal.diagonal(dim1=-2, dim2=-1).mean(-1)  # (n, M)
    ridge = 10 * torch.finfo(scale.dtype).eps * scale
    eye = torch.eye(diagonal.shape[-1], dtype=scale.dtype, device=scale.device)
    damped = diagonal + (damping.to(scale)[:, None] * scale + ridge)[..., None, None] * eye
    if damping.any():
        damped = damped + damping.to(scale)[:, None, None, None] * system.diagonal
    return solve(damped, system.upper, system.gradient.unsqueeze(-1))


def _step(f: Embedding, nodes: Tensor, system: System, undamped: Solution, damping: Tensor, slow: Tensor) -> Solution:
    """The step that each curve takes: with second derivatives where Gauss–Newton is slow, damped where it failed."""
    chosen = Solution(*(tensor.clone() for tensor in each(undamped)))
    damped = (damping > 0) | ~undamped.positive
    if slow.any():
        rows = slow.nonzero()[:, 0]
        exact = _newton(taken(system, rows), torch.zeros_like(damping[rows]), second(f, nodes[rows]))
        good = exact.positive
        put(chosen, rows[good], taken(exact, good))
        damped[rows[good]] = False
    if damped.any():
        rows = damped.nonzero()[:, 0]
        put(chosen, rows, _newton(taken(system, rows), damping[rows].clamp_min(_FIRST)))
    return chosen


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
        turn = torch.vmap(lambda v, at=at, slope=slope: torch.func.jvp(slope, (at,), (v,))[1])
        eye = torch.eye(d, dtype=z.dtype, device=z.device)[:, None].expand(d, len(rows), d)
        found.append(turn(eye).movedim(0, 1))
    hessian = (size - 1) * torch.cat(found).view(n, size - 2, d, d)
    return 0.5 * (hessian + hessian.mT)
