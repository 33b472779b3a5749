"""The command line: ``vaelid COMMAND …``. Exit codes: 0 done, 1 failed midway, 2 wrong input, 130 interrupted."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NoReturn

import torch
import typer

import vaelid
from vaelid.cli import evidence, faces, geometry, inspect, train, use
from vaelid.cli.mistakes import WRONG_PATH, check_command, usage
from vaelid.cli.output import complain
from vaelid.errors import InputError, Interrupted, RunError

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train.train,
    "evaluate": use.evaluate,
    "evidence": evidence.evidence,
    "encode": use.encode,
    "reconstruct": use.reconstruct,
    "sample": use.sample,
    "geodesic": geometry.geodesic,
    "map": geometry.map_,
    "distances": geometry.distances,
    "report": inspect.report,
    "info": inspect.info,
    "compare": inspect.compare,
    "lesson": faces.lesson,
    "studio": faces.studio,
}

app = typer.Typer(
    name="vaelid",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose interruptions, and whose reader's going away, do not reach Typer, which has ways of its own."""

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        try:
            command(**arguments)
        except KeyboardInterrupt as error:
            raise Interrupted(_last_words(error)) from error
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on, which is no mistake

    return run


for name, command in COMMANDS.items():
    app.command(name)(guarded(command))


@app.callback()
def front(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Variational autoencoders whose numbers hold. To start: vaelid train digits"""
    if version:
        print(f"vaelid {vaelid.__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; errors become one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows no ± shows a ?
    try:
        with _terminable():
            check_command(arguments, COMMANDS)
            code = app(arguments, standalone_mode=False)
            return code if isinstance(code, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except InputError as error:
        return complain(str(error), 2)
    except typer.TyperException as error:
        return complain(usage(error), 2)
    except RunError as error:
        return complain(str(error), 1)
    except (Interrupted, KeyboardInterrupt) as error:
        return complain(_last_words(error), 130)
    except (MemoryError, torch.OutOfMemoryError) as error:
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        return complain(f"out of memory{reason}; smaller batches need less: --set training.batch_size=32", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return complain(f"{where}{error.strerror or error}", 2 if error.errno in WRONG_PATH else 1)


def _last_words(error: BaseException | None) -> str:
    """What to say of an interruption: a second Ctrl-C does not swallow how to go on after the first."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return str(error or "interrupted")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM is Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


__all__ = ["app", "main"]
