"""The base of all distribution values: independent cells, summed over the event in one place."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Self, final

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Distribution(abc.ABC):
    """A value: independent cells, each with a density or a mass; the last ``event_dims`` dimensions of x are the event.

    Parameters have shape (sample, batch, *event), or any shape that broadcasts with it; x has shape (batch, *event)
    or (sample, batch, *event), floating point. Log-probabilities are in nats, in the units of x. Parameters and x are
    used as given: what builds a distribution checks them. `cdf` holds for every x, log p on the support alone.

    Attributes:
        event_dims: how many trailing dimensions of x make one event; 0 leaves every cell an event of its own.
        discrete: whether log p is with respect to counting measure (True) or Lebesgue measure (False).
        inside: a value with mass or density whatever the parameters; it stands in cells that were not observed.
    """

    discrete: ClassVar[bool]
    inside: ClassVar[float] = 0.0
    event_dims: int = field(default=1, kw_only=True)

    @abc.abstractmethod
    def cell_log_prob(self, x: Tensor) -> Tensor:
        """log p of every cell, shape broadcast(x, parameters), nats."""

    @property
    @abc.abstractmethod
    def mean(self) -> Tensor:
        """E[x] of every cell, in the units of x."""

    @property
    @abc.abstractmethod
    def variance(self) -> Tensor:
        """E[(x − E[x])²] of every cell, in squared units of x."""

    @property
    def point(self) -> Tensor:
        """One value for every cell that stands for the distribution: the mean, or the mode where codes name classes."""
        return self.mean

    @abc.abstractmethod
    def cdf(self, x: Tensor) -> Tensor:
        """P(X ≤ x) of every cell, shape broadcast(x, parameters)."""

    @abc.abstractmethod
    def icdf(self, u: Tensor) -> Tensor:
        """The smallest x with P(X ≤ x) ≥ u, shape broadcast(u, parameters): a sample where u is uniform in (0, 1)."""

    @final
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(x) = Σ over the event of log p(cell), shape (sample, batch), nats.

        ``mask`` is True where a cell was observed, and broadcasts with x. Other cells add exactly 0 and have zero
        gradient, whatever x holds there, NaN included.
        """
        if mask is None:
            return self._sum(self.cell_log_prob(x))
        cells = self.cell_log_prob(torch.where(mask, x, self.inside))
        return self._sum(torch.where(mask, cells, 0))

    @final
    def detach(self) -> Self:
        """The same value with its parameters cut from the graph."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: value.detach() for name, value in tensors.items()})

    def _sum(self, cells: Tensor) -> Tensor:
        """Sum over the event; the only reduction over cells there is."""
        return cells.sum(dim=tuple(range(-self.event_dims, 0))) if self.event_dims else cells
