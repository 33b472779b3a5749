"""The base of all likelihoods: a decoder, the preprocessing that goes with it, and its geometry."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar, Self, TypeVar, final

import torch
from torch import Tensor, nn

from vaelid import checks
from vaelid.distributions import Distribution
from vaelid.errors import InputError, InputTypeError
from vaelid.networks.call import call
from vaelid.types import Support

Family = TypeVar("Family", bound=Distribution)


class Likelihood(nn.Module, abc.ABC):
    """A decoder: latents to a distribution over x.

    Attributes:
        network: z (batch, latent) → (batch, heads · event[0], *event[1:]), the heads side by side; any module.
        heads: raw parameters that the network gives per cell.
        event_shape: shape of one row where the likelihood holds parameters per feature, else None.
        support: the values with mass or density.
        discrete: True where log p(x) is a log mass (counting measure), False where it is a log density (Lebesgue).
        fisher_rao: whether distances between `embedding` are those of the Fisher–Rao metric along every path.
    """

    heads: int = 1
    event_shape: tuple[int, ...] | None = None
    fisher_rao: bool = False
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
        scaled = self.scaled(torch.where(mask, x, self.support.inside))
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
    def embedding(self, p: Distribution) -> Tensor:
        """Coordinates φ of a value that this likelihood gave, (*lead, k), for the geometry of latent space.

        Where `fisher_rao` is True, |dφ|² is the Fisher–Rao metric of p(x|z): the pullback JᵀJ of the map z → φ is
        E[∇_z log p (∇_z log p)ᵀ], the same whatever the units of x. Elsewhere φ is the plain *mean embedding*, E[x] in
        the data's own units, whose metric is no Fisher–Rao metric (for Student's t it is the location, which is the
        mean where there is one).

        Raises:
            InputTypeError: a value of another family.
        """
        return self._coordinates(p).flatten(-p.event_dims)

    def planes(self, p: Distribution) -> tuple[Tensor, Tensor, Tensor] | None:
        """Where location and scale of every cell move with z, a hyperbolic plane per cell, else None.

        (√α m, log σ, β), each (*lead, k) but β, which is (k,): the Fisher–Rao metric of a location-scale family is
        Σ (α dm² + β dσ²) / σ² with constants α and β of the family.
        """
        return None

    def _coordinates(self, p: Distribution) -> Tensor:
        """The coordinates before they are flattened, (*lead, *event), or more of them along the last dimension."""
        return p.mean


def of(p: Distribution, family: type[Family]) -> Family:
    """``p`` as the value of ``family`` that it is.

    Raises:
        InputTypeError: it is of another family.
    """
    if not isinstance(p, family):
        raise InputTypeError(
            f"the embedding of a {type(p).__name__}", f"a {family.__name__}, which this likelihood gives"
        )
    return p
