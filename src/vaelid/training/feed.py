"""Where the rows of a training step come from: a tensor on the device, or a ``DataLoader``.

A feed gives epochs, an epoch gives batches by their position in it. Both are functions of the run's key and the
epoch's number (a loader's as far as it is one of PyTorch's global seed), so that a stretch can be replayed and a run
resumed.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vaelid.data.batches import Form, following, opened
from vaelid.data.rows import Rows
from vaelid.errors import InputError
from vaelid.random import Key
from vaelid.types import Batch


class Unreadable(InputError):
    """A loader failed, or handed over something that the model cannot be trained on."""


class Epoch(abc.ABC):
    """One pass over the training rows; batches are counted from 0."""

    @abc.abstractmethod
    def over(self, position: int) -> bool:
        """Whether there is no batch at ``position``.

        Raises:
            Unreadable: that cannot be said.
        """

    @abc.abstractmethod
    def batch(self, position: int, key: Key, dtype: torch.dtype) -> Batch:
        """The batch at ``position``, on the device, in ``dtype``, binarised afresh with noise from ``key``."""

    @abc.abstractmethod
    def full(self, position: int) -> bool:
        """Whether the batch at ``position`` has as many rows as most."""

    @abc.abstractmethod
    def forget(self, position: int) -> None:
        """Batches before ``position`` will not be asked for again."""

    @abc.abstractmethod
    def mass(self) -> float:
        """Number of rows, or sum of their weights, in the whole epoch; to be asked when it is over."""

    @abc.abstractmethod
    def where(self, position: int) -> str:
        """Words that say which batch that is, where row numbers alone do not."""


class Feed(abc.ABC):
    """Training rows, epoch by epoch.

    Attributes:
        rows: training rows; None where nobody knows.
        steps: batches in an epoch, which plans go by; None where nobody knows.
    """

    rows: int | None
    steps: int | None

    @abc.abstractmethod
    def epoch(self, number: int, start: int, key: Key) -> Epoch:
        """The epoch after ``number`` others, to be read from the batch at ``start`` on."""

    @abc.abstractmethod
    def close(self) -> None:
        """Nothing more will be read: a loader's workers end, whoever still holds this."""


def mass(batch: Batch) -> float:
    """Number of rows, or sum of their weights."""
    return float(batch.rows if batch.weight is None else batch.weight.double().sum())


# -- in memory -----------------------------------------------------------------------------------------------------


@final
class InMemory(Feed):
    """Rows on the device, in a random order at every epoch.

    Args:
        rows: all training rows.
        batch_size: rows per step; the last batch of an epoch may be shorter.
    """

    def __init__(self, rows: Rows, batch_size: int) -> None:
        self.source, self.batch_size = rows, batch_size
        self.rows, self.steps = len(rows), math.ceil(len(rows) / batch_size)
        self.mass = mass(rows.batch)

    def epoch(self, number: int, start: int, key: Key) -> Epoch:
        """The rows in an order of this epoch's own."""
        order = key.fold("order", number).permutation(len(self.source))
        return _InMemoryEpoch(self, order.to(self.source.batch.x.device))

    def close(self) -> None:
        """There is nothing to end."""


@final
class _InMemoryEpoch(Epoch):
    def __init__(self, feed: InMemory, order: Tensor) -> None:
        self.feed, self.order = feed, order

    def over(self, position: int) -> bool:
        return position * self.feed.batch_size >= len(self.order)

    def batch(self, position: int, key: Key, dtype: torch.dtype) -> Batch:
        size = self.feed.batch_size
        return self.feed.source.take(self.order[position * size : (position + 1) * size], key, dtype)

    def full(self, position: int) -> bool:
        return (position + 1) * self.feed.batch_size <= len(self.order)

    def forget(self, position: int) -> None:
        pass

    def mass(self) -> float:
        return self.feed.mass

    def where(self, position: int) -> str:
        return ""


# -- streamed ------------------------------------------------------------------------------------------------------


@final
class Streamed(Feed):
    """Batches of a ``DataLoader``, one after another.

    PyTorch's global generator on the CPU is seeded by (key, epoch, batch) whenever the loader is asked for a batch, so
    that the order of a random sampler, the seeds of workers and random transforms are functions of these.

    Args:
        loader: where batches come from.
        form: what they are held to.
        device: where they go to.

    Raises:
        InputError: the loader says that it has no batches.
    """

    rows = None

    def __init__(self, loader: DataLoader[Any], form: Form, device: torch.device) -> None:
        self.loader, self.form, self.device = loader, form, device
        try:
            self.steps = len(loader)
        except (TypeError, NotImplementedError):
            self.steps = None
        if self.steps == 0:
            raise InputError("a DataLoader without batches", "at least one", "drop_last drops one that is not full")
        self.latest: _StreamedEpoch | None = None

    def epoch(self, number: int, start: int, key: Key) -> Epoch:
        """The loader opened anew, or as it was opened for the same epoch if nothing of that is forgotten yet."""
        if self.latest is None or self.latest.asked != (number, start, key):
            self.latest = _StreamedEpoch(self, number, start, key)
        return self.latest

    def close(self) -> None:
        """End the loader's workers."""
        if self.latest is not None:
            self.latest.close()
            self.latest = None


@final
class _StreamedEpoch(Epoch):
    """Batches that may be asked for again are kept as they came; a row's number is its place in the epoch."""

    def __init__(self, feed: Streamed, number: int, start: int, key: Key) -> None:
        self.feed, self.number, self.start = feed, number, start
        self.asked: tuple[int, int, Key] | None = (number, start, key)
        self.key = key.fold("order", number)
        self.batches: Generator[Any, None, None] | None = opened(feed.loader)
        self.kept: dict[int, Rows] = {}
        self.read, self.rows, self.size, self.weight = 0, 0, 0, 0.0

    def over(self, position: int) -> bool:
        while self.batches is not None and self.read <= position:
            self._read(self.batches)
        return position >= self.read

    def batch(self, position: int, key: Key, dtype: torch.dtype) -> Batch:
        rows = self.kept[position]
        narrow = rows.batch.x.to(dtype) if rows.batch.x.dtype == torch.float64 else rows.batch.x
        moved = _moved(replace(rows.batch, x=narrow), self.feed.device)
        return Rows(moved, rows.grey).take(slice(None), key, dtype)

    def full(self, position: int) -> bool:
        return len(self.kept[position]) == self.size

    def forget(self, position: int) -> None:
        for number in [number for number in self.kept if number < position]:
            del self.kept[number]
            self.asked = None

    def mass(self) -> float:
        return self.weight

    def where(self, position: int) -> str:
        return f" in batch {position} of epoch {self.number + 1}"

    def close(self) -> None:
        """Read no further; what was kept stays."""
        if self.batches is not None:
            self.batches.close()
            self.asked = self.batches = None

    def _read(self, batches: Iterator[Any]) -> None:
        place = f"batch {self.read} of epoch {self.number + 1}"
        try:
            with self.key.fold("batch", self.read).seeding():
                item = following(batches)
            batch = None if item is None else self.feed.form.batch(item[0])
        except InputError as error:
            self.close()
            raise Unreadable(f"{place}: {error}") from error
        if batch is None:
            self.batches = None
            if self.read <= self.start:
                already = f", of which {self.start} were used before" if self.start else ""
                raise Unreadable(f"epoch {self.number + 1} of the DataLoader has {self.read} batches{already}", "more")
            return
        ids = torch.arange(self.rows, self.rows + batch.rows)
        if self.read >= self.start:
            self.kept[self.read] = Rows(replace(batch, row_id=ids), self.feed.form.grey)
        self.size = self.size or batch.rows
        self.read, self.rows, self.weight = self.read + 1, self.rows + batch.rows, self.weight + mass(batch)


def _moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device, without waiting for it where its memory is pinned."""

    def move(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(device, non_blocking=True)

    return Batch(move(batch.x), move(batch.mask), move(batch.context), move(batch.row_id), move(batch.weight))  # type: ignore[arg-type]
