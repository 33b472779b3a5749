"""What a likelihood learns about its features from training rows: their centres, units and recorded resolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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


def standardise(x: Tensor, loc: Tensor, unit: Tensor) -> None:
    """Write mean and standard deviation of each feature's observed cells into the buffers.

    A constant feature gets unit 1; one without an observed cell gets mean 0 and unit 1.
    """
    mean = x.nanmean(0).nan_to_num(0.0)
    loc.copy_(mean)
    deviation = (x - mean).square().nanmean(0).sqrt()
    unit.copy_(torch.where(_varies(x), deviation, 1.0))


def standardise_robustly(x: Tensor, loc: Tensor, unit: Tensor) -> None:
    """Write the median of each feature's observed cells, and a spread that far values hardly move, into the buffers.

    The spread is that of a normal with the same quartiles, (q₃ − q₁) / 1.349, or the mean distance from the median
    where the quartiles are one value. A constant feature gets unit 1; one without an observed cell 0 and 1.
    """
    first, median, third = (_quantile(x, q) for q in (0.25, 0.5, 0.75))
    loc.copy_(median)
    spread = (third - first) / 1.349
    spread = torch.where(third - first > _rounding(x), spread, (x - median).abs().nanmean(0))
    unit.copy_(torch.where(_varies(x), spread, 1.0))


def _varies(x: Tensor) -> Tensor:
    """Whether a feature has two values, (*event)."""
    return x.nan_to_num(-math.inf).amax(0) - x.nan_to_num(math.inf).amin(0) > _rounding(x)


def _quantile(x: Tensor, q: float) -> Tensor:
    """The observed value of each feature nearest to its q-quantile, (*event); 0 where nothing was observed."""
    ordered = x.sort(dim=0).values  # NaN comes last
    position = ((~x.isnan()).sum(0) - 1).clamp(min=0) * q
    return ordered.gather(0, position.round().long().unsqueeze(0)).squeeze(0).nan_to_num(0.0)


def _rounding(x: Tensor) -> Tensor:
    """The difference, (*event), up to which two values of a feature are one value, rounded to single precision."""
    return 8 * torch.finfo(torch.float32).eps * x.abs().nan_to_num(0.0).amax(0)
