"""Checkpoints: tensors and the loop's state in one safetensors file each, written atomically, never pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaelid.errors import InputError
from vaelid.files import atomic


@final
class Checkpoints:
    """A folder with ``last.safetensors`` (everything that training needs to go on) and ``best.safetensors``."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def last(self) -> Path:
        """Weights, optimiser and loop state at the last boundary."""
        return self.folder / "last.safetensors"

    @property
    def best(self) -> Path:
        """Weights with the best validation bound so far."""
        return self.folder / "best.safetensors"


def write(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors with ``state`` as JSON in the file's header."""
    with atomic(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, {"state": json.dumps(state)})


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
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error})", "a whole safetensors file") from error
    return tensors, state
