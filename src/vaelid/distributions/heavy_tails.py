"""Densities with tails heavier than a normal's: Laplace, Student's t, log-normal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vaelid.distributions.base import Distribution
from vaelid.distributions.special import HALF_LOG_2PI, log1p_square, ndtr, stirling_error


@final
@dataclass(frozen=True, eq=False)
class Laplace(Distribution):
    """Laplace cells: log p = −|x − loc| / scale − log(2 scale)."""

    loc: Tensor
    scale: Tensor
    discrete: ClassVar[bool] = False

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log density of every cell, nats per unit of x."""
        return -(x - self.loc).abs() / self.scale - (self.scale.log() + math.log(2))

    @property
    def mean(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """2 scale²."""
        return 2 * self.scale.square()

    def cdf(self, x: Tensor) -> Tensor:
        """½ e^(−|t|) below loc and 1 − ½ e^(−|t|) above, t = (x − loc) / scale."""
        t = (x - self.loc) / self.scale
        tail = 0.5 * torch.exp(-t.abs())
        return torch.where(t < 0, tail, 1 - tail)

    def icdf(self, u: Tensor) -> Tensor:
        """loc + scale · log(2u) up to u = ½, loc − scale · log(2 (1 − u)) above."""
        return self.loc - self.scale * torch.sign(u - 0.5) * torch.log(2 * torch.minimum(u, 1 - u))


@final
@dataclass(frozen=True, eq=False)
class StudentT(Distribution):
    """Student's t cells with location, scale and ν = ``degrees`` of freedom; a normal in the limit of large ν.

    log p = log Γ((ν + 1)/2) − log Γ(ν/2) − ½ log(πν) − log scale − ½ (ν + 1) log(1 + t²/ν), t = (x − loc) / scale.

    The gamma functions are never subtracted from one another. With a = ν/2 and Stirling's errors δ (see
    `special.stirling_error`), the first three terms are a log(1 + 1/2a) − ½ + δ(a + ½) − δ(a) − ½ log 2π.

    There is a mean for ν > 1 and a variance for ν > 2; ``point`` is loc, the median and mode, for every ν. `cdf` and
    `icdf` go through SciPy on the CPU, since PyTorch has no incomplete beta function; no gradients there.
    """

    loc: Tensor
    scale: Tensor
    degrees: Tensor
    discrete: ClassVar[bool] = False

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log density of every cell, nats per unit of x."""
        half = self.degrees / 2
        constant = half * torch.log1p(0.5 / half) - 0.5 + stirling_error(half + 0.5) - stirling_error(half)
        square = log1p_square((x - self.loc) / (self.scale * self.degrees.sqrt()))
        return constant - HALF_LOG_2PI - self.scale.log() - (half + 0.5) * square

    @property
    def mean(self) -> Tensor:
        """loc; NaN where ν ≤ 1, which has no mean."""
        return torch.where(self.degrees > 1, self.loc, torch.nan)

    @property
    def variance(self) -> Tensor:
        """scale² ν / (ν − 2); infinite for 1 < ν ≤ 2, NaN where ν ≤ 1."""
        excess = torch.where(self.degrees > 2, self.degrees - 2, 1)
        finite = self.scale.square() * (self.degrees / excess)
        return torch.where(self.degrees > 2, finite, torch.where(self.degrees > 1, torch.inf, torch.nan))

    @property
    def point(self) -> Tensor:
        """loc: the median, which exists for every ν."""
        return self.loc

    def cdf(self, x: Tensor) -> Tensor:
        """P(X ≤ x), by SciPy."""
        from scipy.special import stdtr

        t = (x - self.loc) / self.scale
        return t.new_tensor(stdtr(_array(self.degrees), _array(t)))

    def icdf(self, u: Tensor) -> Tensor:
        """loc + scale · t, t being SciPy's quantile of the smaller tail."""
        from scipy.special import stdtrit

        tail = torch.minimum(u, 1 - u)
        t = -torch.sign(u - 0.5) * u.new_tensor(stdtrit(_array(self.degrees), _array(tail)))
        return self.loc + self.scale * t


@final
@dataclass(frozen=True, eq=False)
class LogNormal(Distribution):
    """Log-normal cells, x > 0: log x ~ N(loc, scale²), log p = −½ ((log x − loc) / scale)² − log(x scale) − ½ log 2π.

    The density has no value at 0.
    """

    loc: Tensor
    scale: Tensor
    discrete: ClassVar[bool] = False
    inside: ClassVar[float] = 1.0

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log density of every cell, nats per unit of x."""
        logs = x.log()
        return -0.5 * ((logs - self.loc) / self.scale).square() - (self.scale.log() + HALF_LOG_2PI) - logs

    @property
    def mean(self) -> Tensor:
        """exp(loc + ½ scale²)."""
        return (self.loc + 0.5 * self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        """(exp(scale²) − 1) exp(2 loc + scale²)."""
        square = self.scale.square()
        return torch.expm1(square) * (2 * self.loc + square).exp()

    def cdf(self, x: Tensor) -> Tensor:
        """Φ((log x − loc) / scale); 0 where x ≤ 0."""
        positive = x > 0
        below = ndtr((torch.where(positive, x, 1).log() - self.loc) / self.scale)
        return torch.where(positive, below, 0)

    def icdf(self, u: Tensor) -> Tensor:
        """exp(loc + scale · Φ⁻¹(u)), kept among the positive finite numbers of its precision."""
        standard: Tensor = torch.special.ndtri(u)
        limits = torch.finfo(u.dtype)
        return (self.loc + self.scale * standard).exp().clamp(limits.tiny, limits.max)


def _array(x: Tensor) -> object:
    """x in float64 on the CPU, as SciPy takes it."""
    return x.detach().cpu().double().numpy()
