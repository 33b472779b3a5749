"""Convolutional networks for images (batch, channels, height, width), any size, each level halving it.

Weights lie in memory channels last, the order in which convolutions run fastest.
"""

from __future__ import annotations

import itertools
from typing import final

import torch
from torch import Tensor, nn

from vaelid import checks
from vaelid.errors import InputError
from vaelid.networks.dense import join
from vaelid.networks.residual import Block
from vaelid.parts import part


def _sizes(event_shape: tuple[int, ...], levels: int) -> list[tuple[int, int]]:
    """Heights and widths from the image down to the coarsest level."""
    if len(event_shape) != 3:
        raise InputError(
            f"a convolutional network over events of shape {tuple(event_shape)}",
            "images of shape (channels, height, width)",
            "use networks.MLP, or add a channel dimension: x[:, None]",
        )
    sizes = [(int(event_shape[1]), int(event_shape[2]))]
    for _ in range(levels):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def _blocks(channels: int, depth: int) -> nn.Sequential:
    """``depth`` residual blocks of 3×3 convolutions; none is the identity."""
    pairs = ([nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)] for _ in range(depth))
    return nn.Sequential(*(Block(first, second, depth) for first, second in pairs))


@final
@part("networks.ConvEncoder")
class ConvEncoder(nn.Module):
    """Strided 3×3 convolutions with GELU, then one dense layer: (batch, *event_shape) → (batch, heads · latent).

    Args:
        event_shape: (channels, height, width).
        latent: size of the latent space.
        heads: values per latent; 2 for mean and log-scale.
        channels: channels of each level.
        hidden: width of the dense layer.
        context: number of observed covariates appended before the dense layer.
        depth: residual blocks per level, before its GELU.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: int,
        heads: int = 2,
        channels: tuple[int, ...] = (32, 64),
        hidden: int = 256,
        context: int = 0,
        depth: int = 0,
    ) -> None:
        super().__init__()
        self.event_shape, self.latent, self.heads = tuple(event_shape), latent, heads
        self.channels, self.hidden, self.context = tuple(channels), hidden, context
        self.depth = checks.positive_int(depth, "the depth", minimum=0)
        height, width = _sizes(self.event_shape, len(self.channels))[-1]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((self.event_shape[0], *self.channels)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), *_blocks(after, depth), nn.GELU()]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.Linear(self.channels[-1] * height * width + context, hidden),
            nn.GELU(),
            nn.Linear(hidden, heads * latent),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(batch, channels, height, width) and (batch, context) → (batch, heads · latent)."""
        out: Tensor = self.dense(join(self.convolutions(x).flatten(1), context, self.context))
        return out


@final
@part("networks.ConvDecoder")
class ConvDecoder(nn.Module):
    """A dense layer, then 4×4 transposed convolutions with GELU: (batch, latent) → (batch, heads · channels, h, w).

    Args:
        latent: size of the latent space.
        event_shape: (channels, height, width).
        heads: values per pixel and channel: 1 for a Bernoulli, 2 where a scale is predicted too.
        channels: channels of each level, finest first, as in `ConvEncoder`.
        hidden: width of the dense layer.
        context: number of observed covariates appended to z.
        depth: residual blocks per level, before its GELU.
    """

    def __init__(
        self,
        latent: int,
        event_shape: tuple[int, ...],
        heads: int = 1,
        channels: tuple[int, ...] = (32, 64),
        hidden: int = 256,
        context: int = 0,
        depth: int = 0,
    ) -> None:
        super().__init__()
        self.latent, self.event_shape, self.heads = latent, tuple(event_shape), heads
        self.channels, self.hidden, self.context = tuple(channels), hidden, context
        self.depth = checks.positive_int(depth, "the depth", minimum=0)
        self._sizes = _sizes(self.event_shape, len(self.channels))[::-1]
        height, width = self._sizes[0]
        self.dense = nn.Sequential(
            nn.Linear(latent + context, hidden),
            nn.GELU(),
            nn.Linear(hidden, self.channels[-1] * height * width),
        )
        self.blocks = nn.ModuleList(_blocks(before, depth) for before in self.channels[::-1])
        outward = (*self.channels[::-1], heads * self.event_shape[0])
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1) for before, after in itertools.pairwise(outward)
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """(batch, latent) and (batch, context) → (batch, heads · channels, height, width)."""
        h: Tensor = self.dense(join(z, context, self.context)).view(z.shape[0], self.channels[-1], *self._sizes[0])
        for convolution, blocks, (height, width) in zip(self.convolutions, self.blocks, self._sizes[1:], strict=True):
            h = convolution(nn.functional.gelu(blocks(h)))[..., :height, :width]
        return h.contiguous()
