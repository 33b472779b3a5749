"""Masses on all whole numbers: Poisson, negative binomial, zero-inflated negative binomial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vaelid.distributions.base import Distribution
from vaelid.distributions.special import HALF_LOG_2PI, stirling_error


@final
@dataclass(frozen=True, eq=False)
class Poisson(Distribution):
    """Poisson cells, x = 0, 1, …, with mean and variance μ = exp(log_mean): log p = x log μ − μ − log x!.

    For x > 0, with Stirling's error δ and t = log x − log μ, log p = −½ log(2πx) − δ(x) − x (t + e^(−t) − 1), whose
    last term is 0 at x = μ. Source: Loader 2000, "Fast and accurate computation of binomial probabilities".

    `cdf` and `icdf` go through SciPy on the CPU, without gradients: PyTorch's incomplete gamma function is right to
    nine digits only.
    """

    log_mean: Tensor
    discrete: ClassVar[bool] = True

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log mass of every cell, nats."""
        count = torch.where(x > 0, x, 1)
        t = count.log() - self.log_mean
        deviance = count * (t + torch.expm1(-t))
        many = -0.5 * count.log() - HALF_LOG_2PI - stirling_error(count) - deviance
        return torch.where(x > 0, many, -self.log_mean.exp())

    @property
    def mean(self) -> Tensor:
        """μ."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """μ."""
        return self.log_mean.exp()

    def cdf(self, x: Tensor) -> Tensor:
        """Regularised incomplete gamma function Q(⌊x⌋ + 1, μ)."""
        from scipy.special import gammaincc

        count, mean = self._arrays(x)
        return self.log_mean.new_tensor(np.where(count < 0, 0, gammaincc(np.floor(np.maximum(count, 0)) + 1, mean)))

    def icdf(self, u: Tensor) -> Tensor:
        """SciPy's quantile."""
        from scipy.stats import poisson

        return self.log_mean.new_tensor(poisson.ppf(*self._arrays(u)))

    def _arrays(self, x: Tensor) -> tuple[np.ndarray, ...]:
        """x and μ in float64 on the CPU."""
        x, log_mean = (part.detach().cpu().double() for part in (x, self.log_mean))
        return x.numpy(), log_mean.exp().numpy()


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
        logs = 0.5 * (self.log_concentration - count.log() - total.log()) - HALF_LOG_2PI
        errors = stirling_error(total) - stirling_error(count) - stirling_error(r)
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


@final
@dataclass(frozen=True, eq=False)
class ZeroInflatedNegativeBinomial(Distribution):
    """A count that is 0 with probability π = sigmoid(dropout) and else negative binomial, with mean μ and r as there.

    log p(0) = log(π + (1 − π) NB(0)), and log p(x) = log(1 − π) + log NB(x) for x > 0.

    Source: Lopez et al. 2018, "Deep generative modeling for single-cell transcriptomics". `cdf` and `icdf` go through
    SciPy on the CPU, as `NegativeBinomial`'s do.
    """

    log_mean: Tensor
    log_concentration: Tensor
    dropout: Tensor
    discrete: ClassVar[bool] = True

    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log mass of every cell, nats."""
        counted = logsigmoid(-self.dropout) + self._counts.cell_log_prob(x)
        return torch.where(x > 0, counted, torch.logaddexp(logsigmoid(self.dropout), counted))

    @property
    def mean(self) -> Tensor:
        """(1 − π) μ."""
        return torch.sigmoid(-self.dropout) * self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """(1 − π) (μ + μ²/r + π μ²)."""
        extra = torch.sigmoid(self.dropout) * (2 * self.log_mean).exp()
        return torch.sigmoid(-self.dropout) * (self._counts.variance + extra)

    def cdf(self, x: Tensor) -> Tensor:
        """π + (1 − π) · the negative binomial's."""
        total = torch.sigmoid(self.dropout) + torch.sigmoid(-self.dropout) * self._counts.cdf(x)
        return torch.where(x < 0, 0, total)

    def icdf(self, u: Tensor) -> Tensor:
        """0 up to u = π, then the negative binomial's quantile of (u − π) / (1 − π)."""
        rest = (u - torch.sigmoid(self.dropout)) / torch.sigmoid(-self.dropout)
        inside = rest > 0
        return torch.where(inside, self._counts.icdf(torch.where(inside, rest, 0.5)), 0)

    @property
    def _counts(self) -> NegativeBinomial:
        return NegativeBinomial(self.log_mean, self.log_concentration)
