"""Arguments and flags that several commands share, and how a run is opened by one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from vaelid.errors import InputError, command
from vaelid.runs import Run


def whole(text: str | int) -> int:
    """A whole number as typed."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number") from None


def duration(text: str | float) -> float:
    """A time as typed, in seconds: ``90s``, ``10m``, ``1.5h``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", str(text).strip())
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not seconds:
        raise typer.BadParameter(f"{text!r} is no time such as 90s, 10m or 1h")
    return seconds


RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
Data = Annotated[str, typer.Argument(metavar="DATA", help="Built-in name (digits), file or folder.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing but errors and the result.")]
Device = Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1 or mps.")]


def opened(path: Path, device: str | None = None) -> Run:
    """The run at ``path``, on another device than its own if one is named.

    Raises:
        InputError: see `Run.open`.
    """
    if not path.exists() and is_run(Path("runs") / path):
        raise InputError(f"no run folder {path}", "a folder made by vaelid train", f"did you mean runs/{path}?")
    run = Run.open(path)
    if device is not None:
        run.config = run.config.model_copy(update={"device": device})
    return run


def in_order(run: Path, data: str, name: str) -> None:
    """Refuse DATA before RUN."""
    if not is_run(run) and is_run(Path(data)):
        raise InputError(
            f"{run} is no run folder, but {data} is", "RUN first, then DATA", f"type: {command(name, data, run)}"
        )


def is_run(path: Path) -> bool:
    """Whether there is a run folder, whole or not."""
    return (path / "config.toml").is_file()
