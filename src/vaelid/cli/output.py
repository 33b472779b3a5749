"""What commands print: words on stderr or stdout, one JSON object on stdout with ``--json``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing but errors and the result.")]
Seed = Annotated[int, typer.Option("--seed", help="Names every random number.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps.")]


@final
class Output:
    """Where a command's words go: with ``--json`` stdout is kept for the one JSON object."""

    def __init__(self, json_: bool, quiet: bool) -> None:
        self.json, self.quiet = json_, quiet
        self.words = Console(stderr=json_, quiet=quiet, highlight=False, soft_wrap=True)
        self.bars = Console(stderr=True, quiet=quiet)

    def say(self, text: str = "") -> None:
        """A line for the reader."""
        self.words.print(text, markup=False)

    def result(self, table: dict[str, Any], lines: list[str]) -> None:
        """The result: the table as JSON with ``--json``, the lines otherwise, even with ``--quiet``."""
        if self.json:
            print(json.dumps(plain(table)))
        else:
            for line in lines:
                print(line)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar on stderr; call what it gives with the number done."""
        columns = (TextColumn(what), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.bars, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.update(task, completed=done)


def complain(message: str, code: int) -> int:
    """One line on stderr, and the exit code back."""
    print(f"vaelid: {message}", file=sys.stderr)
    return code


def plain(value: Any) -> Any:
    """JSON has no NaN: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def scores(metrics: dict[str, Any], latent: int) -> list[str]:
    """The lines that say how good a model is."""

    def estimate(name: str) -> str:
        return f"{metrics[name]:10.2f} ± {metrics[f'{name}_se']:.2f}"

    return [
        f"  ELBO                    {estimate('elbo')} nats per row",
        f"  log p(x) at least       {estimate('iwae')} (importance-weighted bound, {metrics['samples']} samples)",
        f"  rate  KL(q ‖ prior)     {estimate('rate')}",
        f"  distortion              {estimate('distortion')}",
        f"  active units            {metrics['active_units']:7d} of {latent}",
    ]
