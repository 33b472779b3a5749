"""Doubling until a tolerance is met or a budget is spent, by runs that are then discarded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from vaelid import checks
from vaelid.random import Key

DOUBLINGS = 7  # at most: from 20 distributions to 2560


@final
@dataclass(frozen=True)
class Budget:
    """What may be spent, whichever ends first.

    Attributes:
        seconds: wall time.
        decoder_rows: decoder rows, all rows of data together.
    """

    seconds: float | None = None
    decoder_rows: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None:
            checks.positive(self.seconds, "the budget's seconds")
        if self.decoder_rows is not None:
            checks.positive_int(self.decoder_rows, "the budget's decoder_rows")


@final
class Spending:
    """What was spent of a budget, whether more may be, and whether Ctrl-C ended the doubling."""

    def __init__(self, budget: Budget | None) -> None:
        self.budget, self.decoder_rows, self.interrupted = budget or Budget(), 0, False
        self._begun = time.perf_counter()
        self._mark = (self._begun, 0)

    @property
    def seconds(self) -> float:
        """Wall time since the beginning."""
        return time.perf_counter() - self._begun

    def start(self) -> None:
        """From here on the speed counts: what went before was of another kind."""
        self._mark = (time.perf_counter(), self.decoder_rows)

    def spend(self, decoder_rows: int) -> None:
        """Note decoder rows that were spent."""
        self.decoder_rows += decoder_rows

    def allows(self, decoder_rows: int) -> bool:
        """Whether so many more fit, at the speed since `start`."""
        rows, seconds = self.budget.decoder_rows, self.budget.seconds
        if rows is not None and self.decoder_rows + decoder_rows > rows:
            return False
        if seconds is None:
            return True
        begun, before = self._mark
        since = self.decoder_rows - before
        pace = (time.perf_counter() - begun) / since if since else 0.0
        return self.seconds + pace * decoder_rows <= seconds


def doubled(
    good: Tensor,
    distributions: int,
    cost: Callable[[int], int],
    met: Callable[[Tensor, int, Key], Tensor],
    spending: Spending,
    key: Key,
    report: Callable[[str, int, int], None],
    pieces: int,
) -> Tensor:
    """The number of distributions of every row, (row,), int64: doubled from ``distributions`` until ``met``.

    Stopping a run when its own result looks good biases what is reported, however unbiased the estimator: so what
    ``met`` computes is only ever used here, and the caller makes one fresh run with the numbers returned. A round is
    begun only if the budget holds it together with that fresh run. Ctrl-C ends the doubling.

    Args:
        good: the rows for which a first round, with ``distributions``, was good enough, (row,), bool.
        distributions: where doubling starts.
        cost: decoder rows per row of data for a number of distributions.
        met: which of some rows (positions, number of distributions, key of the noise) are good enough.
        spending: what the budget allows; the rounds are noted in it.
        key: names the noise of the rounds.
        report: told (stage, rows done, rows in all).
        pieces: rows per call of ``met``.
    """
    needed = torch.full((len(good),), distributions)
    left = (~good).nonzero()[:, 0]
    try:
        for number in range(1, DOUBLINGS + 1):
            each = distributions << number
            tried = needed.clone()
            tried[left] = each
            if not len(left) or not spending.allows(len(left) * cost(each) + sum(cost(n) for n in tried.tolist())):
                break
            found: list[Tensor] = []
            for index in torch.split(left, pieces):
                found.append(met(index, each, key.fold("deciding", number)))
                spending.spend(cost(each) * len(index))
                report(f"deciding, {each} distributions", sum(len(part) for part in found), len(left))
            needed, left = tried, left[~torch.cat(found)]
    except KeyboardInterrupt:
        spending.interrupted = True
    return needed


def alike(needed: Tensor, pieces: int) -> Iterator[tuple[int, Tensor]]:
    """The rows that need the same number of distributions, ``pieces`` of them at most at a time, with that number."""
    for each in sorted(set(needed.tolist())):
        for index in torch.split((needed == each).nonzero()[:, 0], pieces):
            yield each, index
