"""What travels between the rooms: `Batch`, `Group`, `Trace`, `Support`; shapes read (sample, batch, *event)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of data on their way to a model.

    Attributes:
        x: observations, (batch, *event), in the data's own units.
        mask: True where a cell was observed, (batch, *event); None when all were.
        context: observed covariates, (batch, c); None when there are none.
        row_id: the rows' numbers in their source, (batch,), int64; they name the noise of a row.
        weight: weight of each row in sums over rows, (batch,); None for equal weights.
    """

    x: Tensor
    mask: Tensor | None = None
    context: Tensor | None = None
    row_id: Tensor | None = None
    weight: Tensor | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.x.shape[0]

    def ids(self) -> Tensor:
        """The rows' numbers; 0 … batch − 1 where none were given."""
        if self.row_id is not None:
            return self.row_id
        return torch.arange(self.rows, device=self.x.device)

    def take(self, index: Tensor | slice) -> Batch:
        """The rows at ``index``, with their own numbers kept."""

        def pick(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[index]

        return replace(
            self,
            x=self.x[index],
            mask=pick(self.mask),
            context=pick(self.context),
            row_id=self.ids()[index],
            weight=pick(self.weight),
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on ``device``."""

        def move(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        return Batch(self.x.to(device), move(self.mask), move(self.context), move(self.row_id), move(self.weight))


@runtime_checkable
class Transport(Protocol):
    """A distribution over z that is reached from noise u ~ N(0, I): what a posterior (or a prior) returns."""

    @property
    def size(self) -> int:
        """d, the number of latents, which is also the number of noise dimensions."""

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z = T(u) and log q(z), shapes (sample, batch, d) and (sample, batch)."""

    def pull(self, z: Tensor) -> Tensor:
        """u = T⁻¹(z), shape (sample, batch, d); raises `vaelid.errors.InputTypeError` where there is no inverse."""

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(z) at any z, shape (sample, batch); raises like `pull` where the density needs the inverse."""

    def detach(self) -> Transport:
        """The same distribution with its parameters cut from the graph; z still carries gradients through it."""


@dataclass(frozen=True, eq=False)
class Group:
    """One group of latents inside a trace.

    Attributes:
        z: latents, (sample, batch, d).
        prior: the prior's distribution value.
        posterior: the posterior's distribution value.
        log_prior: log p(z), (sample, batch).
        log_posterior: log q(z|x), (sample, batch).
    """

    z: Tensor
    prior: Any
    posterior: Any
    log_prior: Tensor
    log_posterior: Tensor


@dataclass(frozen=True, eq=False)
class Trace:
    """Everything one pass through the model saw; the one seam between models and the questions asked of them.

    Attributes:
        groups: the latents, one group for a VAE, several for a ladder.
        likelihood: the distribution value p(x|z).
        log_likelihood: log p(x|z) over observed cells, (sample, batch).
        auxiliary: further losses per row (commitment, adversarial), (sample, batch) each.
    """

    groups: tuple[Group, ...]
    likelihood: Any
    log_likelihood: Tensor
    auxiliary: dict[str, Tensor] = field(default_factory=dict)

    @property
    def log_joint(self) -> Tensor:
        """log p(x, z), (sample, batch), nats."""
        return self.log_likelihood + sum(group.log_prior for group in self.groups)

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) − log q(z|x), (sample, batch), nats."""
        return self.log_likelihood + sum(group.log_prior - group.log_posterior for group in self.groups)


@dataclass(frozen=True)
class Support:
    """The values that a likelihood gives mass or density to: ``low ≤ x ≤ high``, or some of them.

    Attributes:
        low: smallest value.
        high: largest value.
        integer: only whole numbers.
        strict: only numbers above ``low``.
        step: only ``low``, ``low + step``, ``low + 2 step`` …; all where it is 0.
    """

    low: float = -float("inf")
    high: float = float("inf")
    integer: bool = False
    strict: bool = False
    step: float = 0.0

    @classmethod
    def grid(cls, low: float, high: float, step: float) -> Support:
        """The levels ``low``, ``low + step`` … ``high``."""
        whole = step == 1 and low == int(low)
        return cls(low, high, integer=whole, step=0.0 if whole else step)

    @property
    def inside(self) -> float:
        """One of the values: 0, or the end of the support that is nearest to it."""
        if self.step:
            return self.low
        nearest = min(max(self.low, 0.0), self.high)
        return self.low + 1 if self.strict and nearest == self.low else nearest

    def __str__(self) -> str:
        kind = "whole numbers" if self.integer else "numbers"
        if self.low == -float("inf") and self.high == float("inf"):
            return kind
        if self.high == float("inf"):
            return f"{kind} {'>' if self.strict else '≥'} {self.low:g}"
        steps = f" in steps of {self.step:g}" if self.step else ""
        return f"{kind} from {self.low:g} to {self.high:g}{steps}"
