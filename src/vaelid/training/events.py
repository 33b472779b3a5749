"""What the loop says while it runs. Everything that shows progress consumes these."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """Base of all events; ``step`` counts optimiser steps done so far."""

    step: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values under the event's name, one line of events.jsonl."""
        return {"event": type(self).__name__, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Started(Event):
    """Training starts, or goes on at ``step`` > 0; a `DataLoader` may not tell its steps, and never its rows."""

    epochs: int
    epoch: int
    steps_per_epoch: int | None
    train_rows: int | None
    validation_rows: int
    parameters: int


@dataclass(frozen=True)
class Progress(Event):
    """Some steps went well: the mean surrogate of those steps, nats per row."""

    epoch: int
    surrogate: float


@dataclass(frozen=True)
class EpochDone(Event):
    """An epoch is over. ``train`` and ``validation`` hold bound, reconstruction and rate, nats per row.

    The training means are taken while the weights move; the validation means at the epoch's last weights. The best
    weights, the schedule and early stopping go by ``validation["surrogate"]``, what the objective maximises: the bound
    itself unless there is a β or there are free bits.
    """

    epoch: int
    train: dict[str, float]
    validation: dict[str, float]
    learning_rate: float
    best: bool


@dataclass(frozen=True)
class RolledBack(Event):
    """A step went wrong; training goes on from ``step`` with the lower rate."""

    failed_step: int
    reason: str
    tensor: str
    rows: list[int]
    learning_rate: float


@dataclass(frozen=True)
class Compiled(Event):
    """The training step was compiled, or why it could not be, in which case it runs as it is."""

    seconds: float
    failure: str


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint is on disk."""

    path: str


@dataclass(frozen=True)
class Finished(Event):
    """Training is over and the model holds its best weights."""

    epoch: int
    best_epoch: int
    reason: str


Stream = Generator[Event, None, None]  # closing it stops the training behind it
