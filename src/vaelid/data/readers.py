"""Readers of files that hold arrays and tables: ``.npy .npz .csv .csv.gz .parquet``. Nothing is ever unpickled."""

from __future__ import annotations

import contextlib
import csv
import gzip
import itertools
import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from vaelid import checks
from vaelid.data.dataset import Dataset, from_array, from_columns
from vaelid.data.roles import Roles
from vaelid.errors import InputError, some

DATA_NAMES = ("x", "X", "data", "counts")
LABEL_NAMES = ("y", "labels", "label")

_MISSING = ("", "?", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "-nan", "-NaN", "null", "NULL", "None")
_DELIMITERS = ",;\t"
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    csv.Error,
    zlib.error,
    zipfile.BadZipFile,
)


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises over a damaged or unreadable file into one line about that file."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGED as error:
        raise damaged(path, what, error) from error


def damaged(path: Path, what: str, error: Exception | None = None) -> InputError:
    """The error for a file that cannot be opened or is not what its ending says."""
    if isinstance(error, OSError) and error.errno is not None:
        remedy = "check that it exists and that you may read it"
        return InputError(f"{path} cannot be read ({os.strerror(error.errno)})", what, remedy)
    reason = str(error).strip().splitlines()[0][:160].rstrip(".") if error and str(error).strip() else ""
    return InputError(
        f"{path} cannot be read" + (f" ({reason})" if reason else ""),
        what,
        "the file may be damaged or cut short: write or download it again",
    )


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Any]:
    """The arrays of a ``.npz`` file by name, read when asked for."""
    with reading(path, "a NumPy .npz file"), open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise damaged(path, "a NumPy .npz file")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays


def read_npy(path: Path, name: str) -> Dataset:
    """One array of a ``.npy`` file."""
    with reading(path, "a NumPy .npy file"), open(path, "rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise damaged(path, "a NumPy .npy file")
        file.seek(0)
        values = np.load(file, allow_pickle=False)
    return from_array(checks.array(values, path.name), name=name, source=str(path))


def read_npz(path: Path, name: str, roles: Roles) -> Dataset:
    """Arrays of a ``.npz`` file.

    The data are the array named x, X, data or counts, or the only one that has no other role; the labels are the array
    named y, labels or label, or the one that ``roles`` names, as they name context and weights. With x_train and x_test
    the rows of both are joined, training rows first, and the test rows are known as such; y then is y_train and y_test,
    and so it is with any other name.
    """
    with open_npz(path) as arrays:
        members, data, roles = _choose(arrays.files, path, roles)
        parts = [checks.array(_member(arrays, member, path), f"{member} of {path.name}") for member in members[data]]
        wanted = {given: [_member(arrays, member, path) for member in members[given]] for given in roles.needed}
    labels, test_rows = None, None
    if roles.label is not None:
        pairs = zip(members[roles.label], wanted[roles.label], parts, strict=True)
        labels = np.concatenate([checks.labels(y, len(x), f"{member} of {path.name}") for member, y, x in pairs])
    if len(parts) == 2:
        checks.same_event(parts[1], parts[0].shape[1:], f"{members[data][1]} of {path.name}")
        test_rows = np.arange(len(parts[0]), len(parts[0]) + len(parts[1]))
    x = np.concatenate(parts) if len(parts) > 1 else parts[0]
    dataset = from_array(x, name=name, source=str(path), labels=labels, label_name=roles.label, test_rows=test_rows)
    found = {given: np.concatenate(values) if len(values) > 1 else values[0] for given, values in wanted.items()}
    return replace(dataset, **roles.extras(found, len(x), path.name))


def read_csv(path: Path, name: str, roles: Roles) -> Dataset:
    """A table of text, cells separated by the one of comma, semicolon and tab that its first line has most of.

    The first row is a header if none of its cells is a number, or if they count 0, 1, 2, … (which is how pandas
    names columns without a name). Without a header, columns are called column_0, column_1, …. A first column without
    a name whose cells count 0, 1, 2, … is an index, not data. Cells that are empty, ``?``, ``NA``, ``nan`` or
    ``null`` are missing.
    """
    import pyarrow.csv as arrow_csv

    with reading(path, "a table of comma-separated values"):
        first, lines, delimiter = _first_row(path)
        header = _is_header(first)
        names = [cell.strip() if header else "" for cell in first]
        try:
            table = arrow_csv.read_csv(
                path,
                read_options=arrow_csv.ReadOptions(
                    column_names=[str(index) for index in range(len(names))], skip_rows=lines if header else 0
                ),
                parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(null_values=list(_MISSING), strings_can_be_null=True),
            )
        except ValueError as error:
            raise _ragged(path, delimiter, header) or error from None
        columns = [_column(str(index), values) for index, values in enumerate(table.columns)]
    if header and not names[0] and np.array_equal(columns[0].values, np.arange(table.num_rows)):
        columns, names = columns[1:], names[1:]
    named = [
        checks.Column(given or f"column_{column.name}", column.values, column.missing)
        for given, column in zip(names, columns, strict=True)
    ]
    return from_columns(named, name=name, source=str(path), roles=roles, given=path.name)


def read_parquet(path: Path, name: str, roles: Roles) -> Dataset:
    """The columns that are needed of a ``.parquet`` file; an index that pandas stored beside the data is left out."""
    import pyarrow.parquet as arrow_parquet

    with reading(path, "a Parquet file"), arrow_parquet.ParquetFile(path) as file:
        names = [field for field in file.schema_arrow.names if not re.fullmatch(r"__index_level_\d+__", field)]
        if len(set(names)) == len(names):
            roles = roles.among(names, path.name)
            names = list(roles.needed)
        table = file.read(columns=names)
        columns = [_column(field, values) for field, values in zip(table.column_names, table.columns, strict=True)]
    return from_columns(columns, name=name, source=str(path), roles=roles, given=path.name)


def collected(frame: Any, roles: Roles, given: str) -> tuple[Any, Roles]:
    """The columns of a polars lazy frame that are needed, streamed into a frame, and the roles with these named.

    Raises:
        InputError: a column is absent, or the query fails.
    """
    from polars import selectors

    try:
        roles = roles.among(frame.collect_schema().names(), given)
        return frame.select(selectors.by_name(*roles.needed)).collect(engine="streaming"), roles
    except InputError:
        raise
    except Exception as error:  # the query may hold code of the user's
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise InputError(f"{given} cannot be collected ({reason})", "a lazy frame whose query runs") from error


def _member(arrays: Any, name: str, path: Path) -> np.ndarray:
    try:
        return np.asarray(arrays[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise InputError(
            f"array {name!r} of {path} holds pickled objects",
            "numbers or plain text",
            f"save it again as {name}.astype(str) or as numbers",
        ) from None


def _choose(names: Sequence[str], path: Path, roles: Roles) -> tuple[dict[str, tuple[str, ...]], str, Roles]:
    """The arrays of each name (two where they are training and test rows), the name of the data, and the roles."""
    paired = {"x_train", "x_test"} <= set(names)
    stems = [name.removesuffix("_train") for name in names if name.endswith("_train")] if paired else []
    pairs = {stem: (f"{stem}_train", f"{stem}_test") for stem in stems if f"{stem}_test" in names}
    members: dict[str, tuple[str, ...]] = {**pairs} or {name: (name,) for name in names}
    roles = roles.among_arrays([name for name in members if not paired or name != "x"], path.name)
    if roles.label is None:
        own = [name for name in LABEL_NAMES if name in members and name != roles.weight]
        roles = replace(roles, label=own[0] if own else None)
    candidates = ["x"] if paired else [name for name in members if name not in roles.needed]
    known = [name for name in candidates if name in DATA_NAMES]
    if len(known) != 1 and len(candidates) != 1:
        raise InputError(
            f"{path.name} holds the arrays {', '.join(names)}" if names else f"{path.name} holds no arrays",
            "one array, or data named " + ", ".join(DATA_NAMES) + " (or x_train and x_test)",
            "save the data under one of those names",
        )
    return members, (known[0] if len(known) == 1 else candidates[0]), roles


def _first_row(path: Path) -> tuple[list[str], int, str]:
    """The cells of the first row that is not blank, the lines read for it, and the delimiter."""
    with _open_text(path) as file:
        for blank, line in enumerate(file):
            if line.strip():
                delimiter = max(_DELIMITERS, key=line.count)
                rows = csv.reader(itertools.chain([line], file), delimiter=delimiter)
                return next(rows), blank + rows.line_num, delimiter
    raise InputError(f"{path} is empty", "rows of numbers")


def _ragged(path: Path, delimiter: str, header: bool) -> InputError | None:
    """The error for rows whose number of cells is not that of the first row, None where all agree."""
    with _open_text(path) as file:
        cells = [len(row) for row in csv.reader(file, delimiter=delimiter) if row]
    odd = [(index - header, count) for index, count in enumerate(cells) if count != cells[0]]
    if not odd:
        return None
    row, count = odd[0]
    return InputError(
        f"{path.name} has ragged rows: {some([row for row, _ in odd])} "
        f"(row {row} has {count} cell{'s' if count != 1 else ''})",
        f"{cells[0]} in every row, as in the first",
        "complete or drop those rows (row 0 is the first row of data)",
    )


def _open_text(path: Path) -> IO[str]:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="")


def _is_header(cells: Sequence[str]) -> bool:
    named = [cell.strip() for cell in cells]
    if named == [str(index) for index in range(len(named))] and len(named) > 1:
        return True
    if not named[0] and len(named) > 1 and named[1:] == [str(index) for index in range(len(named) - 1)]:
        return True
    return not any(_is_number(cell) for cell in named) and any(cell not in _MISSING for cell in named)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column(name: str, values: Any) -> checks.Column:
    """A pyarrow chunked array as a column."""
    import pyarrow as arrow

    if arrow.types.is_decimal(values.type):
        values = values.cast(arrow.float64())
    array = values.to_numpy()
    missing = values.is_null().to_numpy().astype(bool)
    return checks.Column(name, array, missing | np.isnan(array) if array.dtype.kind == "f" else missing)
