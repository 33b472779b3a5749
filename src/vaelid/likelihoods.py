"""Likelihoods p(x|z): decoders whose call returns a distribution value over x in the data's own units.

Preprocessing belongs here. A likelihood decides what an encoder sees (`Likelihood.features`) and how the network's
outputs become parameters in the units of x, so that log p(x) never needs a Jacobian added afterwards. What it has
to learn from data for that (means, scales) is set once, by `Likelihood.adapt` on training rows, and kept as buffers.
"""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from vaelid import checks, distributions
from vaelid.distributions import Distribution
from vaelid.errors import InputError
from vaelid.networks import call
from vaelid.parts import part
from vaelid.types import Support


class Likelihood(nn.Module, abc.ABC):
    """A decoder: latents to a distribution over x.

    Attributes:
        network: z (batch, latent) → (batch, heads · event[0], *event[1:]), the heads side by side; any module.
        heads: raw parameters that the network gives per cell.
        event_shape: shape of one row where the likelihood holds parameters per feature, else None.
        support: the values with mass or density.
        discrete: True where log p(x) is a log mass (counting measure), False where it is a log density (Lebesgue).
    """

    heads: int = 1
    event_shape: tuple[int, ...] | None = None
    discrete: ClassVar[bool]
    network: nn.Module
    support: Support

    @abc.abstractmethod
    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """p(x|z) from ``heads`` raw tensors, each (*lead, *event)."""

    @abc.abstractmethod
    def scaled(self, x: Tensor) -> Tensor:
        """x on a scale that suits a network, (batch, *feature_shape)."""

    @final
    def adapt(self, x: Any, mask: Any = None) -> Self:
        """Set the preprocessing from training rows (rows, *event), an array or a tensor; returns the likelihood itself.

        Cells where ``mask`` is False were not observed: they may hold anything and change nothing.

        Raises:
            InputError: rows that no model can take, values outside the support, or another event shape.
        """
        if self.event_shape is None:  # nothing is kept per feature
            return self
        values, seen = (checks.array(x), None) if mask is None else checks.observed(x, mask, self.support)
        checks.support(values, self.support, type(self).__name__)
        if values.shape[1:] != self.event_shape:
            raise InputError(
                f"the rows to adapt to have shape {values.shape[1:]}",
                f"{self.event_shape}, the event shape of the {type(self).__name__} likelihood",
            )
        cells = torch.from_numpy(values).to(torch.float64)
        self._learn(cells if seen is None else cells.masked_fill(torch.from_numpy(~seen), math.nan))
        return self

    def _learn(self, x: Tensor) -> None:
        """Set the buffers from checked training rows, float64 on the CPU, NaN where a cell was not observed; called
        where there is an ``event_shape``."""

    def feature_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one row of `features`, for the encoder's first layer."""
        return event_shape

    @final
    def features(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the encoder sees of x, (batch, *feature_shape); cells that were not observed are 0."""
        if mask is None:
            return self.scaled(x)
        scaled = self.scaled(torch.where(mask, x, torch.zeros_like(x)))
        wide = mask.repeat_interleave(scaled.shape[1] // mask.shape[1], dim=1)
        return torch.where(wide, scaled, torch.zeros_like(scaled))

    @final  # type: ignore[misc]  # nn.Module declares forward as an attribute
    def forward(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|z) for z (*lead, latent), with context (batch, c) where lead ends in batch.

        Raises:
            InputError: the network's output does not split into ``heads`` parts of the event's shape.
        """
        lead = z.shape[:-1]
        if context is not None:
            context = context.expand(*lead, context.shape[-1]).reshape(-1, context.shape[-1])
        out = call(self.network, z.reshape(-1, z.shape[-1]), context)
        if out.ndim < 2 or out.shape[1] % self.heads:
            raise InputError(
                f"the likelihood's network returned shape {tuple(out.shape)}",
                f"(batch, {self.heads} × first event dimension, …)",
                f"give the decoder {self.heads} outputs per cell (heads={self.heads})",
            )
        event = (out.shape[1] // self.heads, *out.shape[2:])
        if self.event_shape is not None and event != self.event_shape:
            raise InputError(
                f"the likelihood's network decodes to events of shape {event}",
                f"{self.event_shape}, the event shape of the {type(self).__name__} likelihood",
                f"give the decoder {self.heads} outputs per cell (heads={self.heads})",
            )
        raw = tuple(head.view(*lead, *event) for head in out.chunk(self.heads, dim=1))
        return self.distribution(raw, out.ndim - 1)


@final
@part("likelihoods.Bernoulli")
class Bernoulli(Likelihood):
    """x ∈ {0, 1}; the network gives logits η: log p = Σ x η − log(1 + e^η)."""

    discrete = True
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


@final
@part("likelihoods.ContinuousBernoulli")
class ContinuousBernoulli(Likelihood):
    """x ∈ [0, 1]; the network gives logits η: log p = Σ η x + log C(η) (Loaiza-Ganem & Cunningham 2019)."""

    discrete = False
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


@final
@part("likelihoods.Binomial")
class Binomial(Likelihood):
    """x ∈ {0 … trials}; the network gives logits η: log p = Σ log C(n, x) + x η − n log(1 + e^η).

    Args:
        network: z → logits.
        trials: n, the largest count a cell can hold.
    """

    discrete = True

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


@final
@part("likelihoods.Categorical")
class Categorical(Likelihood):
    """x ∈ {0 … classes − 1}; the network gives one logit per class: log p = Σ η_x − log Σ_k e^{η_k}.

    Args:
        network: z → logits, class after class along the first event dimension.
        classes: number of classes, the same for every cell.
    """

    discrete = True

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


@final
@part("likelihoods.DiscretizedLogistic")
class DiscretizedLogistic(Likelihood):
    """x on the grid low, low + step … high; the mass of each bin under a logistic whose location and log-scale the
    network gives per cell, the end bins taking the tails (Kingma et al. 2016; Salimans et al. 2017).

    Args:
        network: z → location and log-scale (two heads), in units of half the range around its centre.
        low: smallest value.
        high: largest value.
        step: distance between neighbouring values.
    """

    heads = 2
    discrete = True

    def __init__(self, network: nn.Module, low: float = 0.0, high: float = 255.0, step: float = 1.0) -> None:
        super().__init__()
        self.network, self.low, self.high, self.step = network, float(low), float(high), checks.positive(step, "step")
        bins = (self.high - self.low) / self.step
        if not (1 <= bins < math.inf and abs(bins - round(bins)) < 1e-6 * bins):
            raise InputError(f"levels from {low:g} to {high:g} by {step:g}", "a whole number of steps, at least one")
        self.support = Support(self.low, self.high, integer=self.step == 1 and self.low == int(self.low))
        self._centre, self._half = (self.low + self.high) / 2, (self.high - self.low) / 2

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Discretised logistic with location and scale in the data's own units."""
        loc, log_scale = self._centre + self._half * raw[0], raw[1] + math.log(self._half / 4)
        return distributions.DiscretizedLogistic(loc, log_scale, self.low, self.high, self.step, event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """x mapped onto [−1, 1]."""
        return (x - self._centre) / self._half


@final
@part("likelihoods.NegativeBinomial")
class NegativeBinomial(Likelihood):
    """x ∈ {0, 1, 2 …}; mean from the network, one concentration r learned per feature; variance μ + μ²/r.

    Args:
        network: z → log mean, relative to the training mean of each feature.
        event_shape: shape of one row.
    """

    discrete = True
    support = Support(0, integer=True)
    log_mean: Tensor
    loc: Tensor
    unit: Tensor

    def __init__(self, network: nn.Module, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.event_shape = network, tuple(event_shape)
        self.log_concentration = nn.Parameter(torch.zeros(self.event_shape))
        self.register_buffer("log_mean", torch.zeros(self.event_shape))
        self.register_buffer("loc", torch.zeros(self.event_shape))
        self.register_buffer("unit", torch.ones(self.event_shape))

    def _learn(self, x: Tensor) -> None:
        """Log mean of each feature; mean and deviation of log(1 + x)."""
        # half a count more than was seen: a feature that is 0 in every training row keeps a finite log mean
        self.log_mean.copy_(((x.nansum(0) + 0.5) / (~x.isnan()).sum(0).clamp(min=1)).log())
        _standardise(x.log1p(), self.loc, self.unit)

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Negative binomial with log mean raw[0] + the feature's own."""
        return distributions.NegativeBinomial(raw[0] + self.log_mean, self.log_concentration, event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """log(1 + x), standardised."""
        return (x.log1p() - self.loc) / self.unit


class Scale(nn.Module, abc.ABC):
    """How a Gaussian likelihood gets its σ. ``heads`` is 1 where the network predicts it, else 0."""

    heads: ClassVar[int] = 0

    @abc.abstractmethod
    def forward(self, raw: Tensor | None, unit: Tensor, floor: Tensor) -> Tensor:
        """σ in the data's own units, from the raw head (if any), each feature's unit and its floor."""


@final
@part("likelihoods.FixedScale")
class FixedScale(Scale):
    """σ = value, in the data's own units."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.value = checks.positive(value, "σ")

    def forward(self, raw: Tensor | None, unit: Tensor, floor: Tensor) -> Tensor:
        """The fixed value."""
        return torch.full_like(unit, self.value)


@final
@part("likelihoods.LearnedScale")
class LearnedScale(Scale):
    """σ = floor + unit · e^ρ with a learned ρ: one for all features with shape (), one each with the event's shape."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.rho = nn.Parameter(torch.zeros(self.shape))

    def forward(self, raw: Tensor | None, unit: Tensor, floor: Tensor) -> Tensor:
        """σ (*event); one σ in the data's own units where ρ is a single number."""
        if not self.shape:
            unit, floor = unit.mean(), floor.min()
        return floor + unit * self.rho.exp()


@final
@part("likelihoods.PredictedScale")
class PredictedScale(Scale):
    """σ(z) = floor + unit · e^ρ(z) with ρ a second head of the network."""

    heads = 1

    def __init__(self) -> None:
        super().__init__()

    def forward(self, raw: Tensor | None, unit: Tensor, floor: Tensor) -> Tensor:
        """σ (*lead, *event)."""
        if raw is None:
            raise InputError("a predicted σ without a second head", "a network with heads=2")
        return floor + unit * raw.exp()


@final
@part("likelihoods.Gaussian")
class Gaussian(Likelihood):
    """x ∈ ℝ, log p = −½ Σ ((x − m)² / σ² + log 2πσ²), m = loc + unit · network(z).

    loc and unit (mean and standard deviation of each feature) come from `adapt`, and so does the floor of σ: the
    standard deviation r/√12 of rounding to the recorded resolution r (repeated values would otherwise make the
    density unbounded), at least a thousandth of the unit.

    Args:
        network: z → standardised mean, and raw log σ where the scale is predicted.
        event_shape: shape of one row.
        scale: a `Scale`; learned per feature by default.
    """

    discrete = False
    support = Support()
    loc: Tensor
    unit: Tensor
    floor: Tensor

    def __init__(self, network: nn.Module, event_shape: tuple[int, ...], scale: Scale | None = None) -> None:
        super().__init__()
        self.network, self.event_shape = network, tuple(event_shape)
        self.scale = LearnedScale(self.event_shape) if scale is None else scale
        self.heads = 1 + self.scale.heads
        self.register_buffer("loc", torch.zeros(self.event_shape))
        self.register_buffer("unit", torch.ones(self.event_shape))
        self.register_buffer("floor", torch.full(self.event_shape, 1e-3))

    def _learn(self, x: Tensor) -> None:
        """Mean, standard deviation and floor of each feature."""
        _standardise(x, self.loc, self.unit)
        self.floor.copy_(torch.maximum(resolution(x) / math.sqrt(12), 1e-3 * self.unit.to(x)))

    def distribution(self, raw: tuple[Tensor, ...], event_dims: int) -> Distribution:
        """Normal in the data's own units."""
        sigma = self.scale(raw[1] if len(raw) > 1 else None, self.unit, self.floor)
        return distributions.Normal(self.loc + self.unit * raw[0], sigma, event_dims=event_dims)

    def scaled(self, x: Tensor) -> Tensor:
        """x standardised."""
        return (x - self.loc) / self.unit


def resolution(x: Tensor, rows: int = 4096) -> Tensor:
    """The step to which each feature was recorded: its smallest difference between distinct values, (*event).

    Looks at up to ``rows`` rows, evenly spread; a constant feature has resolution 0. NaN counts as not observed.
    """
    some = x[:: math.ceil(x.shape[0] / rows)].sort(dim=0).values
    gaps = some.diff(dim=0)
    if gaps.shape[0] == 0:
        return torch.zeros_like(x[0])
    smallest = torch.where(gaps > _rounding(some), gaps, math.inf).amin(0)
    return torch.where(smallest.isinf(), 0.0, smallest)


def _rounding(x: Tensor) -> Tensor:
    """The difference, (*event), up to which two values of a feature are one value, rounded to single precision."""
    return 8 * torch.finfo(torch.float32).eps * x.abs().nan_to_num(0.0).amax(0)


def _standardise(x: Tensor, loc: Tensor, unit: Tensor) -> None:
    """Write mean and standard deviation of each feature's observed cells into the buffers.

    A constant feature gets unit 1; one without an observed cell gets mean 0 and unit 1.
    """
    mean = x.nanmean(0).nan_to_num(0.0)
    loc.copy_(mean)
    high, low = x.nan_to_num(-math.inf).amax(0), x.nan_to_num(math.inf).amin(0)
    deviation = (x - mean).square().nanmean(0).sqrt()
    unit.copy_(torch.where(high - low > _rounding(x), deviation, 1.0))
