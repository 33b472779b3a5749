"""Densities with respect to Lebesgue measure: normal, continuous Bernoulli."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vaelid.distributions.base import Distribution
from vaelid.distributions.special import HALF_LOG_2PI, ndtr


@final
@dataclass(frozen=True, eq=False)
class Normal(Distribution):
    """Normal cells: log p = −½ ((x − loc) / scale)² − log scale − ½ log 2π.

    It is also a `vaelid.types.Transport`: z = loc + scale · u from noise u ~ N(0, I).
    """

    loc: Tensor
    scale: Tensor
    discrete: ClassVar[bool] = False

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log density of every cell, nats per unit of x."""
        return self._log_density(self.pull(x))

    @property
    def mean(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """scale²."""
        return self.scale.square()

    def cdf(self, x: Tensor) -> Tensor:
        """Φ((x − loc) / scale)."""
        return ndtr(self.pull(x))

    def icdf(self, u: Tensor) -> Tensor:
        """loc + scale · Φ⁻¹(u)."""
        standard: Tensor = torch.special.ndtri(u)
        return self.loc + self.scale * standard

    @property
    def size(self) -> int:
        """Number of cells along the last dimension."""
        return self.loc.shape[-1]

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z = loc + scale · u, (sample, batch, *event), and log p(z), (sample, batch), nats, computed from u."""
        return self.loc + self.scale * u, self._sum(self._log_density(u))

    def pull(self, z: Tensor) -> Tensor:
        """u = (z − loc) / scale, (sample, batch, *event)."""
        return (z - self.loc) / self.scale

    def _log_density(self, u: Tensor) -> Tensor:
        return -0.5 * u.square() - (self.scale.log() + HALF_LOG_2PI)


@final
@dataclass(frozen=True, eq=False)
class ContinuousBernoulli(Distribution):
    """Continuous Bernoulli cells on [0, 1]: p(x) = l e^(l x) / (e^l − 1), uniform where the logit l is 0.

    log p = l (x − ½) − ϕ(l), where ϕ(l) = log(sinh(l/2) / (l/2)) is even and has a power series, used for |l| < 1.

    Source: Loaiza-Ganem and Cunningham 2019, "The continuous Bernoulli", where λ = sigmoid(l).
    """

    logits: Tensor
    discrete: ClassVar[bool] = False

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """l (x − ½) − ϕ(l); from |l| = 1 on, the same without differences of large terms."""
        near, inner, outer = _split(self.logits)
        square = (inner / 2).square()
        series = inner * (x - 0.5) - square * _polynomial(_PHI, square)
        from_mode = torch.where(self.logits > 0, 1 - x, x)
        return torch.where(near, series, outer.log() - torch.log1p(-torch.exp(-outer)) - outer * from_mode)

    @property
    def mean(self) -> Tensor:
        """½ + ϕ′(l) = ½ coth(l/2) + ½ − 1/l."""
        near, inner, outer = _split(self.logits)
        decay = torch.exp(-outer)
        far = torch.sign(self.logits) * (0.5 + decay / (1 - decay) - 1 / outer)
        square = (inner / 2).square()
        return 0.5 + torch.where(near, inner / 2 * _polynomial(_SLOPE, square), far)

    @property
    def variance(self) -> Tensor:
        """ϕ″(l) = 1/l² − ¼ / sinh²(l/2)."""
        near, inner, outer = _split(self.logits)
        decay = torch.exp(-outer)
        far = outer.square().reciprocal() - decay / (1 - decay).square()
        return torch.where(near, _polynomial(_CURVATURE, (inner / 2).square()), far)

    def cdf(self, x: Tensor) -> Tensor:
        """(e^(l x) − 1) / (e^l − 1), taken as x p(x; l) / p(1; l x) or, the same for l < 0, x p(0; l) / p(0; l x)."""
        x, end = x.clamp(0, 1), (self.logits > 0).to(self.logits.dtype)
        ratio = self.cell_log_prob(x * end) - ContinuousBernoulli(self.logits * x).cell_log_prob(end)
        return x * ratio.exp()

    def icdf(self, u: Tensor) -> Tensor:
        """x = log(1 + u (e^l − 1)) / l; near l = 0 its series Σ κₙ(u) lⁿ⁻¹ / n!, κ the cumulants of a Bernoulli(u)."""
        logits = self.logits
        near, high = logits.abs() < 1e-3, logits > 1
        v = u * (1 - u)
        inner = torch.where(near, logits, 0)
        series = u + v * inner * (0.5 + inner * ((1 - 2 * u) / 6 + inner * (1 - 6 * v) / 24))
        middle = torch.where(near | high, 1, logits)
        outer = torch.where(high, logits, 1)
        below = torch.log1p(u * torch.expm1(middle)) / middle
        above = 1 + torch.log(u + (1 - u) * torch.exp(-outer)) / outer
        return torch.where(near, series, torch.where(high, above, below))


# log(sinh(t) / t) = Σ_k c_k t^(2k), c_k = 4^k B_2k / (2k (2k)!) with Bernoulli's numbers B_2, B_4, …
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)
_PHI = tuple(4**k * b / (2 * k * math.factorial(2 * k)) for k, b in enumerate(_BERNOULLI, start=1))
_SLOPE = tuple(k * c for k, c in enumerate(_PHI, start=1))  # ϕ′(l) / t, where t = l/2
_CURVATURE = tuple(k * (2 * k - 1) * c / 2 for k, c in enumerate(_PHI, start=1))  # ϕ″(l)


def _split(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where |l| < 1; l there and 0 elsewhere; |l| elsewhere and 1 there: each branch keeps a finite gradient."""
    near = logits.abs() < 1
    return near, torch.where(near, logits, 0), torch.where(near, 1, logits.abs())


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Σ_k coefficients[k] x^k, by Horner's rule."""
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
