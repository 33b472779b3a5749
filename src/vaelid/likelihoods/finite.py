"""Likelihoods of cells with finitely many values: Bernoulli, binomial, categorical, ordinal."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from vaelid import checks, distributions
from vaelid.distributions import Distribution
from vaelid.likelihoods import embeddings
from vaelid.likelihoods.base import Likelihood, of
from vaelid.likelihoods.units import standardise
from vaelid.parts import part
from vaelid.types import Support


@final
@part("likelihoods.Bernoulli")
class Bernoulli(Likelihood):
    """x ∈ {0, 1}; the network gives logits η: log p = Σ x η − log(1 + e^η)."""

    discrete = True
    fisher_rao = True
    support = Support(0, 1, integer=True)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Bernoulli with logits raw[0]."""
        return distributions.Bernoulli(raw[0], event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """x itself."""
        return x

    def _coordinates(self, p: Distribution) -> Tensor:
        """2 arcsin √p₁ of every cell."""
        return embeddings.bernoulli(of(p, distributions.Bernoulli).logits)


@final
@part("likelihoods.Binomial")
class Binomial(Likelihood):
    """x ∈ {0 … trials}; the network gives logits η: log p = Σ log C(n, x) + x η − n log(1 + e^η).

    Args:
        network: z → logits.
        trials: n, the largest count a cell can hold.
    """

    discrete = True
    fisher_rao = True

    def __init__(self, network: nn.Module, trials: int) -> None:
        super().__init__()
        self.network, self.trials = network, checks.positive_int(trials, "the number of trials")
        self.support = Support(0, self.trials, integer=True)

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Binomial with logits raw[0]."""
        return distributions.Binomial(raw[0], self.trials, event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """x / trials."""
        return x / self.trials

    def _coordinates(self, p: Distribution) -> Tensor:
        """√n · 2 arcsin √p₁ of every cell."""
        value = of(p, distributions.Binomial)
        return math.sqrt(value.trials) * embeddings.bernoulli(value.logits)


@final
@part("likelihoods.Categorical")
class Categorical(Likelihood):
    """x ∈ {0 … classes − 1}; the network gives one logit per class: log p = Σ η_x − log Σ_k e^{η_k}.

    Args:
        network: z → logits, class after class along the first event dimension.
        classes: number of classes, the same for every cell.
    """

    discrete = True
    fisher_rao = True

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, checks.positive_int(classes, "the number of classes", minimum=2)
        self.heads = self.classes
        self.support = Support(0, self.classes - 1, integer=True)

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Categorical with logits stacked along a last dimension."""
        return distributions.Categorical(torch.stack(raw, dim=-1), event_dims=event_dims)

    def feature_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """One-hot codes: (classes · event[0], *event[1:])."""
        return (self.classes * event_shape[0], *event_shape[1:])

    def scaled(self, x: Tensor) -> Tensor:
        """One-hot codes, (batch, event[0] · classes, *event[1:])."""
        one_hot = functional.one_hot(x.long(), self.classes).to(x.dtype)
        return one_hot.movedim(-1, 2).flatten(1, 2)

    def _coordinates(self, p: Distribution) -> Tensor:
        """2√p of every class of every cell."""
        return embeddings.finite(of(p, distributions.Categorical).log_probs)


@final
@part("likelihoods.Ordinal")
class Ordinal(Likelihood):
    """x ∈ {0 … levels − 1}, ordered: P(x ≤ k) = sigmoid(c_k − η) with η from the network (McCullagh 1980).

    The cutpoints c are learned per feature: c_0 = s_0 + ρ_0 and c_k = c_{k−1} + ε + s_k e^{ρ_k}, so that they increase
    whatever ρ is. s comes from `adapt`: at ρ = 0 and η = 0 the levels have their frequencies in the training rows,
    half a row more being counted for each. ε = 1e-5 keeps neighbouring cutpoints apart in single precision.

    Args:
        network: z → location η.
        levels: number of levels, the same for every cell.
        event_shape: shape of one row.
    """

    discrete = True
    fisher_rao = True
    start: Tensor
    loc: Tensor
    unit: Tensor

    def __init__(self, network: nn.Module, levels: int, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.event_shape = network, tuple(event_shape)
        self.levels = checks.positive_int(levels, "the number of levels", minimum=2)
        self.support = Support(0, self.levels - 1, integer=True)
        self.rho = nn.Parameter(torch.zeros(*self.event_shape, self.levels - 1))
        self.register_buffer("start", torch.zeros(*self.event_shape, self.levels - 1))
        self.register_buffer("loc", torch.zeros(self.event_shape))
        self.register_buffer("unit", torch.ones(self.event_shape))
        self._learn(torch.arange(self.levels, dtype=torch.float64).view(-1, *(1 for _ in self.event_shape)))

    def _learn(self, x: Tensor) -> None:
        """The logits of the cumulated frequencies, as the first of them and their differences; mean and deviation."""
        count = (~x.isnan()).sum(0) + 0.5 * self.levels
        below = torch.stack([(x <= k).sum(0) + 0.5 * (k + 1) for k in range(self.levels - 1)], dim=-1)
        logits = torch.logit(below / count.unsqueeze(-1))
        self.start.copy_(torch.cat((logits[..., :1], logits.diff(dim=-1)), dim=-1))
        standardise(x.expand(-1, *self.loc.shape), self.loc, self.unit)

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Ordinal with location raw[0] and the learned cutpoints."""
        first, gaps = self.start[..., :1] + self.rho[..., :1], self.start[..., 1:] * self.rho[..., 1:].exp()
        cutpoints = torch.cat((first, _APART + gaps), dim=-1).cumsum(-1)
        return distributions.Ordinal(raw[0], cutpoints, event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """The code, standardised."""
        return (x - self.loc) / self.unit

    def _coordinates(self, p: Distribution) -> Tensor:
        """2√p of every level of every cell."""
        return embeddings.finite(of(p, distributions.Ordinal).log_probs)


_APART = 1e-5
