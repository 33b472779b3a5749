"""Fully connected networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from vaelid.errors import InputError
from vaelid.parts import part


def join(features: Tensor, context: Tensor | None, covariates: int) -> Tensor:
    """Flat features (batch, f) with the context (batch, covariates) beside them.

    Raises:
        InputError: the context is missing, or has another width.
    """
    found = 0 if context is None else context.shape[-1]
    if found != covariates:
        given = f"a context of {found} covariates" if found else "no context"
        expected = f"context of shape (rows, {covariates})" if covariates else "none"
        remedy = "pass context=…, such as that of the data set" if covariates else "build the model for it: context=…"
        raise InputError(f"{given}, for a network built for {covariates} covariates", expected, remedy)
    return features if context is None else torch.cat((features, context.to(features.dtype)), dim=-1)


def as_shape(value: int | Sequence[int]) -> tuple[int, ...]:
    """A size or a shape as a shape."""
    return tuple(int(size) for size in value) if isinstance(value, Sequence) else (int(value),)


@final
@part("networks.MLP")
class MLP(nn.Module):
    """Multilayer perceptron with GELU, (batch, *inputs) → (batch, heads · outputs[0], *outputs[1:]).

    Args:
        inputs: event size or shape on the way in; flattened.
        outputs: event size or shape on the way out.
        hidden: widths of the hidden layers; () gives a linear map.
        heads: values per output cell: 1 for a Bernoulli decoder, 2 for an encoder's mean and log-scale.
        context: number of observed covariates appended to the input.
    """

    def __init__(
        self,
        inputs: int | tuple[int, ...],
        outputs: int | tuple[int, ...],
        hidden: tuple[int, ...] = (500, 500),
        heads: int = 1,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.hidden = as_shape(inputs), as_shape(outputs), tuple(hidden)
        self.heads, self.context = heads, context
        widths = [math.prod(self.inputs) + context, *self.hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], heads * math.prod(self.outputs)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(batch, *inputs) and (batch, context) → (batch, heads · outputs[0], *outputs[1:])."""
        flat: Tensor = self.layers(join(x.flatten(1), context, self.context))
        return flat.view(flat.shape[0], self.heads * self.outputs[0], *self.outputs[1:])
