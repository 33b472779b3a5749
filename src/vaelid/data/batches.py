"""Batches as a PyTorch ``DataLoader`` hands them over, checked; and rows held out, read once into memory."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vaelid import checks
from vaelid.data.dataset import Dataset, channels_first, from_array
from vaelid.data.items import DATA_KEYS
from vaelid.data.schema import grey_scale
from vaelid.data.sources import LOADER, load
from vaelid.data.split import Split
from vaelid.errors import InputError, first_line
from vaelid.likelihoods import Likelihood
from vaelid.types import Batch, Support

EXTRAS = ("mask", "context", "weight")
LARGEST = 2**30  # bytes of rows that are held out: they stay in memory

_END = object()


@final
@dataclass(frozen=True, eq=False)
class HeldOut:
    """Rows for validation, and for testing where there are any, that no loader trains on.

    Attributes:
        dataset: all of them.
        extras: their mask, context and weights, where the data set does not hold these itself.
        split: which are for what; its training part is empty.
    """

    dataset: Dataset
    extras: dict[str, np.ndarray]
    split: Split

    @classmethod
    def read(cls, validation: Any, test: Any, likelihood: Likelihood, binarise: bool) -> Self:
        """Rows from arrays, files, whatever else `vaelid.data.load` reads, a dict that is one batch, or a loader.

        Raises:
            InputError: a source cannot be read, holds more than `LARGEST` bytes or values that the likelihood cannot
                give, or the two differ in kind.
        """
        dataset, extras = _rows(validation, "validation", likelihood, binarise)
        count = len(dataset.x)
        if test is not None:
            dataset, extras = _joined((dataset, extras), _rows(test, "test", likelihood, binarise))
        index = np.arange(len(dataset.x))
        dataset = replace(dataset, name=LOADER, source=LOADER, row_id=index, test_rows=None)
        return cls(dataset, extras, Split(index[:0], index[:count], index[count:]))


@final
@dataclass(frozen=True)
class Form:
    """What batches are held to.

    Attributes:
        event: shape of a row.
        covariates: number of context columns, 0 for none.
        support: the values that x may have.
        likelihood: what has that support, by name.
        grey: where grey levels are binarised: the value of white.
    """

    event: tuple[int, ...]
    covariates: int
    support: Support
    likelihood: str
    grey: float | None

    @classmethod
    def of(cls, dataset: Dataset, extras: dict[str, np.ndarray], likelihood: Likelihood, binarise: bool) -> Self:
        """Batches like the rows of a data set."""
        context = extras.get("context") if dataset.context is None else dataset.context
        covariates = 0 if context is None else context.shape[1]
        grey = grey_scale(dataset) if binarise else None
        support = likelihood.support if grey is None else Support(0, grey)
        return cls(dataset.event_shape, covariates, support, type(likelihood).__name__, grey)

    def batch(self, item: Any) -> Batch:
        """The batch in what a loader hands over, on the CPU, in its own compact dtype.

        Raises:
            InputError: it holds no x, or x, mask, context or weight do not suit the model.
        """
        x, extras = _checked(fields(item), self.support)
        if x.shape[1:] != self.event:
            raise InputError(f"each row of x has shape {x.shape[1:]}", f"{self.event}, as validation rows have")
        if self.grey is not None and self.grey != 1 and x.dtype.kind == "f":
            given = f"x is {x.dtype} where grey levels go up to {self.grey:g}"
            raise InputError(given, "integers, as validation rows are", "give both in the same units")
        checks.support(x, self.support, self.likelihood)
        found = extras["context"].shape[1] if "context" in extras else 0
        if found != self.covariates:
            raise InputError(f"{found} columns of context", f"{self.covariates}, as validation rows have")
        return Batch(torch.from_numpy(x), **{name: torch.from_numpy(value) for name, value in extras.items()})


def opened(loader: Iterable[Any]) -> Generator[Any, None, None]:
    """Iterate over a loader: its workers are started when the first batch is asked for, and end with ``close()``."""
    try:
        yield from loader
    except Exception as error:
        if getattr(loader, "num_workers", 0):  # whoever keeps the error would keep them
            traceback.clear_frames(error.__traceback__)
        raise


def following(batches: Iterator[Any]) -> Any | None:
    """The next batch as the loader hands it over, in a tuple; None after the last.

    Raises:
        InputError: the loader failed; its error is the cause.
    """
    try:
        item = next(batches, _END)
    except Exception as error:
        worker = "Original Traceback" in str(error)
        reason = str(error).splitlines()[-1] if worker else f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"the DataLoader failed ({reason})", "a batch") from error
    return None if item is _END else (item,)


def fields(item: Any) -> dict[str, Any]:
    """x, and mask, context and weight where there are any, of a batch: x itself, (x, …), or a dict of them.

    Raises:
        InputError: there is no x.
    """
    if isinstance(item, Mapping):
        names = [name for name in DATA_KEYS if name in item]
        if not names:
            raise InputError(f"a dict with the keys {', '.join(map(str, item))}", "x, image or data among them")
        given = {name: item[name] for name in EXTRAS if item.get(name) is not None}
        return {name: _own(value) for name, value in ({"x": item[names[0]]} | given).items()}
    if isinstance(item, tuple | list):
        if not item:
            raise InputError("an empty tuple", "x, or (x, y)")
        item = item[0]
    return {"x": _own(item)}


def _own(value: Any) -> Any:
    """A tensor in memory that a loader's workers do not share: there is little of that."""
    shared = isinstance(value, Tensor) and value.is_shared()  # type: ignore[no-untyped-call]
    return value.clone() if shared else value


def _checked(found: dict[str, Any], support: Support) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """x and its extras as arrays; images channel-first, hidden cells filled."""
    extras: dict[str, np.ndarray] = {}
    if "mask" in found:
        x, seen = checks.observed(found["x"], found["mask"], support)
        extras["mask"] = np.ascontiguousarray(channels_first(seen)[0])
    else:
        x = checks.array(found["x"])
    x = channels_first(x)[0]
    if "context" in found:
        extras["context"] = checks.array(found["context"], "context").astype(np.float32, copy=False)
        if len(extras["context"]) != len(x):
            raise InputError(f"context has {len(extras['context'])} rows", f"{len(x)}, one for each row of x")
    if "weight" in found:
        extras["weight"] = checks.weights(found["weight"], len(x))
    return x, extras


def _rows(source: Any, name: str, likelihood: Likelihood, binarise: bool) -> tuple[Dataset, dict[str, np.ndarray]]:
    """Rows of a source with their extras; context that has names stays in the data set."""
    if isinstance(source, DataLoader | Mapping):
        given = source if isinstance(source, DataLoader) else (source,)
        with contextlib.closing(opened(given)) as batches:
            dataset, extras = _collected(batches, name, likelihood.support)
    else:
        dataset = load(source, name=None if isinstance(source, Dataset) else name)
        extras = {} if dataset.weight is None else {"weight": dataset.weight}
        dataset = replace(dataset, weight=None, weight_name=None)
    form = Form.of(dataset, extras, likelihood, binarise)
    checks.support(dataset.x, form.support, form.likelihood, name)
    return dataset, extras


def _collected(batches: Iterator[Any], name: str, support: Support) -> tuple[Dataset, dict[str, np.ndarray]]:
    """Every row of the batches."""
    parts: list[dict[str, np.ndarray]] = []
    size = 0
    while True:
        try:
            item = following(batches)
            if item is None:
                break
            x, extras = _checked(fields(item[0]), support)
        except InputError as error:
            raise InputError(f"batch {len(parts)} of {name}: {error}") from error
        part = {"x": x} | extras
        if parts and _described(part) != _described(parts[0]):
            expected = f"{_described(parts[0])}, as batch 0 has"
            raise InputError(f"batch {len(parts)} of {name} has {_described(part)}", expected)
        parts.append(part)
        size += sum(value.nbytes for value in part.values())
        if size > LARGEST:
            raise InputError(
                f"{name} has more than {LARGEST / 2**20:g} MiB of rows",
                "rows that stay in memory",
                "give fewer: ten thousand rows are plenty",
            )
    if not parts:
        raise InputError(f"{name} has no batches", "at least one row")
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return from_array(whole.pop("x"), name=name, source=LOADER), whole


def _described(part: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{key} of shape {value.shape[1:]}" for key, value in part.items())


def _kind(dataset: Dataset, extras: dict[str, np.ndarray]) -> str:
    named = f", context {dataset.covariates}" if dataset.covariates is not None else ""
    return ("8-bit " if dataset.x.dtype == np.uint8 else "") + _described({"x": dataset.x} | extras) + named


def _joined(
    first: tuple[Dataset, dict[str, np.ndarray]], second: tuple[Dataset, dict[str, np.ndarray]]
) -> tuple[Dataset, dict[str, np.ndarray]]:
    """Validation rows and test rows as one data set."""
    (a, more), (b, others) = first, second
    if (has := _kind(b, others)) != (wanted := _kind(a, more)):
        raise InputError(f"test has {has}", f"{wanted}, as validation has")
    both: dict[str, Any] = {"labels": None} | {
        name: np.concatenate((getattr(a, name), getattr(b, name)))
        for name in ("x", "labels", "context")
        if getattr(a, name) is not None and getattr(b, name) is not None
    }
    dataset = replace(a, **both, label_name=None if both["labels"] is None else a.label_name)
    return dataset, {name: np.concatenate((more[name], others[name])) for name in more}
