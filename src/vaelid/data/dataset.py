"""`Dataset`: rows of data with what is known about them, and how arrays and columns become one."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np

from vaelid import checks
from vaelid.data.covariates import Covariates
from vaelid.data.roles import Roles
from vaelid.errors import InputError

Kind = Literal["image", "table", "array"]

_CHANNELS = (1, 3, 4)
_MIN_SIDE = 4


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Rows of data in their own units.

    Attributes:
        name: what a run is named after: ``digits``, the stem of a file, ``memory``.
        source: a built-in name, an absolute path, or ``memory``.
        kind: ``image`` (rows, channels, height, width), ``table`` (rows, named columns) or ``array`` (anything else).
        x: the data, (rows, *event): bool, integers or float32.
        row_id: the rows' numbers in the source, (rows,), int64.
        labels: one number or text per row, (rows,); never seen by a model.
        label_name: the column or array that the labels come from; loading ``source`` with it gives them again.
        columns: names of a table's columns.
        test_rows: the rows of the source's own test set, (test rows,), int64, where it has one.
        trials: the number of trials that each cell counts the successes of, where that is known.
        context: what a conditional model is given, encoded, (rows, c), float32.
        covariates: how the context was encoded, and of which columns.
        weight: weight of each row, (rows,), float32.
        weight_name: the column or array that the weights come from.
    """

    name: str
    source: str
    kind: Kind
    x: np.ndarray
    row_id: np.ndarray
    labels: np.ndarray | None = None
    label_name: str | None = None
    columns: tuple[str, ...] | None = None
    test_rows: np.ndarray | None = None
    trials: int | None = None
    context: np.ndarray | None = None
    covariates: Covariates | None = None
    weight: np.ndarray | None = None
    weight_name: str | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.x)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.x.shape[1:]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the data and what belongs to them: equal data, equal fingerprint.

        It covers dtype, shape and bytes of the data, and labels, names of columns, context and weights where there are
        any.
        """
        digest = hashlib.sha256(f"{self.x.dtype.name} {self.x.shape}".encode())
        digest.update(np.ascontiguousarray(self.x).data)
        if self.labels is not None:
            digest.update(json.dumps([self.labels.dtype.kind, self.labels.tolist()]).encode())
        if self.columns is not None:
            digest.update(json.dumps(["columns", *self.columns]).encode())
        if self.context is not None and self.covariates is not None:
            digest.update(f"context {self.covariates.to_json()}".encode())
            digest.update(self.context.data)
        if self.weight is not None:
            digest.update(b"weight")
            digest.update(self.weight.data)
        return digest.hexdigest()


def from_array(
    values: np.ndarray,
    *,
    name: str,
    source: str,
    labels: np.ndarray | None = None,
    label_name: str | None = None,
    columns: Sequence[str] | None = None,
    test_rows: np.ndarray | None = None,
    trials: int | None = None,
) -> Dataset:
    """A data set of a checked array, shape (rows, …), in the dtypes and the channel order of `Dataset`.

    Images are arrays (rows, height, width), (rows, height, width, channels) or (rows, channels, height, width) with
    1, 3 or 4 channels and sides of at least 4; they become channel-first. float64 is rounded to float32.

    Raises:
        InputError: values that float32 cannot hold, or cannot tell apart.
    """
    values, image = channels_first(values)
    values = _device_dtype(values, columns, name)
    kind: Kind = "image" if image else "table" if columns is not None else "array"
    return Dataset(
        name=name,
        source=source,
        kind=kind,
        x=values,
        row_id=np.arange(len(values)),
        labels=labels,
        label_name=label_name if labels is not None else None,
        columns=tuple(columns) if columns is not None else None,
        test_rows=test_rows,
        trials=trials,
    )


def from_columns(
    columns: Sequence[checks.Column], *, name: str, source: str, roles: Roles, given: str | None = None
) -> Dataset:
    """A data set of the columns of a table, each in its role.

    ``given`` names the table in error messages.

    Raises:
        InputError: repeated names, an unknown column, no rows, text among the data, missing cells (see
            `vaelid.checks.matrix` and `Roles`).
    """
    given = given or name
    names = [column.name for column in columns]
    repeated = sorted({column for column in names if names.count(column) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise InputError(f"{given} has several columns named {repeated[0]!r}", "names that differ", "rename columns")
    roles = roles.among(names, given)
    if columns and len(columns[0].values) == 0:
        raise InputError(f"{given} has column names but no rows", "at least one row")
    found = dict(zip(names, columns, strict=True))
    x = checks.array(checks.matrix([found[feature] for feature in roles.columns or ()], given), given)
    label = roles.label
    dataset = from_array(
        x,
        name=name,
        source=source,
        labels=None if label is None else checks.labels(found[label], len(x), f"label {label!r} of {given}"),
        label_name=label,
        columns=roles.columns,
    )
    return replace(dataset, **roles.extras(found, len(x), given))


def labelled(dataset: Dataset, roles: Roles) -> Dataset:
    """A data set of rows with a label at most, in the roles that these can have: labels may be context.

    Raises:
        InputError: columns are chosen or dropped, or one is named that there is not.
    """
    found = {} if dataset.label_name is None else {dataset.label_name: dataset.labels}
    roles = roles.among_arrays(list(found), dataset.name)
    return replace(dataset, **roles.extras(found, dataset.rows, dataset.name))


def channels_first(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """The array, channel-first if it holds images, and whether it does."""
    shape = values.shape[1:]
    if len(shape) == 2 and min(shape) >= _MIN_SIDE:
        return values[:, None], True
    if len(shape) == 3:
        if shape[2] in _CHANNELS and min(shape[:2]) >= _MIN_SIDE:
            return np.ascontiguousarray(values.transpose(0, 3, 1, 2)), True
        if shape[0] in _CHANNELS and min(shape[1:]) >= _MIN_SIDE:
            return values, True
    return values, False


def _device_dtype(values: np.ndarray, columns: Sequence[str] | None, name: str) -> np.ndarray:
    """Dtypes that tensors compute with: float32 for floats, no unsigned integers above 8 bits."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "u" and size > 1:
        if size == 8 and values.max() > np.iinfo(np.int64).max:
            raise InputError(f"{name} has integers above 2^63", "integers of 64 bits with a sign", "rescale the data")
        return values.astype(np.int32 if size == 2 else np.int64)
    return _single(values, columns, name) if kind == "f" and size == 8 else values


def _single(values: np.ndarray, columns: Sequence[str] | None, name: str) -> np.ndarray:
    """float64 as float32, refused where numbers overflow or where a feature's whole spread is a few rounding steps."""
    flat = values.reshape(len(values), -1)
    low, high = flat.min(axis=0), flat.max(axis=0)
    with np.errstate(over="ignore"):
        largest, spread = np.maximum(np.abs(low), np.abs(high)), high - low
    huge = largest > np.finfo(np.float32).max
    blurred = (spread < 100 * np.finfo(np.float32).eps * largest) & (spread > 1e-12 * largest)

    def where(bad: np.ndarray) -> str:
        index = int(bad.argmax())
        return f"column {columns[index]!r}" if columns is not None else f"column {index}"

    if huge.any():
        raise InputError(
            f"{name} has values of size {largest[huge][0]:g} in {where(huge)}",
            "values below 3.4e38 (data are held as float32)",
            "rescale that column",
        )
    if blurred.any():
        raise InputError(
            f"{name} has values from {low[blurred][0]:.10g} to {high[blurred][0]:.10g} in {where(blurred)}",
            "differences that float32 can hold (7 digits)",
            "subtract a constant from that column first",
        )
    return values.astype(np.float32)
