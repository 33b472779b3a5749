"""Likelihoods of counts without an upper end: Poisson, negative binomial, zero-inflated negative binomial."""

from __future__ import annotations

import abc
from typing import final

import torch
from torch import Tensor, nn

from vaelid import distributions
from vaelid.distributions import Distribution
from vaelid.likelihoods import embeddings
from vaelid.likelihoods.base import Likelihood, of
from vaelid.likelihoods.units import standardise
from vaelid.parts import part
from vaelid.types import Support


class Counts(Likelihood, abc.ABC):
    """x ∈ {0, 1, 2 …}; the network's first head is a log mean, relative to the training mean of each feature."""

    discrete = True
    support = Support(0, integer=True)
    log_mean: Tensor
    loc: Tensor
    unit: Tensor

    def __init__(self, network: nn.Module, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.event_shape = network, tuple(event_shape)
        self.register_buffer("log_mean", torch.zeros(self.event_shape))
        self.register_buffer("loc", torch.zeros(self.event_shape))
        self.register_buffer("unit", torch.ones(self.event_shape))

    def _learn(self, x: Tensor) -> None:
        """Log mean of each feature; mean and deviation of log(1 + x)."""
        # half a count more than was seen: a feature that is 0 in every training row keeps a finite log mean
        self.log_mean.copy_(((x.nansum(0) + 0.5) / (~x.isnan()).sum(0).clamp(min=1)).log())
        standardise(x.log1p(), self.loc, self.unit)

    def scaled(self, x: Tensor) -> Tensor:
        """log(1 + x), standardised."""
        return (x.log1p() - self.loc) / self.unit


@final
@part("likelihoods.Poisson")
class Poisson(Counts):
    """x ∈ {0, 1, 2 …}; mean μ from the network, which is the variance as well: log p = Σ x log μ − μ − log x!.

    Args:
        network: z → log mean, relative to the training mean of each feature.
        event_shape: shape of one row.
    """

    fisher_rao = True

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Poisson with log mean raw[0] + the feature's own."""
        return distributions.Poisson(raw[0] + self.log_mean, event_dims=event_dims)

    def _coordinates(self, p: Distribution) -> Tensor:
        """2√μ of every cell."""
        return embeddings.poisson(of(p, distributions.Poisson).log_mean)


@final
@part("likelihoods.NegativeBinomial")
class NegativeBinomial(Counts):
    """x ∈ {0, 1, 2 …}; mean from the network, one concentration r learned per feature; variance μ + μ²/r.

    Args:
        network: z → log mean, relative to the training mean of each feature.
        event_shape: shape of one row.
    """

    fisher_rao = True

    def __init__(self, network: nn.Module, event_shape: tuple[int, ...]) -> None:
        super().__init__(network, event_shape)
        self.log_concentration = nn.Parameter(torch.zeros_like(self.log_mean))

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Negative binomial with log mean raw[0] + the feature's own."""
        return distributions.NegativeBinomial(raw[0] + self.log_mean, self.log_concentration, event_dims=event_dims)

    def _coordinates(self, p: Distribution) -> Tensor:
        """2√r asinh √(μ/r) of every cell."""
        value = of(p, distributions.NegativeBinomial)
        return embeddings.negative_binomial(value.log_mean, value.log_concentration)


@final
@part("likelihoods.ZeroInflatedNegativeBinomial")
class ZeroInflatedNegativeBinomial(Counts):
    """x ∈ {0, 1, 2 …}: 0 with probability π = sigmoid(g), else negative binomial; mean (1 − π) μ (Lopez et al. 2018).

    Two parameters move with z, so there is no flat Fisher–Rao embedding here.

    Args:
        network: z → log μ, relative to the training mean of each feature, and the dropout logit g (two heads).
        event_shape: shape of one row.
    """

    heads = 2

    def __init__(self, network: nn.Module, event_shape: tuple[int, ...]) -> None:
        super().__init__(network, event_shape)
        self.log_concentration = nn.Parameter(torch.zeros_like(self.log_mean))

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Zero-inflated negative binomial with log mean raw[0] + the feature's own and dropout logit raw[1]."""
        return distributions.ZeroInflatedNegativeBinomial(
            raw[0] + self.log_mean, self.log_concentration, raw[1], event_dims=event_dims
        )
