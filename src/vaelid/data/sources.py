"""`load`: a data set from a built-in name, a file, a folder, or memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from vaelid import checks
from vaelid.data import images, readers
from vaelid.data.dataset import Dataset, from_array, from_columns, unknown_label
from vaelid.errors import InputError, nearest

ENDINGS = (".npy", ".npz", ".csv", ".csv.gz", ".parquet", ".zip")
MEMORY = "memory"


def load(source: Any, *, label: str | None = None, name: str | None = None) -> Dataset:
    """Read data.

    Args:
        source: ``digits``; the path of a ``.npy .npz .csv .csv.gz .parquet`` file, of a folder or ``.zip`` of images;
            a NumPy array, nested list, tensor, pandas or polars frame; or a `Dataset`, which is returned as it is.
        label: the column (tables) or array (``.npz``) to take as labels rather than as data.
        name: what runs on these data are named after; by default the built-in name or the stem of the file.

    Floats are held as float32 and integers as integers, see `vaelid.data.dataset.from_array`.

    Raises:
        InputTypeError: a source of another type, text or objects among the data.
        InputError: everything else that keeps the source from being data, in one line.
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, (str, Path)):
        dataset = _built_in(source, name) or _from_path(source, label, name)
    elif checks.is_frame(source):
        given = name or "the frame"
        columns = checks.frame_columns(source)
        return from_columns(columns, name=_safe(name or MEMORY), source=MEMORY, label=label, given=given)
    else:
        dataset = from_array(checks.array(source, name or "x"), name=_safe(name or MEMORY), source=MEMORY)
    if label is not None and label != dataset.label_name:
        raise unknown_label(label, [dataset.label_name] if dataset.label_name else [], dataset.name)
    return dataset


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


def _built_in(source: str | Path, name: str | None) -> Dataset | None:
    made = BUILT_IN.get(source) if isinstance(source, str) else None
    return made(_safe(name or str(source))) if made else None


def _from_path(source: str | Path, label: str | None, name: str | None) -> Dataset:
    path = Path(source).expanduser().absolute()
    ending = _ending(path)
    stem = _safe(name or (path.name.removesuffix(path.name[-len(ending) :]) if ending else path.name))
    with readers.reading(path, "a file or a folder"):
        _check_path(source, path, ending)
    if ending is None:
        return images.read_folder(path, stem)
    if ending == ".npy":
        return readers.read_npy(path, stem)
    if ending == ".npz":
        return readers.read_npz(path, stem, label)
    if ending == ".parquet":
        return readers.read_parquet(path, stem, label)
    if ending == ".zip":
        return images.read_zip(path, stem)
    return readers.read_csv(path, stem, label)


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
