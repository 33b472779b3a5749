"""Checkpoints: tensors and the loop's state in one safetensors file each, written atomically, never pickled."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaelid.errors import InputError, RunError, command
from vaelid.files import atomic


@final
class Checkpoints:
    """The folder ``checkpoints`` of a run, with ``last.safetensors`` (everything that training needs to go on) and
    ``best.safetensors``; ``resume_command`` is what to type to go on with it."""

    def __init__(self, folder: Path | str, resume_command: str | None = None) -> None:
        self.folder = Path(folder)
        self.resume_command = resume_command or command("train", "--resume", self.folder.parent)

    @property
    def last(self) -> Path:
        """Weights, optimiser and loop state at the last boundary, and the best weights."""
        return self.folder / "last.safetensors"

    @property
    def best(self) -> Path:
        """The best weights so far, named as in the model."""
        return self.folder / "best.safetensors"

    @contextlib.contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Turn the refusal of a disk to write ``what`` into a `RunError` that says how to go on."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{what} could not be written ({error.strerror or error}); the last checkpoint is intact. "
                f"Make room in {self.folder.parent} and go on with: {self.resume_command}"
            ) from error


def write(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors with ``state`` as JSON in the file's header.

    Raises:
        OSError: the disk refuses; the file is then what it was before.
    """
    # shared and strided tensors are written out in full
    plain = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(plain, temporary, {"state": json.dumps(state)})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def read(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state that `write` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    if not path.exists():
        raise InputError(f"no file {path}", "a checkpoint written by training", "start again with vaelid train DATA")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state = json.loads((file.metadata() or {}).get("state", "{}"))
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({error})",
            "a whole safetensors file",
            "copy the run folder again, or train again into another one",
        ) from error
    return tensors, state
