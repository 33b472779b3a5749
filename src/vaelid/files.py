"""Writing so that nothing is lost: a temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}(\.\w+)?|\.tmp\w{6}")  # those of `atomic` and of safetensors


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it there, synced to disk, when the block ends without an error.

    A reader sees the old file or the new one, never half of one. On an error the temporary file is removed.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sweep(folder: Path | str) -> None:
    """Remove the temporary files that a killed writer left in a folder."""
    for path in Path(folder).iterdir():
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink()


def umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
