"""Paths of distributions from one that is easy to draw from to p(x, z), and what Hamiltonian dynamics need of them."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import torch
from torch import Tensor

from vaelid.distributions import Normal
from vaelid.model import Problem
from vaelid.random import Key
from vaelid.transports import FullNormal
from vaelid.types import Batch, Trace, Transport


class Posed(Protocol):
    """What annealing sees of a problem; `vaelid.model.Problem` is one, and any model's that can write a trace."""

    @property
    def batch(self) -> Batch:
        """The rows."""

    @property
    def noise_size(self) -> int:
        """k, the number of noise dimensions per row."""

    def noise(self, key: Key, samples: int, start: int = 0) -> Tensor:
        """Noise u ~ N(0, I), (sample, batch, k), by (key, row id, sample, dimension)."""

    def trace(self, u: Tensor) -> Trace:
        """The pass of noise through start and likelihood."""

    def noise_of(self, z: Tensor) -> Tensor:
        """The noise that `trace` pushes to z."""


@final
@dataclass(frozen=True, eq=False)
class State:
    """Positions with everything known there.

    Attributes:
        position: c, (chain, row, k).
        log_base: log b(c) up to a constant, (chain, row).
        log_weight: log w(c), (chain, row).
        base_slope: ∇ log b, (chain, row, k); None where the dynamics of b are solved exactly.
        weight_slope: ∇ log w, (chain, row, k).
    """

    position: Tensor
    log_base: Tensor
    log_weight: Tensor
    base_slope: Tensor | None
    weight_slope: Tensor

    def where(self, accepted: Tensor, other: State) -> State:
        """This state where ``accepted`` (chain, row), else the other."""
        cells = accepted.unsqueeze(-1)
        slope, others = self.base_slope, other.base_slope
        return State(
            torch.where(cells, self.position, other.position),
            torch.where(accepted, self.log_base, other.log_base),
            torch.where(accepted, self.log_weight, other.log_weight),
            None if slope is None or others is None else torch.where(cells, slope, others),
            torch.where(cells, self.weight_slope, other.weight_slope),
        )


class Path(abc.ABC):
    """π_β(c) ∝ b(c) w(c)^β for 0 ≤ β ≤ 1: b at β = 0, and p(x, ·) with its integral p(x) at β = 1.

    Attributes:
        problem: the rows and their model.
        longest: step size beyond which a trajectory of one step gains nothing; steps start from it over the leapfrogs.
        power: how the temperatures of a pilot crowd near β = 0, β = (i / n)^power.
    """

    problem: Any
    longest: float
    power: float

    @abc.abstractmethod
    def start(self, noise: Tensor) -> Tensor:
        """c ~ b from noise (chain, row, k)."""

    @abc.abstractmethod
    def of(self, z: Tensor) -> Tensor:
        """The position of latents z (chain, row, d)."""

    @abc.abstractmethod
    def latents(self, position: Tensor) -> Tensor:
        """z (chain, row, d), the groups of a ladder side by side."""

    @abc.abstractmethod
    def state(self, position: Tensor) -> State:
        """Values and slopes at a position: one decoder row forward and backward for every chain of every row."""

    @abc.abstractmethod
    def force(self, state: State, beta: Tensor) -> Tensor:
        """The slope of log π_β that kicks the momentum; beta (row, 1)."""

    @abc.abstractmethod
    def drift(self, position: Tensor, momentum: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Move along the momentum for ``step`` (row, 1), the forces of `force` aside."""


@final
class NoisePath(Path):
    """N(v; 0, I) · w(v)^β over the noise of the problem's start, moved and stretched: u = loc + scale ⊙ v.

    With loc = 0 and scale = 1 it is, in z, q(z|x)^(1−β) p(x, z)^β, whitened by q: log w = log p(x, z) − log q(z|x).
    Else b is the distribution of T(loc + scale ⊙ v) and log w gains log N(u; 0, I) − log N(v; 0, I) + Σ log scale. It
    needs the trace alone and so holds for normals, mixtures and flows, for groups of latents, and for the prior in
    the place of q. The normal's own dynamics are a rotation of (v, momentum), solved exactly, so that only what b
    misses of the posterior costs acceptance.
    """

    longest = math.pi / 2  # a quarter turn exchanges position and momentum: an independent draw where w is constant

    def __init__(
        self, problem: Posed, loc: Tensor | None = None, scale: Tensor | None = None, power: float = 1.0
    ) -> None:
        self.problem, self.loc, self.scale, self.power = problem, loc, scale, power

    @property
    def normal(self) -> Normal | None:
        """The start where it is a normal with independent dimensions of a `Problem`, which is moved as a whole; None
        where it is the prior, which stays.
        """
        problem = self.problem
        if not isinstance(problem, Problem) or problem.start is problem.prior:
            return None
        return problem.start if isinstance(problem.start, Normal) else None

    @property
    def place(self) -> tuple[Tensor | None, Tensor | None, bool]:
        """loc and scale, and whether they are those of `normal`."""
        normal = self.normal
        return (self.loc, self.scale, False) if normal is None else (normal.loc, normal.scale, True)

    def starting(self, normal: Normal) -> NoisePath:
        """The path that starts at a normal over z."""
        return NoisePath(replace(self.problem, start=normal))

    def moved(self, loc: Tensor, scale: Tensor) -> NoisePath:
        """The path whose start lies at ``loc`` with ``scale``, both (row, k) and in units of this one's noise.

        Of a normal loc and scale themselves are moved: a start many standard deviations away would else be the small
        difference of large numbers.
        """
        if (normal := self.normal) is not None:
            return self.starting(Normal(normal.loc + normal.scale * loc, normal.scale * scale))
        if self.loc is None or self.scale is None:
            return NoisePath(self.problem, loc, scale)
        return NoisePath(self.problem, self.loc + self.scale * loc, self.scale * scale)

    def start(self, noise: Tensor) -> Tensor:
        """The noise itself."""
        return noise

    def of(self, z: Tensor) -> Tensor:
        """The inverse transport of z, (u − loc) / scale."""
        u: Tensor = self.problem.noise_of(z)
        return u if self.loc is None or self.scale is None else (u - self.loc) / self.scale

    def latents(self, position: Tensor) -> Tensor:
        """z as the start, or for groups of latents the trace, has it."""
        u = self._noise(position)
        with torch.no_grad():
            if isinstance(self.problem, Problem):
                return self.problem.start.push(u)[0]
            return torch.cat([group.z for group in self.problem.trace(u).groups], -1)

    def state(self, position: Tensor) -> State:
        """log w and its slope; log b = −½ |v|²."""
        with torch.enable_grad():
            v = position.detach().requires_grad_()
            u = self._noise(v)
            log_weight = self.problem.trace(u).log_weight
            if self.scale is not None:
                moved = 0.5 * (v.square() - u.square()).sum(-1) + self.scale.log().sum(-1)
                log_weight = log_weight + moved
            slope = _slope(log_weight, v)
        return State(v.detach(), -0.5 * v.detach().square().sum(-1), log_weight.detach(), None, slope)

    def force(self, state: State, beta: Tensor) -> Tensor:
        """β ∇ log w."""
        return beta * state.weight_slope

    def drift(self, position: Tensor, momentum: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """A turn by the angle ``step``."""
        cos, sin = torch.cos(step), torch.sin(step)
        return cos * position + sin * momentum, cos * momentum - sin * position

    def _noise(self, v: Tensor) -> Tensor:
        return v if self.loc is None or self.scale is None else self.loc + self.scale * v


@final
class LatentPath(Path):
    """b(z) · (p(x, z) / b(z))^β over z itself, from any distribution b that has both draws and a density.

    With b = p(z) it is p(z) p(x|z)^β.
    """

    longest = 1.0

    def __init__(self, problem: Any, base: Transport, power: float = 1.0) -> None:
        self.problem, self.base, self.power = problem, base, power

    def start(self, noise: Tensor) -> Tensor:
        """Noise pushed through b."""
        with torch.no_grad():
            return self.base.push(noise)[0]

    def of(self, z: Tensor) -> Tensor:
        """z itself."""
        return z

    def latents(self, position: Tensor) -> Tensor:
        """The position itself."""
        return position

    def state(self, position: Tensor) -> State:
        """log b, log p(x, z) − log b, and both slopes."""
        with torch.enable_grad():
            c = position.detach().requires_grad_()
            log_base = self.base.log_prob(c)
            base_slope = _slope(log_base, c)
            log_joint = self.problem.log_joint(c)
            slope = _slope(log_joint, c)
        log_base = log_base.detach()
        return State(c.detach(), log_base, log_joint.detach() - log_base, base_slope, slope - base_slope)

    def force(self, state: State, beta: Tensor) -> Tensor:
        """∇ log b + β ∇ log w."""
        slope = state.weight_slope * beta
        return slope if state.base_slope is None else slope + state.base_slope

    def drift(self, position: Tensor, momentum: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """c + step · momentum."""
        return position + step * momentum, momentum


def from_prior(model: Any, batch: Batch) -> Path:
    """The path p(z) p(x|z)^β of some rows: over z where the prior is known not to be a normal, else over noise."""
    with torch.no_grad():
        problem = model.given(batch, start="prior")
    if isinstance(problem, Problem) and not isinstance(problem.prior, Normal | FullNormal):
        return LatentPath(problem, problem.prior, power=PRIOR_POWER)
    return NoisePath(problem, power=PRIOR_POWER)


PRIOR_POWER = 4.0  # a likelihood of many cells makes itself felt long before β = 1 / 10


def _slope(values: Tensor, at: Tensor) -> Tensor:
    slope: Tensor = torch.autograd.grad(values.sum(), at)[0]
    return slope
