"""A progress bar over events."""

from __future__ import annotations

import contextlib

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vaelid.training.events import Compiled, EpochDone, Finished, RolledBack, Started, Stream


def watch(events: Stream, console: Console | None = None) -> Stream:
    """Pass events through while a bar on ``console`` (stderr by default) follows them."""
    console = console or Console(stderr=True)
    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with contextlib.closing(events), Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task("")
        for event in events:
            match event:
                case Started():
                    bar.update(task, total=event.epochs, completed=event.epoch)
                case Compiled(failure=failure) if failure:
                    bar.console.print(f"training runs uncompiled, which is slower: {failure}", markup=False)
                case EpochDone():
                    bound, rate = event.validation["bound"], event.validation["rate"]
                    text = f"validation bound {bound:.2f}, rate {rate:.2f} nats"
                    bar.update(task, completed=event.epoch, description=text)
                case RolledBack():
                    where = f"{event.tensor}" + (f", rows {event.rows[:5]}" if event.rows else "")
                    bar.console.print(
                        f"step {event.failed_step}: {event.reason} ({where}); "
                        f"back to step {event.step}, rate lowered to {event.learning_rate:.2g}",
                        markup=False,
                    )
                case Finished():
                    bar.update(task, total=event.epoch)
            yield event
