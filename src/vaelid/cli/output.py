"""What commands print: words on stdout, progress and warnings on stderr, one JSON object on stdout with ``--json``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@final
class Output:
    """Where a command's words go.

    With ``json_`` stdout is kept for the one JSON object; with ``keep_stdout`` for a result of another kind. With
    ``quiet`` there are no words, warnings and bars at all.
    """

    def __init__(self, json_: bool, quiet: bool, *, keep_stdout: bool = False) -> None:
        self.json = json_
        self.words = Console(stderr=json_ or keep_stdout, quiet=quiet, highlight=False, soft_wrap=True)
        self.bars = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """A line for the reader."""
        self.words.print(text, markup=False)

    def warn(self, text: str) -> None:
        """A line for the reader, on stderr."""
        self.bars.print(text, markup=False)

    def result(self, table: dict[str, Any], lines: list[str]) -> None:
        """The result: the table as JSON with ``--json``, the lines otherwise, even with ``--quiet``."""
        if self.json:
            print(json.dumps(plain(table)))
        else:
            print("\n".join(lines))
        sys.stdout.flush()

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar on stderr, if that is a terminal; call what it gives with the number done."""
        if not self.bars.is_terminal:
            yield lambda done: None
            return
        columns = (TextColumn(what), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.bars, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.update(task, completed=done)

    @contextmanager
    def stages(self) -> Iterator[Callable[[str, int, int], None]]:
        """A progress bar for work in several stages; call what it gives with the stage, the number done and of how
        many.
        """
        if not self.bars.is_terminal:
            yield lambda stage, done, total: None
            return
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.bars, transient=True) as progress:
            task = progress.add_task("a first look", total=None)
            yield lambda stage, done, total: progress.update(task, description=stage, completed=done, total=total)


def complain(message: str, code: int) -> int:
    """One line on stderr, and the exit code back."""
    print("vaelid:", " ".join(message.splitlines()), file=sys.stderr)
    return code


def plain(value: Any) -> Any:
    """JSON has no NaN: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float | None, decimals: int = 2, width: int = 0) -> str:
    """The value, or ``n/a`` where there is no finite one."""
    text = "n/a" if value is None or not math.isfinite(value) else f"{value:.{decimals}f}"
    return f"{text:>{width}}"


def scores(metrics: dict[str, Any], latent: int | None, conditional: bool) -> list[str]:
    """The lines that say how good a model is; log p(x | c) for one that is given covariates c."""

    def estimate(name: str) -> str:
        return f"{metrics[name]:10.2f} ± {metrics[f'{name}_se']:.2f}"

    of = f" of {latent}" if latent is not None else ""
    evidence = f"log p(x{' | c' if conditional else ''})"
    bound = f"{evidence} at least"
    lines = [
        f"  ELBO                    {estimate('elbo')} nats per row",
        f"  {bound:22}  {estimate('iwae')} (importance-weighted bound, {metrics['samples']} samples)",
        f"  rate  KL(q ‖ prior)     {estimate('rate')}",
        f"  distortion              {estimate('distortion')}",
        f"  active units            {metrics['active_units']:7d}{of}",
    ]
    if found := metrics.get("evidence"):
        lower, upper = (f"{number(found[side])} ± {number(found[f'{side}_data_se'])}" for side in ("lower", "upper"))
        cost = f"{found['rows']:,} rows, {found['rows_with_warnings']:,} with a warning, {found['seconds']:.1f} s"
        lines.append(f"  {evidence + ' between':24}{lower:>17} and {upper} ({found['upper_kind']}), {cost}")
    return lines
