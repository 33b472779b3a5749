"""Writers: arrays of a data set, tables of results, images. Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shlex
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaelid import files
from vaelid.data.covariates import Covariates
from vaelid.data.dataset import Dataset
from vaelid.data.readers import open_npz
from vaelid.errors import InputError, RunError

TABLE_ENDINGS = (".csv", ".parquet", ".npy", ".npz")

_CONTEXTS = "contexts.csv"
_GAP = 2
_MIN_TILE = 32
_CHANNELS = (1, 3, 4)


def save_arrays(dataset: Dataset, path: Path | str) -> None:
    """Store a data set as one ``.npz`` without pickle, so that a run can go on where the data were in memory."""
    fields = {name: getattr(dataset, name) for name in Dataset.__dataclass_fields__}
    if dataset.covariates is not None:
        fields["covariates"] = dataset.covariates.to_json()
    arrays = {name: np.asarray(value) for name, value in fields.items() if value is not None}
    _write(Path(path), lambda temporary: _savez(temporary, arrays))


def load_arrays(path: Path | str) -> Dataset:
    """The data set that `save_arrays` stored.

    Raises:
        InputError: no such file, or one that is damaged or was not written by `save_arrays`.
    """
    path = Path(path)
    with open_npz(path) as arrays:
        fields: dict[str, Any] = {name: arrays[name] for name in arrays.files if name in Dataset.__dataclass_fields__}
        for name in ("name", "source", "kind", "label_name", "weight_name"):
            if name in fields:
                fields[name] = str(fields[name])
        if "trials" in fields:
            fields["trials"] = int(fields["trials"])
        if "columns" in fields:
            fields["columns"] = tuple(fields["columns"].tolist())
        if "covariates" in fields:
            fields["covariates"] = Covariates.from_json(str(fields["covariates"]))
        missing = {"name", "source", "kind", "x", "row_id"} - set(fields)
        if missing:
            raise InputError(f"{path} lacks {', '.join(sorted(missing))}", "the data stored in a run folder")
        return Dataset(**fields)


def check_table_path(path: Path | str) -> Path:
    """``path``, if `write_table` can write there: to be asked before anything is computed.

    Raises:
        InputError: an unknown ending, a folder that is absent or not writable.
    """
    path = Path(path)
    if path.suffix.lower() not in TABLE_ENDINGS:
        ending = f"the ending {path.suffix!r}" if path.suffix else "no ending"
        raise InputError(f"output {path} has {ending}", "one of " + ", ".join(TABLE_ENDINGS))
    return _check_target(path)


def check_images_path(path: Path | str) -> Path:
    """``path``, if `write_images` can write there.

    Raises:
        InputError: an ending other than .png, a folder that holds something, one that is absent or not writable.
    """
    path = Path(path)
    if path.suffix and path.suffix.lower() != ".png":
        raise InputError(f"output {path} has the ending {path.suffix!r}", "a folder of images, or one .png of them all")
    if not path.suffix and path.is_dir() and any(path.iterdir()):
        raise InputError(f"output folder {path} is not empty", "a new or empty folder", "name another one")
    return _check_target(path, folder=not path.suffix)


def write_table(
    path: Path | str,
    values: np.ndarray | Mapping[str, np.ndarray],
    ids: np.ndarray,
    *,
    array: str = "x",
    names: Sequence[str] | None = None,
    beside: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write one row of results per row of data.

    ``.csv`` and ``.parquet`` hold a column ``id`` (``row_id`` if the data have an ``id`` of their own) and then the
    values, flattened to columns; ``.npz`` holds ``id`` and the values as they are; ``.npy`` the values alone.
    Columns ``beside`` the values stand after them, except in ``.npy``.

    Args:
        path: where to; the ending says how.
        values: an array (rows, …), or named columns (rows,) each.
        ids: the rows' numbers in their source, (rows,).
        array: what an array is called: ``array`` in ``.npz``, and columns ``array0``, ``array1``, ….
        names: names for an array's columns instead of those.
        beside: further columns, (rows,) each.

    Raises:
        InputError: see `check_table_path`. RunError: the disk fills or fails.
    """
    path = check_table_path(path)
    ending = path.suffix.lower()
    if ending == ".npy":
        whole = values if isinstance(values, np.ndarray) else np.column_stack(list(values.values()))
        _write(path, lambda temporary: np.save(temporary, whole, allow_pickle=False))
        return
    if ending == ".npz":
        arrays = _joined({array: values} if isinstance(values, np.ndarray) else values, beside)
        _write(path, lambda temporary: _savez(temporary, {_id_name(arrays): ids, **arrays}))
        return
    columns = _flat_columns(values, array, names) if isinstance(values, np.ndarray) else dict(values)
    columns = _joined(columns, beside)
    _write(path, lambda temporary: _write_columns(temporary, {_id_name(columns): ids, **columns}, ending))


def write_images(
    path: Path | str, x: np.ndarray, *, scale: float = 255.0, beside: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write images (rows, channels, height, width) with values from 0 (black) to ``scale`` (white).

    A path that ends in ``.png`` gets one picture with all of them as tiles, small images magnified; any other path
    becomes a folder of ``00000.png``, ``00001.png``, …. Columns ``beside`` the images, (rows,) each, become a table:
    ``contexts.csv`` in the folder, with a column ``file``, or at `table_beside` the picture, with a column ``tile``.

    Raises:
        InputError: not images; see also `check_images_path`. RunError: the disk fills or fails.
    """
    if x.ndim != 4 or x.shape[1] not in _CHANNELS:
        raise InputError(f"values of shape {x.shape}", "images (rows, 1 or 3 or 4 channels, height, width)")
    path = check_images_path(path)
    levels = np.clip(np.rint(np.asarray(x, np.float64) * (255 / scale)), 0, 255).astype(np.uint8)
    tiles = levels.transpose(0, 2, 3, 1)
    if not path.suffix:
        _write_folder(path, tiles, beside)
        return
    if beside:
        table = _joined({"tile": np.arange(len(tiles))}, beside)
        _write(table_beside(path), lambda temporary: _write_columns(temporary, table, ".csv"))
    _write(path, lambda temporary: _image(_grid(tiles)).save(temporary, format="PNG"))


def table_beside(path: Path) -> Path:
    """Where the table goes that belongs to images at ``path``: into the folder, or beside the one picture."""
    return path.with_name(f"{path.stem}.{_CONTEXTS}") if path.suffix else path / _CONTEXTS


def _write_folder(path: Path, tiles: np.ndarray, beside: Mapping[str, np.ndarray] | None) -> None:
    digits = max(5, len(str(len(tiles) - 1)))
    with _failing(path):
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.mkdir()
        try:
            names = [f"{index:0{digits}d}.png" for index in range(len(tiles))]
            for name, tile in zip(names, tiles, strict=True):
                _image(tile).save(temporary / name)
            if beside:
                _write_columns(temporary / _CONTEXTS, _joined({"file": np.array(names)}, beside), ".csv")
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _image(tile: np.ndarray) -> Image.Image:
    return Image.fromarray(tile[..., 0] if tile.shape[-1] == 1 else tile)


def _grid(tiles: np.ndarray) -> np.ndarray:
    count, height, width, channels = tiles.shape
    zoom = max(1, _MIN_TILE // max(height, width))
    tiles = tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width = height * zoom + _GAP, width * zoom + _GAP
    across = math.ceil(math.sqrt(count * height / width))
    down = math.ceil(count / across)
    picture = np.full((down * height + _GAP, across * width + _GAP, channels), 128, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // across * height + _GAP, index % across * width + _GAP
        picture[top : top + height - _GAP, left : left + width - _GAP] = tile
    return picture


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    with _failing(path), files.atomic(path) as temporary:
        write(temporary)


@contextlib.contextmanager
def _failing(path: Path) -> Iterator[None]:
    """An unwritable target is the caller's mistake; a disk that fills or fails is not."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
            raise InputError(f"{path} cannot be written ({reason})", "a writable folder") from error
        raise RunError(
            f"{path} could not be written ({reason}); nothing is left of it. Make room and try again."
        ) from error


def _check_target(path: Path, folder: bool = False) -> Path:
    parent = path.absolute().parent
    if not parent.is_dir():
        make = f"make it: mkdir -p {shlex.quote(str(parent))}"
        raise InputError(f"output folder {parent} does not exist", "a folder that exists", make)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"output folder {parent} is not writable", "a writable folder", "name another one")
    if path.exists() and path.is_dir() != folder:
        raise InputError(f"output {path} is a {'folder' if path.is_dir() else 'file'}", "another name")
    return path


def _savez(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """``np.savez`` whose array names may be any text; nothing is pickled."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)


def _write_columns(path: Path, columns: Mapping[str, np.ndarray], ending: str) -> None:
    import pyarrow as arrow

    table = arrow.table({name: np.ascontiguousarray(values) for name, values in columns.items()})
    if ending == ".csv":
        import pyarrow.csv as arrow_csv

        arrow_csv.write_csv(table, path)
    else:
        import pyarrow.parquet as arrow_parquet

        arrow_parquet.write_table(table, path)


def _flat_columns(values: np.ndarray, array: str, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    flat = values.reshape(len(values), -1)
    names = names if names is not None else [f"{array}{index}" for index in range(flat.shape[1])]
    return dict(zip(names, flat.T, strict=True))


def _joined(columns: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Columns with others beside them; an underscore is put behind a name that is taken."""
    joined = dict(columns)
    for name, column in (beside or {}).items():
        while name in joined:
            name += "_"
        joined[name] = column
    return joined


def _id_name(names: Iterable[str]) -> str:
    return "row_id" if "id" in set(names) else "id"
