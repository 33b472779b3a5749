"""What events.jsonl says about how training went."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

TERMS = ("bound", "reconstruction", "rate")


@final
@dataclass(frozen=True, eq=False)
class Curves:
    """One value per epoch, nats per row.

    Attributes:
        epoch: numbers of the epochs, (epochs,).
        train: bound, reconstruction and rate on training rows, (epochs,) each.
        validation: the same on validation rows.
        learning_rate: at the end of each epoch, (epochs,).
        best: position of the best epoch; −1 where there is none.
        finished: whether training ended by itself.
        seconds: time spent training, all resumes together; NaN where no times were recorded.
        validation_rows: rows behind ``validation``.
        rollbacks: what went wrong on the way, the events' own keys.
    """

    epoch: np.ndarray
    train: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]
    learning_rate: np.ndarray
    best: int
    finished: bool
    seconds: float
    validation_rows: int
    rollbacks: list[dict[str, Any]]

    @classmethod
    def of(cls, events: Iterable[dict[str, Any]]) -> Self:
        """The curves of recorded events; an epoch said twice counts as it was said last."""
        events = list(events)
        by_epoch = {event["epoch"]: event for event in events if event["event"] == "EpochDone"}
        epochs = [by_epoch[number] for number in sorted(by_epoch)]
        started = [event for event in events if event["event"] == "Started"]
        best = [position for position, event in enumerate(epochs) if event["best"]]

        def column(part: str, term: str) -> np.ndarray:
            return np.array([event[part].get(term, math.nan) for event in epochs], dtype=float)

        return cls(
            epoch=np.array([event["epoch"] for event in epochs], dtype=int),
            train={term: column("train", term) for term in TERMS},
            validation={term: column("validation", term) for term in TERMS},
            learning_rate=np.array([event["learning_rate"] for event in epochs], dtype=float),
            best=best[-1] if best else -1,
            finished=any(event["event"] == "Finished" for event in events),
            seconds=_seconds(events),
            validation_rows=started[-1]["validation_rows"] if started else 0,
            rollbacks=[event for event in events if event["event"] == "RolledBack"],
        )

    @property
    def epochs(self) -> int:
        """Number of the last epoch; 0 where there is none."""
        return int(self.epoch[-1]) if len(self.epoch) else 0

    @property
    def best_epoch(self) -> int:
        """Number of the best epoch; 0 where there is none."""
        return int(self.epoch[self.best]) if self.best >= 0 else 0

    def at_best(self, part: dict[str, np.ndarray]) -> float:
        """The bound of ``train`` or ``validation`` at the best epoch; NaN where there is none."""
        return float(part["bound"][self.best]) if self.best >= 0 else math.nan

    def gain(self) -> tuple[float, int]:
        """How much the best validation bound rose over the last tenth of the epochs, and how many those are."""
        bound, last = self.validation["bound"], max(1, len(self.epoch) // 10)
        if len(bound) <= last or not np.isfinite(bound[:-last]).any():
            return math.nan, last
        return float(np.nanmax(bound) - np.nanmax(bound[:-last])), last

    def drops(self) -> np.ndarray:
        """Epochs at whose end the learning rate was lower than before."""
        return self.epoch[1:][np.diff(self.learning_rate) < 0]


def _seconds(events: list[dict[str, Any]]) -> float:
    total, first, last = 0.0, math.nan, math.nan
    for event in events:
        moment = event.get("time", math.nan)
        if event["event"] == "Started":
            total += 0.0 if math.isnan(last - first) else last - first
            first = moment
        last = moment
    return total + (last - first)
