"""Masses on whole numbers: Bernoulli, binomial, categorical, negative binomial."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vaelid.distributions.base import Distribution

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


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
        return _pick(torch.log_softmax(self.logits, dim=-1), x.long())

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
        total = _pick(self.probs.cumsum(-1), x.clamp(0, last).long())
        return torch.where(x < 0, 0, torch.where(x >= last, 1, total))

    def icdf(self, u: Tensor) -> Tensor:
        """The smallest code whose cumulated mass reaches u."""
        total = self.probs.cumsum(-1)[..., :-1]
        return (u.unsqueeze(-1) > total).sum(-1).to(self.logits.dtype)

    def _codes(self) -> Tensor:
        return torch.arange(self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device)


def _pick(table: Tensor, index: Tensor) -> Tensor:
    """``table[..., index]`` for every cell: table (*cells, classes), index (*cells), broadcast."""
    shape = torch.broadcast_shapes(table.shape[:-1], index.shape)  # type: ignore[no-untyped-call]
    return table.expand(*shape, -1).gather(-1, index.expand(shape).unsqueeze(-1)).squeeze(-1)


@final
@dataclass(frozen=True, eq=False)
class NegativeBinomial(Distribution):
    """Negative binomial cells, x = 0, 1, …, with mean μ and variance μ + μ²/r; a Poisson in the limit of large r.

    p(x) = Γ(x + r) / (x! Γ(r)) · (r / (r + μ))^r · (μ / (r + μ))^x, μ = exp(log_mean), r = exp(log_concentration).

    The factorials are never subtracted from one another. For x > 0, with n = x + r and Stirling's errors
    δ(n) = log n! − log(√(2πn) nⁿ e⁻ⁿ), log p = ½ log(r / (2π x n)) + δ(n) − δ(x) − δ(r) − D, where the deviance
    D = x log(x (r + μ) / (μ n)) + r log((r + μ) / n) is 0 at x = μ. Source: Loader 2000, "Fast and accurate
    computation of binomial probabilities". Both logarithms of parameters may be as large as ±80 in float64 and,
    for μ, ±20 in float32.

    `cdf` and `icdf` go through SciPy on the CPU, since PyTorch has no incomplete beta function; no gradients there.
    """

    log_mean: Tensor
    log_concentration: Tensor
    discrete: ClassVar[bool] = True

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log mass of every cell, nats."""
        mu, r = self.log_mean.exp(), self.log_concentration.exp()
        at_zero = r * logsigmoid(self.log_concentration - self.log_mean)
        count = torch.where(x > 0, x, 1)
        total = count + r
        above = count > mu
        low, high = torch.where(above, mu, count), torch.where(above, count, mu)
        ratio = (high - low) / low / (1 + high / r)
        deviance = count * torch.log1p(ratio) - r * torch.log1p((high - low) / (r + low))
        logs = 0.5 * (self.log_concentration - count.log() - total.log()) - _HALF_LOG_2PI
        errors = _stirling_error(total) - _stirling_error(count) - _stirling_error(r)
        return torch.where(x > 0, logs + errors - torch.where(above, deviance, -deviance), at_zero)

    @property
    def mean(self) -> Tensor:
        """μ."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """μ + μ²/r."""
        return self.log_mean.exp() + (2 * self.log_mean - self.log_concentration).exp()

    def cdf(self, x: Tensor) -> Tensor:
        """Regularised incomplete beta function I_p(r, x + 1), p = r / (r + μ), from the tail that keeps its digits."""
        from scipy.special import betainc, betaincc

        count, r, p, q = self._arrays(x)
        level = np.floor(np.maximum(count, 0)) + 1
        total = np.where(q < p, betaincc(level, r, q), betainc(r, level, p))
        return self._tensor(np.where(count < 0, 0, total))

    def icdf(self, u: Tensor) -> Tensor:
        """SciPy's quantile; a Poisson's where μ/r is below 1e-8."""
        from scipy.stats import nbinom, poisson

        level, r, p, q = self._arrays(u)
        # Rounding p = 1 − q spoils q; below 1e-8 the Poisson is the nearer of the two.
        return self._tensor(np.where(q < 1e-8, poisson.ppf(level, r * q / p), nbinom.ppf(level, r, p)))

    def _arrays(self, x: Tensor) -> tuple[np.ndarray, ...]:
        """x, r, p = r / (r + μ) and q = 1 − p, in float64 on the CPU."""
        x, log_mean, log_r = (part.detach().cpu().double() for part in (x, self.log_mean, self.log_concentration))
        logit = log_r - log_mean
        return x.numpy(), log_r.exp().numpy(), torch.sigmoid(logit).numpy(), torch.sigmoid(-logit).numpy()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return self.log_mean.new_tensor(array)


def _stirling_error(n: Tensor) -> Tensor:
    """δ(n) = log n! − log(√(2πn) nⁿ e⁻ⁿ): by lgamma below 10, from there by Stirling's series."""
    small = n < 10
    few, many = torch.where(small, n, 1), torch.where(small, 10, n)
    exact = torch.lgamma(few + 1) - (few + 0.5) * few.log() + few - _HALF_LOG_2PI
    square = many.square().reciprocal()
    series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188)))) / many
    return torch.where(small, exact, series)
