"""Masses on finitely many levels: Bernoulli, binomial, categorical, ordinal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vaelid.distributions.base import Distribution
from vaelid.distributions.special import pick


@final
@dataclass(frozen=True, eq=False)
class Bernoulli(Distribution):
    """Bernoulli cells, x in {0, 1}: log p = log sigmoid(±logits), with + where x is 1."""

    logits: Tensor
    discrete: ClassVar[bool] = True

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log sigmoid(±logits)."""
        # As fast as binary_cross_entropy_with_logits, and x, which is small, is never expanded over samples.
        return logsigmoid((2 * x - 1) * self.logits)

    @property
    def mean(self) -> Tensor:
        """p₁ = sigmoid(logits)."""
        return torch.sigmoid(self.logits)

    @property
    def variance(self) -> Tensor:
        """p₁ (1 − p₁)."""
        return torch.sigmoid(self.logits) * torch.sigmoid(-self.logits)

    def cdf(self, x: Tensor) -> Tensor:
        """1 − p₁ for 0 ≤ x < 1."""
        return torch.where(x < 0, 0, torch.where(x < 1, torch.sigmoid(-self.logits), 1))

    def icdf(self, u: Tensor) -> Tensor:
        """1 where u > 1 − p₁, else 0."""
        return (u > torch.sigmoid(-self.logits)).to(self.logits.dtype)


@final
@dataclass(frozen=True, eq=False)
class Binomial(Distribution):
    """Binomial cells, x whole in 0 … trials: log p = log C(trials, x) + x log p₁ + (trials − x) log(1 − p₁).

    p₁ = sigmoid(logits). `cdf` and `icdf` hold a table of the trials + 1 masses of every cell.
    """

    logits: Tensor
    trials: int
    discrete: ClassVar[bool] = True

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log mass of every cell, nats."""
        choose = self.logits.new_tensor(_log_choose(self.trials))[x.long()]
        return choose + x * logsigmoid(self.logits) + (self.trials - x) * logsigmoid(-self.logits)

    @property
    def mean(self) -> Tensor:
        """trials · p₁."""
        return self.trials * torch.sigmoid(self.logits)

    @property
    def variance(self) -> Tensor:
        """trials · p₁ (1 − p₁)."""
        return self.trials * torch.sigmoid(self.logits) * torch.sigmoid(-self.logits)

    def cdf(self, x: Tensor) -> Tensor:
        """Σ over k ≤ x of p(k)."""
        return self._table().cdf(x)

    def icdf(self, u: Tensor) -> Tensor:
        """The smallest level whose cumulated mass reaches u."""
        return self._table().icdf(u)

    def _table(self) -> Categorical:
        """The same masses, (*cells, trials + 1)."""
        levels = torch.arange(self.trials + 1, dtype=self.logits.dtype, device=self.logits.device)
        return Categorical(Binomial(self.logits.unsqueeze(-1), self.trials).cell_log_prob(levels))


def _log_choose(trials: int) -> list[float]:
    """log C(trials, k) for k = 0 … trials."""
    factorial = [math.lgamma(k + 1) for k in range(trials + 1)]
    return [factorial[trials] - factorial[k] - factorial[trials - k] for k in range(trials + 1)]


@final
@dataclass(frozen=True, eq=False)
class Categorical(Distribution):
    """Categorical cells: x holds the code 0 … classes − 1, as a float or an integer.

    ``logits`` has one trailing dimension more than x: (sample, batch, *event, classes). Moments are those of the code.
    """

    logits: Tensor
    discrete: ClassVar[bool] = True

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """logits[x] − logsumexp(logits)."""
        return pick(self.log_probs, x.long())

    @property
    def log_probs(self) -> Tensor:
        """Log-probability of every class, shape (sample, batch, *event, classes), nats."""
        return torch.log_softmax(self.logits, dim=-1)

    @property
    def probs(self) -> Tensor:
        """Probability of every class, shape (sample, batch, *event, classes)."""
        return torch.softmax(self.logits, dim=-1)

    @property
    def point(self) -> Tensor:
        """The mode: a mean of codes names no class."""
        return self.mode

    @property
    def mode(self) -> Tensor:
        """The likeliest code of every cell, as a float."""
        return self.logits.argmax(dim=-1).to(self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        """Σ k p(k)."""
        return (self.probs * self._codes()).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Σ (k − mean)² p(k)."""
        return (self.probs * (self._codes() - self.mean.unsqueeze(-1)).square()).sum(-1)

    def cdf(self, x: Tensor) -> Tensor:
        """Σ over k ≤ x of p(k)."""
        last = self.logits.shape[-1] - 1
        total = pick(self.probs.cumsum(-1), x.clamp(0, last).long())
        return torch.where(x < 0, 0, torch.where(x >= last, 1, total))

    def icdf(self, u: Tensor) -> Tensor:
        """The smallest code whose cumulated mass reaches u."""
        total = self.probs.cumsum(-1)[..., :-1]
        return (u.unsqueeze(-1) > total).sum(-1).to(self.logits.dtype)

    def _codes(self) -> Tensor:
        return torch.arange(self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device)


@final
@dataclass(frozen=True, eq=False)
class Ordinal(Distribution):
    """Ordered classes, x = 0 … levels − 1, by a cumulative logit: P(X ≤ k) = sigmoid(c_k − location).

    ``cutpoints`` c holds levels − 1 increasing numbers along one trailing dimension more than x has. With
    sigmoid(b) − sigmoid(a) = sigmoid(b) sigmoid(−a) (1 − e^(a − b)), the log mass of a level between the cutpoints a
    and b keeps its digits however far from the location. Moments are those of the code.

    Source: McCullagh 1980, "Regression models for ordinal data".
    """

    location: Tensor
    cutpoints: Tensor
    discrete: ClassVar[bool] = True

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log mass of every cell, nats."""
        return pick(self.log_probs, x.long())

    @property
    def log_probs(self) -> Tensor:
        """Log mass of every level, shape (sample, batch, *event, levels), nats."""
        distance = self.cutpoints - self.location.unsqueeze(-1)
        below, above = logsigmoid(distance), logsigmoid(-distance)
        width = torch.log(-torch.expm1(-self.cutpoints.diff(dim=-1)))
        return torch.cat((below[..., :1], below[..., 1:] + above[..., :-1] + width, above[..., -1:]), dim=-1)

    @property
    def point(self) -> Tensor:
        """The median, a level: the mean of ordered codes lies between levels, and depends on how they are spaced."""
        return (self.location.unsqueeze(-1) > self.cutpoints).sum(-1).to(self.location.dtype)

    @property
    def mean(self) -> Tensor:
        """Σ k p(k)."""
        return self._table().mean

    @property
    def variance(self) -> Tensor:
        """Σ (k − mean)² p(k)."""
        return self._table().variance

    def cdf(self, x: Tensor) -> Tensor:
        """sigmoid(c_⌊x⌋ − location); 1 from the last level on."""
        last = self.cutpoints.shape[-1]
        inside = pick(self._below(), x.clamp(0, last - 1).long())
        return torch.where(x < 0, 0, torch.where(x >= last, 1, inside))

    def icdf(self, u: Tensor) -> Tensor:
        """The smallest level whose cumulated mass reaches u."""
        return (u.unsqueeze(-1) > self._below()).sum(-1).to(self.location.dtype)

    def _below(self) -> Tensor:
        """P(X ≤ k) for every k but the last, (sample, batch, *event, levels − 1)."""
        return torch.sigmoid(self.cutpoints - self.location.unsqueeze(-1))

    def _table(self) -> Categorical:
        """The same masses, (*cells, levels)."""
        return Categorical(self.log_probs)
