"""Special functions that several families need."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def stirling_error(n: Tensor) -> Tensor:
    """δ(n) = log n! − log(√(2πn) nⁿ e⁻ⁿ) for n > 0: by lgamma below 10, from there by Stirling's series."""
    small = n < 10
    few, many = torch.where(small, n, 1), torch.where(small, 10, n)
    exact = torch.lgamma(few + 1) - (few + 0.5) * few.log() + few - HALF_LOG_2PI
    square = many.square().reciprocal()
    series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188)))) / many
    return torch.where(small, exact, series)


def log1p_square(y: Tensor) -> Tensor:
    """log(1 + y²) without overflow: 2 log |y| + log(1 + y⁻²) where |y| > 1."""
    large = y.abs() > 1
    near, far = torch.where(large, 0, y), torch.where(large, y.abs(), 1)
    return torch.where(large, 2 * far.log() + torch.log1p(far.reciprocal().square()), torch.log1p(near.square()))


def ndtr(t: Tensor) -> Tensor:
    """Φ(t) = ½ erfc(−t / √2); unlike ½ (1 + erf(t / √2)) it keeps its digits far below 0, until it underflows."""
    probability: Tensor = 0.5 * torch.special.erfc(t * -math.sqrt(0.5))
    return probability


def pick(table: Tensor, index: Tensor) -> Tensor:
    """``table[..., index]`` for every cell: table (*cells, levels), index (*cells), broadcast."""
    shape = torch.broadcast_shapes(table.shape[:-1], index.shape)  # type: ignore[no-untyped-call]
    return table.expand(*shape, -1).gather(-1, index.expand(shape).unsqueeze(-1)).squeeze(-1)
