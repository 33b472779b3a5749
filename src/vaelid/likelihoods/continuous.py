"""Likelihoods of numbers on a line: continuous Bernoulli, Gaussian, Laplace, Student's t, log-normal."""

from __future__ import annotations

import abc
import math
from typing import Any, final

import torch
from torch import Tensor, nn

from vaelid import checks, distributions
from vaelid.distributions import Distribution
from vaelid.likelihoods import embeddings
from vaelid.likelihoods.base import Likelihood, of
from vaelid.likelihoods.scale import LearnedScale, Scale
from vaelid.likelihoods.units import resolution, standardise, standardise_robustly
from vaelid.parts import part
from vaelid.types import Support


@final
@part("likelihoods.ContinuousBernoulli")
class ContinuousBernoulli(Likelihood):
    """x ∈ [0, 1]; the network gives logits η: log p = Σ η x + log C(η) (Loaiza-Ganem & Cunningham 2019)."""

    discrete = False
    fisher_rao = True
    support = Support(0, 1)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Continuous Bernoulli with logits raw[0]."""
        return distributions.ContinuousBernoulli(raw[0], event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """x itself."""
        return x

    def _coordinates(self, p: Distribution) -> Tensor:
        """The arc length from η = 0, of every cell, by quadrature."""
        return embeddings.continuous_bernoulli(of(p, distributions.ContinuousBernoulli).logits)


class LocationScale(Likelihood, abc.ABC):
    """x = m + σ · standard noise, m = loc + unit · network(z), on a line that is the data's own or their logarithms'.

    loc and unit (centre and spread of each feature) come from `adapt`, and so does the floor of σ: the standard
    deviation r/√12 of rounding to the recorded resolution r (repeated values would otherwise make the density
    unbounded), at least a thousandth of the unit. Where σ does not depend on z, m/σ is a Fisher–Rao embedding, up to
    a factor; where the network predicts σ, there is no flat one, but `planes`.
    """

    discrete = False
    loc: Tensor
    unit: Tensor
    floor: Tensor

    def __init__(self, network: nn.Module, event_shape: tuple[int, ...], scale: Scale | None = None) -> None:
        super().__init__()
        self.network, self.event_shape = network, tuple(event_shape)
        self.scale = LearnedScale(self.event_shape) if scale is None else scale
        self.heads = 1 + self.scale.heads
        self.fisher_rao = not self.scale.heads
        self.register_buffer("loc", torch.zeros(self.event_shape))
        self.register_buffer("unit", torch.ones(self.event_shape))
        self.register_buffer("floor", torch.full(self.event_shape, 1e-3))

    def _located(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """m, (*lead, *event), and σ, which broadcasts with it."""
        sigma: Tensor = self.scale(raw[1] if len(raw) > 1 else None, self.unit, self.floor)
        return self.loc + self.unit * raw[0], sigma

    def planes(self, p: Distribution) -> tuple[Tensor, Tensor, Tensor] | None:
        """(√α m, log σ, β) of every cell where the network predicts σ, else None."""
        if self.fisher_rao:
            return None
        value: Any = p
        alpha, beta = (torch.as_tensor(number).to(value.loc) for number in self._information(p))
        shape = value.loc.shape[-p.event_dims :]
        located, spread = alpha.sqrt() * value.loc, value.scale.expand_as(value.loc).log()
        return located.flatten(-p.event_dims), spread.flatten(-p.event_dims), beta.expand(shape).flatten()

    def _information(self, p: Distribution) -> tuple[Tensor | float, Tensor | float]:
        """α and β of the Fisher information (α dm² + β dσ²) / σ² of one cell; those of the normal here."""
        return 1.0, 2.0

    def _keep_floor(self, rounding: Tensor) -> None:
        """Set the floor from the standard deviation of rounding."""
        self.floor.copy_(torch.maximum(rounding, 1e-3 * self.unit.to(rounding)))


@final
@part("likelihoods.Gaussian")
class Gaussian(LocationScale):
    """x ∈ ℝ, log p = −½ Σ ((x − m)² / σ² + log 2πσ²), m = loc + unit · network(z).

    loc and unit are mean and standard deviation of each feature; see `LocationScale` for the floor of σ.

    Args:
        network: z → standardised mean, and raw log σ where the scale is predicted.
        event_shape: shape of one row.
        scale: a `Scale`; learned per feature by default.
    """

    support = Support()

    def _learn(self, x: Tensor) -> None:
        """Mean, standard deviation and floor of each feature."""
        standardise(x, self.loc, self.unit)
        self._keep_floor(resolution(x) / math.sqrt(12))

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Normal in the data's own units."""
        return distributions.Normal(*self._located(raw), event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """x standardised."""
        return (x - self.loc) / self.unit

    def _coordinates(self, p: Distribution) -> Tensor:
        """m / σ of every cell; m where σ is predicted."""
        value = of(p, distributions.Normal)
        return value.loc / value.scale if self.fisher_rao else value.mean


@final
@part("likelihoods.Laplace")
class Laplace(LocationScale):
    """x ∈ ℝ, log p = −Σ (|x − m| / σ + log 2σ), m = loc + unit · network(z); the standard deviation is √2 σ.

    loc and unit are the median of each feature and a spread from its quartiles, which far values hardly move; see
    `LocationScale` for the floor of σ.

    Args:
        network: z → standardised median, and raw log σ where the scale is predicted.
        event_shape: shape of one row.
        scale: a `Scale`; learned per feature by default.
    """

    support = Support()

    def _learn(self, x: Tensor) -> None:
        """Median, spread and floor of each feature."""
        standardise_robustly(x, self.loc, self.unit)
        self._keep_floor(resolution(x) / math.sqrt(12))

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Laplace in the data's own units."""
        return distributions.Laplace(*self._located(raw), event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """x less the median, in units of the spread."""
        return (x - self.loc) / self.unit

    def _coordinates(self, p: Distribution) -> Tensor:
        """m / σ of every cell; m where σ is predicted."""
        value = of(p, distributions.Laplace)
        return value.loc / value.scale if self.fisher_rao else value.mean

    def _information(self, p: Distribution) -> tuple[Tensor | float, Tensor | float]:
        return 1.0, 1.0


@final
@part("likelihoods.StudentT")
class StudentT(LocationScale):
    """x ∈ ℝ, Student's t with location m = loc + unit · network(z), scale σ and ν degrees of freedom, for outliers.

    ν is given, or learned per feature as 1 + e^τ, starting at 5: above 1 there is a mean. loc and unit are the median
    of each feature and a spread from its quartiles, which far values hardly move; see `LocationScale` for the floor
    of σ.

    Args:
        network: z → standardised location, and raw log σ where the scale is predicted.
        event_shape: shape of one row.
        scale: a `Scale`; learned per feature by default.
        degrees: ν, the same for all features; learned by default.
    """

    support = Support()

    def __init__(
        self,
        network: nn.Module,
        event_shape: tuple[int, ...],
        scale: Scale | None = None,
        degrees: float | None = None,
    ) -> None:
        super().__init__(network, event_shape, scale)
        self.degrees = None if degrees is None else checks.positive(degrees, "the degrees of freedom")
        if degrees is None:
            self.tau = nn.Parameter(torch.full_like(self.unit, math.log(4.0)))

    def _learn(self, x: Tensor) -> None:
        """Median, spread and floor of each feature."""
        standardise_robustly(x, self.loc, self.unit)
        self._keep_floor(resolution(x) / math.sqrt(12))

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Student's t in the data's own units."""
        degrees = 1 + self.tau.exp() if self.degrees is None else torch.full_like(self.unit, self.degrees)
        return distributions.StudentT(*self._located(raw), degrees, event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """asinh of x less the median, in units of the spread: outliers are brought in."""
        return torch.asinh((x - self.loc) / self.unit)

    def _coordinates(self, p: Distribution) -> Tensor:
        """m / σ · √((ν + 1) / (ν + 3)) of every cell; m where σ is predicted."""
        value = of(p, distributions.StudentT)
        if not self.fisher_rao:
            return value.loc
        alpha, _ = self._information(p)
        return torch.as_tensor(alpha).sqrt() * value.loc / value.scale

    def _information(self, p: Distribution) -> tuple[Tensor | float, Tensor | float]:
        degrees = of(p, distributions.StudentT).degrees
        return (degrees + 1) / (degrees + 3), 2 * degrees / (degrees + 3)


@final
@part("likelihoods.LogNormal")
class LogNormal(LocationScale):
    """x > 0, log x normal: log p = −½ Σ ((log x − m)² / σ² + log 2πσ² + 2 log x), m = loc + unit · network(z).

    loc and unit are mean and standard deviation of the logarithm of each feature. log p is a density of x, not of
    log x. The floor of σ is that of `LocationScale`, the rounding being that of log x at e^loc.

    Args:
        network: z → standardised mean of log x, and raw log σ where the scale is predicted.
        event_shape: shape of one row.
        scale: a `Scale`; learned per feature by default. σ has no unit: a fixed one is that of log x.
    """

    support = Support(0, strict=True)

    def _learn(self, x: Tensor) -> None:
        """Mean and standard deviation of log x, and floor, of each feature."""
        standardise(x.log(), self.loc, self.unit)
        self._keep_floor(resolution(x) / (math.sqrt(12) * self.loc.to(x).exp()))

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Log-normal in the data's own units."""
        return distributions.LogNormal(*self._located(raw), event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """log x, standardised."""
        return (x.log() - self.loc) / self.unit

    def _coordinates(self, p: Distribution) -> Tensor:
        """m / σ of every cell; E[x] where σ is predicted."""
        value = of(p, distributions.LogNormal)
        return value.loc / value.scale if self.fisher_rao else value.mean
