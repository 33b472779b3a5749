"""Residual networks: depth as one number."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from vaelid import checks
from vaelid.networks.dense import as_shape, join
from vaelid.parts import part


@final
class Block(nn.Module):
    """h + B(GELU(A(GELU(h)))), pre-activation (He et al. 2016, "Identity mappings in deep residual networks").

    Args:
        first: A, any linear layer that keeps the shape of h.
        second: B, another one; it starts scaled by 1/√depth, so that a deep chain starts near the identity.
        depth: number of blocks in the chain.
    """

    def __init__(self, first: nn.Module, second: nn.Module, depth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.GELU(), first, nn.GELU(), second)
        with torch.no_grad():
            for parameter in second.parameters():
                parameter.div_(math.sqrt(depth))

    def forward(self, h: Tensor) -> Tensor:
        """(batch, …) → the same shape."""
        out: Tensor = h + self.body(h)
        return out


@final
@part("networks.Residual")
class Residual(nn.Module):
    """Residual multilayer perceptron, (batch, *inputs) → (batch, heads · outputs[0], *outputs[1:]).

    A linear layer to the width, ``depth`` blocks of two layers each, GELU, and a linear layer to the outputs.

    Args:
        inputs: event size or shape on the way in; flattened.
        outputs: event size or shape on the way out.
        width: width of every hidden layer.
        depth: number of blocks, at least 1.
        heads: values per output cell: 1 for a Bernoulli decoder, 2 for an encoder's mean and log-scale.
        context: number of observed covariates appended to the input.
    """

    def __init__(
        self,
        inputs: int | tuple[int, ...],
        outputs: int | tuple[int, ...],
        width: int = 256,
        depth: int = 4,
        heads: int = 1,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.width = as_shape(inputs), as_shape(outputs), width
        self.depth, self.heads, self.context = checks.positive_int(depth, "the depth"), heads, context
        self.first = nn.Linear(math.prod(self.inputs) + context, width)
        self.blocks = nn.Sequential(
            *(Block(nn.Linear(width, width), nn.Linear(width, width), depth) for _ in range(depth))
        )
        self.last = nn.Sequential(nn.GELU(), nn.Linear(width, heads * math.prod(self.outputs)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(batch, *inputs) and (batch, context) → (batch, heads · outputs[0], *outputs[1:])."""
        flat: Tensor = self.last(self.blocks(self.first(join(x.flatten(1), context, self.context))))
        return flat.view(flat.shape[0], self.heads * self.outputs[0], *self.outputs[1:])
