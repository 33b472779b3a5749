"""Masses on equally spaced levels: the discretised logistic, and mixtures of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vaelid.distributions.base import Distribution

_TOGETHER = 2048  # cells whose tails, at all levels, are held at once: what a cache holds


@final
@dataclass(frozen=True, eq=False)
class DiscretizedLogistic(Distribution):
    """Logistic mass of the bin [x − step/2, x + step/2] around each level low, low + step, …, high.

    The first bin is open below and the last one above, so that the masses sum to 1. With a, b the bin's edges in units
    of the scale from ``loc``, σ(b) − σ(a) = σ(b) σ(−a) (1 − e^(a − b)), of which every factor has a stable logarithm:
    log p = log σ(b) + log σ(−a) + log(1 − e^(−step/scale)), however far the tail.

    Source: Salimans et al. 2017, "PixelCNN++", there with the density at the midpoint in the tails. ``loc``, scale
    and x are in the data's own units, 0 … 255 by default.
    """

    loc: Tensor
    log_scale: Tensor
    low: float = 0.0
    high: float = 255.0
    step: float = 1.0
    discrete: ClassVar[bool] = True

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log mass of every cell's bin, nats."""
        scale = self.log_scale.exp()
        first, last = x < self.low + self.step / 2, x > self.high - self.step / 2
        below = logsigmoid((x + self.step / 2 - self.loc) / scale)
        above = logsigmoid((self.loc - x + self.step / 2) / scale)
        width = torch.log(-torch.expm1(-self.step / scale))
        return torch.where(last, 0, below) + torch.where(first, 0, above) + torch.where(first | last, 0, width)

    @property
    def log_probs(self) -> Tensor:
        """Log mass of every level, shape (sample, batch, *event, levels), nats."""
        cells = replace(self, loc=self.loc.unsqueeze(-1), log_scale=self.log_scale.unsqueeze(-1))
        return cells.cell_log_prob(_levels(self.loc, self.low, self.high, self.step))

    @property
    def mean(self) -> Tensor:
        """Σ level · p(level), by the tails of the level's number K: E[K] = Σ_{k > 0} P(K ≥ k)."""
        sharp = torch.exp(-self.log_scale)
        middle = self.loc * sharp
        edges = (_levels(middle, self.low, self.high, self.step)[1:] - self.step / 2).unsqueeze(1)
        cells = (torch.split(part.flatten(), _TOGETHER) for part in (middle, sharp.expand(middle.shape)))
        numbers = [torch.sigmoid(torch.addcmul(at, by, edges, value=-1)).sum(0) for at, by in zip(*cells, strict=True)]
        return self.low + self.step * torch.cat(numbers).view(middle.shape)

    @property
    def variance(self) -> Tensor:
        """Σ (level − mean)² p(level)."""
        return self._moments()[1]

    def cdf(self, x: Tensor) -> Tensor:
        """σ of the upper edge of x's bin; 1 from the last level on."""
        level = torch.floor((x - self.low) / self.step + 1e-3)  # what rounding put just below a level is that level
        edge = self.low + self.step * (level + 0.5)
        inside = torch.sigmoid((edge - self.loc) / self.log_scale.exp())
        return torch.where(level < 0, 0, torch.where(level < self._steps, inside, 1))

    def icdf(self, u: Tensor) -> Tensor:
        """The smallest level whose bin's upper edge reaches loc + scale · logit(u)."""
        edge = self.loc + self.log_scale.exp() * torch.logit(u) - self.step / 2
        return self.low + self.step * torch.ceil((edge - self.low) / self.step).clamp(0, self._steps)

    @property
    def _steps(self) -> int:
        """Number of levels after the first."""
        return round((self.high - self.low) / self.step)

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance by summing tails: with K the level's number and c its value nearest to ``loc``,

        E[K − c] = Σ_{k > c} P(K ≥ k) − Σ_{k ≤ c} P(K < k), E[(K − c)²] = Σ_{k > c} (2 (k − c) − 1) P(K ≥ k)
        + Σ_{k ≤ c} (2 (c − k) + 1) P(K < k). Centred at c, a small variance loses no digits; one level at a time,
        nothing of the size of cells × levels is stored.
        """
        scale = self.log_scale.exp()
        centre = ((self.loc.detach() - self.low) / self.step).round().clamp(0, self._steps)
        first = torch.zeros_like(self.loc + scale)
        second = torch.zeros_like(first)
        for k in range(1, self._steps + 1):
            weight = 2 * (k - centre) - 1
            sign = weight.sign()
            tail = torch.sigmoid(sign * (self.loc - (self.low + self.step * (k - 0.5))) / scale)
            first = first + sign * tail
            second = second + weight.abs() * tail
        return self.low + self.step * (centre + first), self.step**2 * (second - first.square())


@final
@dataclass(frozen=True, eq=False)
class DiscretizedLogisticMixture(Distribution):
    """A mixture of discretised logistics in every cell: p(x) = Σ_j w_j p_j(x), w = softmax(logits).

    ``logits``, ``loc`` and ``log_scale`` have one trailing dimension more than x: (sample, batch, *event, components).
    The cells (pixels and their channels) are independent given the parameters.

    Source: Salimans et al. 2017, "PixelCNN++", without its coupling of colour channels; the bins are those of
    `DiscretizedLogistic`.
    """

    logits: Tensor
    loc: Tensor
    log_scale: Tensor
    low: float = 0.0
    high: float = 255.0
    step: float = 1.0
    discrete: ClassVar[bool] = True

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log Σ_j w_j p_j(x) of every cell, nats."""
        parts = torch.log_softmax(self.logits, dim=-1) + self._parts.cell_log_prob(x.unsqueeze(-1))
        return parts.logsumexp(-1)

    @property
    def log_probs(self) -> Tensor:
        """Log mass of every level, shape (sample, batch, *event, levels), nats."""
        logits, loc, log_scale = (part.unsqueeze(-2) for part in (self.logits, self.loc, self.log_scale))
        cells = replace(self, logits=logits, loc=loc, log_scale=log_scale)
        return cells.cell_log_prob(_levels(self.loc, self.low, self.high, self.step))

    @property
    def mean(self) -> Tensor:
        """Σ_j w_j mean_j."""
        return (self._weights * self._parts.mean).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Σ_j w_j (variance_j + (mean_j − mean)²)."""
        mean, variance = self._parts._moments()
        centre = (self._weights * mean).sum(-1, keepdim=True)
        return (self._weights * (variance + (mean - centre).square())).sum(-1)

    def cdf(self, x: Tensor) -> Tensor:
        """Σ_j w_j cdf_j(x)."""
        return (self._weights * self._parts.cdf(x.unsqueeze(-1))).sum(-1)

    def icdf(self, u: Tensor) -> Tensor:
        """The smallest level whose cumulated mass reaches u, by bisection among the levels."""
        last = self._parts._steps
        below = torch.full_like(u + self.logits[..., 0], -1)  # a level that does not reach u, and one that does
        reaches = torch.full_like(below, last)
        for _ in range(last.bit_length()):
            middle = torch.floor((below + reaches) / 2)
            enough = self.cdf(self.low + self.step * middle) >= u
            below, reaches = torch.where(enough, below, middle), torch.where(enough, middle, reaches)
        return self.low + self.step * reaches

    @property
    def _weights(self) -> Tensor:
        return torch.softmax(self.logits, dim=-1)

    @property
    def _parts(self) -> DiscretizedLogistic:
        return DiscretizedLogistic(self.loc, self.log_scale, self.low, self.high, self.step)


def _levels(like: Tensor, low: float, high: float, step: float) -> Tensor:
    """low, low + step … high, (levels,)."""
    return low + step * torch.arange(round((high - low) / step) + 1, dtype=like.dtype, device=like.device)
