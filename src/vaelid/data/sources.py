"""`load`: a data set from a built-in name, a file, a folder, or memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset as Items

from vaelid import checks
from vaelid.data import images, items, readers
from vaelid.data.covariates import Covariates
from vaelid.data.dataset import Dataset, from_array, from_columns, labelled
from vaelid.data.roles import Roles
from vaelid.errors import InputError, nearest

ENDINGS = (".npy", ".npz", ".csv", ".csv.gz", ".parquet", ".zip")
MEMORY, LOADER = "memory", "loader"  # sources that nothing but the run folder, or the caller, can give again


def load(
    source: Any,
    *,
    label: str | None = None,
    columns: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    context: str | Sequence[str] | Covariates | None = None,
    weight: str | None = None,
    name: str | None = None,
) -> Dataset:
    """Read data.

    Args:
        source: ``digits``; the path of a ``.npy .npz .csv .csv.gz .parquet`` file, of a folder or ``.zip`` of images;
            a NumPy array, nested list, tensor, pandas or polars frame; a polars lazy frame, of which only the columns
            that are needed are collected; a map-style PyTorch ``Dataset``, which is read once into memory; or a
            `vaelid.data.Dataset`, which is returned as it is.
        label: the column (tables) or array (``.npz``) to take as labels rather than as data.
        columns: the columns of a table that are data, in this order; by default all without another role.
        drop: columns of a table that are no data.
        context: what a conditional model is given: columns of a table, arrays of a ``.npz``, or the labels of images by
            their name (``digit``, ``folder``). `Covariates` of an earlier data set encode new rows as they did those.
        weight: the column or array with the weight of each row.
        name: what runs on these data are named after; by default the built-in name or the stem of the file.

    A column may be label and context at once; label, context and weight are never data. Floats are held as float32 and
    integers as integers, see `vaelid.data.dataset.from_array`.

    Raises:
        InputTypeError: a source of another type, text or objects among the data.
        InputError: everything else that keeps the source from being data, in one line.
    """
    return read(source, Roles.of(label, columns, drop, context, weight), name)


def read(source: Any, roles: Roles, name: str | None = None) -> Dataset:
    """What `load` reads, for ``roles`` that are resolved."""
    if isinstance(source, Dataset):
        if roles != Roles(label=roles.label):
            raise InputError(
                f"{source.name} is a data set already, and beside it columns, context or weight",
                "these where the data are read",
                "give them to the load that makes the data set",
            )
        return source
    if isinstance(source, (str, Path)):
        return _built_in(source, roles, name) or _from_path(source, roles, name)
    title = _safe(name or MEMORY)
    if checks.is_frame(source) or checks.is_lazy(source):
        given = name or "the frame"
        if checks.is_lazy(source):
            source, roles = readers.collected(source, roles, given)
        return from_columns(checks.frame_columns(source), name=title, source=MEMORY, roles=roles, given=given)
    if isinstance(source, Items):
        return labelled(items.read_items(source, title, name or "the Dataset"), roles)
    items.refuse_loader(source)
    return labelled(from_array(checks.array(source, name or "x"), name=title, source=MEMORY), roles)


def digits(name: str = "digits") -> Dataset:
    """1797 handwritten digits, (1, 8, 8), uint8: each pixel counts the 0–16 dark dots of a 4×4 block of the scan.

    Source: scikit-learn's ``load_digits``, the test part of UCI's *Optical Recognition of Handwritten Digits*.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    values = bunch.images.astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    return from_array(values, name=name, source="digits", labels=labels, label_name="digit", trials=16)


BUILT_IN = {"digits": digits}


def _built_in(source: str | Path, roles: Roles, name: str | None) -> Dataset | None:
    made = BUILT_IN.get(source) if isinstance(source, str) else None
    return labelled(made(_safe(name or str(source))), roles) if made else None


def _from_path(source: str | Path, roles: Roles, name: str | None) -> Dataset:
    path = Path(source).expanduser().absolute()
    ending = _ending(path)
    stem = _safe(name or (path.name.removesuffix(path.name[-len(ending) :]) if ending else path.name))
    with readers.reading(path, "a file or a folder"):
        _check_path(source, path, ending)
    match ending:
        case None:
            return labelled(images.read_folder(path, stem), roles)
        case ".zip":
            return labelled(images.read_zip(path, stem), roles)
        case ".npy":
            return labelled(readers.read_npy(path, stem), roles)
        case ".npz":
            return readers.read_npz(path, stem, roles)
        case ".parquet":
            return readers.read_parquet(path, stem, roles)
    return readers.read_csv(path, stem, roles)


def _check_path(source: str | Path, path: Path, ending: str | None) -> None:
    if not path.exists():
        raise _absent(source)
    if path.is_dir():
        return
    if not path.is_file():
        raise InputError(f"{source} is neither a file nor a folder", "a file or a folder")
    if ending is None:
        raise InputError(f"{source} has an unknown ending", "one of " + ", ".join(ENDINGS) + ", or a folder of images")
    if path.stat().st_size == 0:
        raise InputError(f"{source} is an empty file (0 bytes)", "data", "write or download it again")


def _ending(path: Path) -> str | None:
    """The known ending of a file, None for an unknown one or a folder."""
    if path.is_dir():
        return None
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)


def _absent(source: str | Path) -> InputError:
    text = str(source)
    if Path(text).name == text and not Path(text).suffix:
        known = nearest(text, BUILT_IN)
        return InputError(
            f"no built-in data set is called {text!r} and there is no such file or folder",
            "a built-in name, a file, or a folder of images",
            known,
        )
    return InputError(f"no such file or folder: {text}", "a path that exists", "check the spelling and the folder")


def _safe(name: str) -> str:
    """A name fit for a folder."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or MEMORY
