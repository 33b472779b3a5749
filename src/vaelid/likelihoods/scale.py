"""How a likelihood with a location gets its scale: fixed, learned, or predicted from the latents."""

from __future__ import annotations

import abc
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from vaelid import checks
from vaelid.errors import InputError
from vaelid.parts import part


class Scale(nn.Module, abc.ABC):
    """How a likelihood with a location gets its scale σ. ``heads`` is 1 where the network predicts it, else 0."""

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
