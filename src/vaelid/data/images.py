"""Readers of images: a folder or a ``.zip``, in sorted order, sub-folders as labels."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from vaelid import checks
from vaelid.data.dataset import Dataset, from_array
from vaelid.data.readers import reading
from vaelid.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
LABEL_NAME = "folder"

_MODES = {"1": "1", "L": "L", "LA": "L"}
_DEEP = ("I", "F")
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def read_folder(path: Path, name: str) -> Dataset:
    """All images below a folder, see `read_images`."""
    with reading(path, "a folder of images"):
        files = [str(file.relative_to(path).as_posix()) for file in path.rglob("*") if file.is_file()]
        return read_images(files, lambda file: (path / file).read_bytes(), path, name)


def read_zip(path: Path, name: str) -> Dataset:
    """All images of a ``.zip``, see `read_images`."""
    with reading(path, "a .zip of images"), zipfile.ZipFile(path) as archive:
        files = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        return read_images(files, archive.read, path, name)


def read_images(files: Sequence[str], read: Callable[[str], bytes], path: Path, name: str) -> Dataset:
    """Images of one size and mode, (rows, channels, height, width), uint8, sorted by path.

    Grey images have one channel and all others three (RGB, transparency dropped); images of one bit per pixel become
    bool. Where every image lies in a sub-folder, the sub-folder is its label; where the outermost folders are
    ``train`` and ``test``, the latter's images are the source's own test set. Hidden files are left out.

    Raises:
        InputError: no images, an unreadable one, images of several sizes or modes.
    """
    paths = sorted(file for file in files if _is_image(PurePosixPath(file)))
    if not paths:
        raise InputError(
            f"{path} holds no images",
            "files ending in " + ", ".join(ENDINGS),
            "give the folder that holds the images, or a data file" if path.is_dir() else "give a .zip of images",
        )
    first = _decode(read(paths[0]), paths[0])
    values = np.empty((len(paths), *first.shape), first.dtype)
    for index, file in enumerate(paths):
        image = _decode(read(file), file)
        if image.shape != first.shape or image.dtype != first.dtype:
            raise InputError(
                f"{file} is {_describe(image)}, but {paths[0]} is {_describe(first)}",
                "images of one size and mode",
                "resize or convert them first",
            )
        values[index] = image
    labels, test_rows = _folders(paths)
    values = np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if values.ndim == 4 else values[:, None]
    return from_array(
        values,
        name=name,
        source=str(path),
        labels=None if labels is None else checks.labels(labels, len(paths)),
        label_name=LABEL_NAME,
        test_rows=test_rows,
    )


def _is_image(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in ENDINGS


def _decode(content: bytes, file: str) -> np.ndarray:
    """One image, (height, width) for grey and (height, width, 3) for colour."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode = image.mode
            if mode not in _DEEP and not mode.startswith("I;"):
                plain = image.convert("RGBA") if mode == "P" else image
                return np.asarray(plain.convert(_MODES.get(mode, "RGB")))
    except _DAMAGED as error:
        raise InputError(f"image {file} cannot be read ({error})", "an image", "write it again or remove it") from error
    raise InputError(
        f"image {file} has more than 8 bits per channel (mode {mode})",
        "8 bits per channel",
        "convert it to 8 bits, or give the pixels as a .npy array",
    )


def _describe(image: np.ndarray) -> str:
    mode = "RGB" if image.ndim == 3 else "1-bit" if image.dtype == bool else "grey"
    return f"{image.shape[1]}×{image.shape[0]} {mode}"


def _folders(paths: Sequence[str]) -> tuple[list[str] | None, np.ndarray | None]:
    """Labels and test rows that the folders of the images tell, None where they tell none."""
    folders = [PurePosixPath(file).parts[:-1] for file in paths]
    while all(folders) and len({folder[0] for folder in folders}) == 1:
        folders = [folder[1:] for folder in folders]
    test_rows = None
    if all(folders) and {folder[0] for folder in folders} == {"train", "test"}:
        test_rows = np.flatnonzero([folder[0] == "test" for folder in folders])
        folders = [folder[1:] for folder in folders]
    return [folder[0] for folder in folders] if all(folders) else None, test_rows
