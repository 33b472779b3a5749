"""Checks of arrays and numbers: one piece of code, called by readers and by the library's functions alike.

A check returns the value in the form that the library works with, or raises `vaelid.errors.InputError` with one line
that names rows, columns and the first offending value. Rows and columns are counted from 0. pandas and polars are
recognised without being imported.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from vaelid.errors import InputError, InputTypeError, some
from vaelid.types import Support

_FRAMES = ("pandas", "polars")
_GRAIN = 0.01  # how far a value may be from its level on a grid of steps, as a part of the step: levels are rounded


@final
@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table: ``values`` (rows,) of any dtype and ``missing`` (rows,), True where a cell is empty."""

    name: str
    values: np.ndarray
    missing: np.ndarray


def array(x: Any, name: str = "x", *, min_rows: int = 1) -> np.ndarray:
    """``x`` as a numeric, finite, writeable, C-contiguous array of shape (rows, …), at least two-dimensional.

    Takes NumPy arrays, nested lists, tensors on any device, pandas and polars frames. Bool, integers and floats keep
    their dtype; half precision becomes float32, extended precision float64.

    Raises:
        InputTypeError: ``x`` is no array, or holds text, objects, dates or complex numbers.
        InputError: no rows or cells, fewer rows than ``min_rows``, one dimension, ragged rows, NaN or infinity.
    """
    values = matrix(frame_columns(x), name) if is_frame(x) else _numeric(_numpy(x, name), name)
    if values.ndim == 0:
        raise InputTypeError(f"{name} is a single number", "an array of rows × columns")
    if values.ndim == 1:
        raise InputError(
            f"{name} has one dimension of {values.shape[0]} values",
            "rows × columns",
            "one value per row is x.reshape(-1, 1), one single row is x.reshape(1, -1)",
        )
    if values.size == 0:
        raise InputError(f"{name} is empty, shape {values.shape}", f"at least {_rows(min_rows)} with one cell or more")
    if values.shape[0] < min_rows:
        raise InputError(f"{name} has {_rows(values.shape[0])}", f"at least {min_rows}", "give more rows")
    _finite(values, name)
    return values


def matrix(columns: Sequence[Column], name: str = "x") -> np.ndarray:
    """The columns of a table side by side, (rows, columns), in the smallest dtype that holds all of theirs.

    Raises:
        InputTypeError: columns of text, dates or objects.
        InputError: no columns, missing cells.
    """
    if not columns:
        raise InputError(f"{name} has no columns of data", "at least one column of numbers")
    text = [(column, _offence(column)) for column in columns]
    bad = [f"{column.name!r} ({found})" for column, found in text if found is not None]
    if bad:
        plural = "s" if len(bad) > 1 else ""
        raise InputTypeError(
            f"{name} has text in column{plural} {_few(bad)}",
            "numbers only",
            "name it as the label (--label NAME) or as context (--context NAME), drop it (--drop NAME) or encode it as "
            "numbers: tables of mixed types are not supported yet",
        )
    gaps = [(column.name, np.flatnonzero(column.missing)) for column in columns if column.missing.any()]
    if gaps:
        cells = sum(len(rows) for _, rows in gaps)
        raise InputError(
            f"{name} has {cells} missing cell{'s' if cells > 1 else ''}: "
            + _few([f"column {column!r} in {some(rows)}" for column, rows in gaps], 3, "; "),
            "a value in every cell",
            "drop those rows or fill the cells",
        )
    parts = [_numeric(column.values, name) for column in columns]
    values = np.empty((len(parts[0]), len(parts)), np.result_type(*parts))
    for index, part in enumerate(parts):
        values[:, index] = part
    return values


def labels(y: Any, rows: int, name: str = "labels", what: str = "label") -> np.ndarray:
    """``y`` as a label (or ``what`` else it is) per row, shape (rows,): numbers or text (stripped of blanks around it).

    Raises:
        InputError: another shape or length, or missing labels.
    """
    column = y if isinstance(y, Column) else _column(name, y) if is_series(y) else None
    values = column.values if column else _numpy(y, name)
    if values.shape != (rows,):
        raise InputError(f"{name} has shape {values.shape}", f"one {what} per row, shape ({rows},)")
    missing = column.missing if column else _missing(values)
    if missing.any():
        raise InputError(
            f"{name} has no value in {some(np.flatnonzero(missing))}", f"a {what} for every row", "drop those rows"
        )
    if values.dtype.kind == "O" and all(_is_number(value) for value in values):
        values = _from_objects(values, name)
    if values.dtype.kind in "biuf":
        return np.array(_plain_dtype(values))
    return np.array([str(_decoded(value)).strip() for value in values.tolist()])


def weights(weight: Any, rows: int, name: str = "weight") -> np.ndarray:
    """``weight`` as a number of at least 0 per row, (rows,), float32.

    Raises:
        InputError: another shape or length, values that are not finite, negative weights, or weights that are all 0.
    """
    values = weight.values if isinstance(weight, Column) else _numpy(weight, name)
    found = array(values.reshape(-1, 1), name).astype(np.float32)[:, 0]
    if len(found) != rows:
        raise InputError(f"{name} has shape {found.shape}", f"({rows},), one entry for each row of x")
    if (below := np.flatnonzero(found < 0)).size or not found.any():
        given = f"{name} is below 0 in {some(below)}" if below.size else f"{name} is 0 in all rows"
        raise InputError(given, "weights of 0 or more, some of them above")
    return found


def support(x: np.ndarray | Tensor, support: Support, likelihood: str, name: str = "x") -> None:
    """Refuse values of ``x``, shape (rows, …), to which a likelihood gives neither mass nor density.

    Raises:
        InputError: values outside ``support.low … support.high``, or not whole or not on its grid where they must be.
    """
    values = _tensor(x) if isinstance(x, Tensor) else np.asarray(x)
    if values.size == 0:
        return
    floating = values.dtype.kind == "f"
    with np.errstate(invalid="ignore"):
        low, high = support.low - _GRAIN * support.step, support.high + _GRAIN * support.step
        lowest = values.min()
        inside = bool(lowest >= low and values.max() <= high) and not (support.strict and lowest == low)
        whole = not support.integer or not floating or bool((np.floor(values) == values).all())
        if inside and whole and not support.step:
            return
        bad = ~((values >= low) & (values <= high))
        if support.strict:
            bad |= values == low
        if support.integer and floating:
            bad |= np.floor(values) != values
        if support.step:
            bad |= ~_on_grid(values, support)
    if not bad.any():
        return
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    first = np.unravel_index(int(bad.argmax()), bad.shape)
    value = float(values[first])
    raise InputError(
        f"{name} has values that the {likelihood} likelihood cannot give, in {some(rows)} "
        f"(first: {value:g} in {_cell(first)})",
        str(support),
        _support_remedy(value, support, likelihood),
    )


def observed(x: Any, mask: Any, support: Support, name: str = "x") -> tuple[np.ndarray, np.ndarray]:
    """x with a value inside the support in every cell that was not observed, and the mask, bool, of the same shape.

    Hidden cells may hold anything, NaN included.

    Raises:
        InputError: the shapes differ, or an observed cell is not a finite number.
    """
    seen = array(mask, "mask").astype(bool)
    values = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if values.shape != seen.shape:
        raise InputError(
            f"the mask has shape {seen.shape}",
            f"{values.shape}, the shape of {name}",
            "give True for every observed cell and False for the others",
        )
    inside = support.inside
    filled = np.where(seen, values, values.dtype.type(inside) if values.dtype.kind in "biuf" else inside)
    return array(filled, name), seen


def same_event(x: np.ndarray | Tensor, event_shape: Sequence[int], name: str = "x") -> None:
    """Refuse data, shape (rows, …), whose event shape is not the one that a model was trained on.

    Raises:
        InputError: another event shape.
    """
    given, trained = tuple(x.shape[1:]), tuple(event_shape)
    if given != trained:
        raise InputError(
            f"each row of {name} has shape {given}",
            f"{trained}, the shape that the model was trained on",
            "give data with the same columns or image size as the training data",
        )


def positive_int(value: Any, name: str, minimum: int = 1) -> int:
    """``value`` as an int of at least ``minimum``: latent sizes, samples, epochs.

    Raises:
        InputTypeError: not a whole number. InputError: too small.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise InputTypeError(f"{name} is {value!r}", f"a whole number of at least {minimum}")
    if value < minimum:
        raise InputError(f"{name} is {value}", f"a whole number of at least {minimum}")
    return int(value)


def positive(value: Any, name: str) -> float:
    """``value`` as a finite float above 0: learning rates, scales.

    Raises:
        InputTypeError: not a number. InputError: not above 0, or not finite.
    """
    number = _real(value, name, "a number above 0")
    if not 0 < number < float("inf"):
        raise InputError(f"{name} is {value}", "a number above 0")
    return number


def non_negative(value: Any, name: str) -> float:
    """``value`` as a finite float of at least 0: β, free bits, weight decay.

    Raises:
        InputTypeError: not a number. InputError: below 0, or not finite.
    """
    number = _real(value, name, "a number of at least 0")
    if not 0 <= number < float("inf"):
        raise InputError(f"{name} is {value}", "a number of at least 0")
    return number


def is_frame(x: Any) -> bool:
    """Whether ``x`` is a pandas or polars data frame."""
    return _is_a(x, "DataFrame")


def is_lazy(x: Any) -> bool:
    """Whether ``x`` is a polars lazy frame."""
    return _is_a(x, "LazyFrame", ("polars",))


def is_series(x: Any) -> bool:
    """Whether ``x`` is a pandas or polars series."""
    return _is_a(x, "Series")


def frame_columns(frame: Any) -> list[Column]:
    """The columns of a pandas or polars frame."""
    if _is_a(frame, "DataFrame", ("polars",)):
        return [_column(series.name, series) for series in frame.get_columns()]
    return [_column(str(column), frame.iloc[:, index]) for index, column in enumerate(frame.columns)]


def _column(name: str, series: Any) -> Column:
    empty = series.is_null() if _is_a(series, "Series", ("polars",)) else series.isna()
    values = np.asarray(series.to_numpy())
    return Column(name, values, empty.to_numpy().astype(bool) | _missing(values))


def _is_a(x: Any, kind: str, packages: tuple[str, ...] = _FRAMES) -> bool:
    return any(base.__name__ == kind and base.__module__.split(".")[0] in packages for base in type(x).__mro__)


def _missing(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        nan: np.ndarray = np.isnan(values)
        return nan
    if values.dtype.kind == "O":
        return np.array([_is_missing(value) for value in values.ravel()], bool).reshape(values.shape)
    return np.zeros(values.shape, bool)


def _is_missing(value: Any) -> bool:
    return (
        value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (numbers.Real, np.bool_))


def _numpy(x: Any, name: str) -> np.ndarray:
    """``x`` as a NumPy array of any dtype; lists that hold text become objects, so that each cell stays what it was."""
    if isinstance(x, Tensor):
        return _tensor(x)
    if isinstance(x, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(x)
        if masked.any():
            hidden = np.unique(np.nonzero(masked)[0])
            raise InputError(f"{name} has masked cells in {some(hidden)}", "a value in every cell", "fill those cells")
        return np.asarray(x.data)
    if isinstance(x, (list, tuple)):
        rows = [_tensor(row) if isinstance(row, Tensor) else row for row in x]
        try:
            values = np.array(rows)
        except ValueError:
            raise _ragged(rows, name) from None
        return np.array(rows, dtype=object) if values.dtype.kind in "US" else values
    if is_series(x):
        return np.asarray(x.to_numpy())
    if isinstance(x, (np.ndarray, np.generic, numbers.Number)) or callable(getattr(x, "__array__", None)):
        return np.asarray(x)
    raise InputTypeError(
        f"{name} is a {type(x).__name__}",
        "a NumPy array, list, tensor, or pandas or polars frame",
        "a sparse matrix has .toarray(), a lazy frame .collect()",
    )


def _tensor(x: Tensor) -> np.ndarray:
    x = x.detach()
    if x.layout != torch.strided:
        x = x.to_dense()
    if x.is_floating_point() and x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    return x.cpu().resolve_conj().resolve_neg().numpy()


def _ragged(rows: Sequence[Any], name: str) -> InputError:
    sizes = [len(row) if hasattr(row, "__len__") else 1 for row in rows]
    odd = [index for index, size in enumerate(sizes) if size != sizes[0]]
    if not odd:
        return InputError(f"{name} has rows whose cells differ in shape", "rows of one shape")
    return InputError(
        f"{name} has ragged rows: row 0 has {sizes[0]} cell{'s' if sizes[0] != 1 else ''}, "
        f"{some(odd)} {'differ' if len(odd) > 1 else 'differs'} (row {odd[0]} has {sizes[odd[0]]})",
        "rows of one length",
        "complete or drop those rows",
    )


def _numeric(values: np.ndarray, name: str) -> np.ndarray:
    kind = values.dtype.kind
    if kind == "O":
        values = _from_objects(values, name)
    elif kind in "US":
        raise _text(values, np.array([not _parses(value) for value in values.ravel()]), name)
    elif kind == "c":
        raise InputTypeError(f"{name} has complex numbers", "real numbers", "split them into .real and .imag")
    elif kind not in "biuf":
        raise InputTypeError(f"{name} has values of type {values.dtype}", "numbers", "convert them to numbers first")
    values = np.ascontiguousarray(_plain_dtype(values)) if values.ndim else values
    return values if values.flags.writeable else values.copy()


def _plain_dtype(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8):
        return values.astype(np.float32 if values.dtype.itemsize < 4 else np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _from_objects(values: np.ndarray, name: str) -> np.ndarray:
    """Python objects as int64 or float64; missing cells become NaN."""
    cells = list(values.ravel())
    bad = np.array([not (_is_number(cell) or _is_missing(cell)) for cell in cells], bool)
    if bad.any():
        raise _text(values, bad, name)
    if all(isinstance(cell, (numbers.Integral, np.bool_)) and abs(int(cell)) < 2**63 for cell in cells):
        return np.array([int(cell) for cell in cells], np.int64).reshape(values.shape)
    numeric = [float("nan") if _is_missing(cell) else float(cell) for cell in cells]
    return np.array(numeric, np.float64).reshape(values.shape)


def _text(values: np.ndarray, bad: np.ndarray, name: str) -> InputTypeError:
    """The error for cells that are no numbers; where all text would parse as numbers, the remedy is to parse it."""
    if not bad.any():
        return InputTypeError(f"{name} holds numbers written as text", "numbers", "convert with x.astype(float)")
    bad = bad.reshape(values.shape)
    first = np.unravel_index(int(bad.argmax()), bad.shape)
    rows = np.unique(np.nonzero(bad)[0]) if bad.ndim else [0]
    kind = "text" if isinstance(values[first], (str, bytes)) else f"objects of type {type(values[first]).__name__}"
    return InputTypeError(
        f"{name} has {kind} in {some(rows)} (first: {_short(values[first])} in {_cell(first)})",
        "numbers",
        "drop those cells or encode them as numbers",
    )


def _finite(values: np.ndarray, name: str) -> None:
    if values.dtype.kind != "f":
        return
    with np.errstate(invalid="ignore"):
        if np.isfinite(values.min()) and np.isfinite(values.max()):
            return
    bad = ~np.isfinite(values)
    first = np.unravel_index(int(bad.argmax()), bad.shape)
    cells, rows = int(bad.sum()), np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    raise InputError(
        f"{name} has {cells} cell{'s' if cells > 1 else ''} with NaN or infinity, in {some(rows)} "
        f"(first: {values[first]:g} in {_cell(first)})",
        "finite numbers",
        "drop those rows or fill the cells",
    )


def _offence(column: Column) -> str | None:
    """Where and what is the first cell of a column that is no number, or None."""
    values, present = column.values, ~column.missing
    if values.dtype.kind in "biuf":
        return None
    if values.dtype.kind == "O":
        bad = present & np.array([not _is_number(value) for value in values], bool)
        if not bad.any():
            return None
    else:
        bad = present
    unparsable = bad & np.array([not _parses(value) for value in values], bool)
    row = int((unparsable if unparsable.any() else bad).argmax())
    return f"row {row}: {_short(values[row])}"


def _parses(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _real(value: Any, name: str, expected: str) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise InputTypeError(f"{name} is {value!r}", expected)
    return float(value)


def _on_grid(values: np.ndarray, support: Support) -> np.ndarray:
    """Whether each value is a level of the support's grid."""
    position = (values.astype(np.float64) - support.low) / support.step
    near: np.ndarray = np.abs(position - np.round(position)) <= _GRAIN
    return near


def _support_remedy(value: float, support: Support, likelihood: str) -> str:
    if value != value:
        return "drop those rows or fill the cells"
    if support.high == 1 and value > 1:
        grey = "turn grey levels into on and off at every step (--binarise)"
        return f"{grey if support.integer else 'divide by the largest value'} or choose another --likelihood"
    if support.integer and value != np.floor(value):
        if support.high == 1 and value > 0:
            return "binarise grey levels (--binarise) or choose --likelihood continuous-bernoulli"
        return "round them if they are counts, or choose --likelihood gaussian"
    if support.strict and value <= support.low:
        return "choose --likelihood gaussian, laplace or student-t for numbers that are not all positive"
    if value < support.low:
        return "correct those rows if they should be counts, or choose --likelihood gaussian"
    if support.step and value <= support.high:
        return "round the data to those levels, or choose --likelihood gaussian"
    return "correct those rows or choose another --likelihood"


def _cell(index: Sequence[Any]) -> str:
    row, *rest = (int(i) for i in index)
    if not rest:
        return f"row {row}"
    return f"row {row}, column {rest[0]}" if len(rest) == 1 else f"row {row}, cell {tuple(rest)}"


def _short(value: Any) -> str:
    text = repr(str(_decoded(value))) if isinstance(value, (str, bytes)) else str(value)
    return text if len(text) <= 40 else text[:37] + "…" + text[-1]


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _few(parts: Sequence[str], limit: int = 5, joint: str = ", ") -> str:
    rest = len(parts) - limit
    return joint.join(parts[:limit]) + (f"{joint}and {rest} more" if rest > 0 else "")


def _rows(count: int) -> str:
    return f"{count} row{'s' if count != 1 else ''}"
