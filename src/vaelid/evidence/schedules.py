"""Where the inverse temperatures of an annealing run stand: 0 = β_0 < β_1 < … < β_T = 1, per row."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from vaelid.evidence.tuning import Tuning, interpolate


class Schedule(abc.ABC):
    """A rule that places T + 1 inverse temperatures."""

    @abc.abstractmethod
    def betas(self, distributions: int, tuning: Tuning) -> Tensor:
        """β, (T + 1, row), float64, from 0 to 1, T = ``distributions``."""


@final
@dataclass(frozen=True)
class Linear(Schedule):
    """β_t = t / T."""

    def betas(self, distributions: int, tuning: Tuning) -> Tensor:
        """The same for every row."""
        return _even(distributions).unsqueeze(-1).expand(-1, tuning.rows)


@final
@dataclass(frozen=True)
class Sigmoid(Schedule):
    """β_t = (s(r (2t/T − 1)) − s(−r)) / (s(r) − s(−r)), s the logistic function: crowded at both ends.

    Attributes:
        radius: r; Wu et al. (2017) use 4.
    """

    radius: float = 4.0

    def betas(self, distributions: int, tuning: Tuning) -> Tensor:
        """The same for every row."""
        s = torch.sigmoid(self.radius * (2 * _even(distributions) - 1))
        return ((s - s[0]) / (s[-1] - s[0])).unsqueeze(-1).expand(-1, tuning.rows)


@final
@dataclass(frozen=True)
class Placed(Schedule):
    """Equal steps in ∫ σ(β) dβ, where σ² is the variance of log w under π_β that the pilot measured, per row.

    The variance of an increment (β_t − β_(t−1)) log w is then the same at every t, which makes the variance of a
    perfectly mixing run smallest (thermodynamic length, Crooks 2007). The spread is taken to be at least a fifth of
    its mean, since few chains measured it.
    """

    def betas(self, distributions: int, tuning: Tuning) -> Tensor:
        """A row's own."""
        spread = tuning.spread.clamp(min=1e-12)
        spread = spread.maximum(0.2 * spread.mean(0))
        grid = tuning.grid.unsqueeze(-1)
        length = torch.cat(
            (torch.zeros_like(spread[:1]), (grid.diff(dim=0) * (spread[1:] + spread[:-1]) / 2).cumsum(0))
        )
        target = _even(distributions).unsqueeze(-1) * length[-1]
        betas = interpolate(target, length, grid.expand_as(length))
        betas[0], betas[-1] = 0.0, 1.0
        return betas


def _even(distributions: int) -> Tensor:
    return torch.linspace(0, 1, distributions + 1, dtype=torch.float64)
