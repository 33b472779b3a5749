"""Exceptions and their grammar: what was given, what is expected, what to do."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable


class VaelidError(Exception):
    """Base of every error that vaelid raises on purpose."""


class InputError(VaelidError, ValueError):
    """The input or the call is wrong; nothing was written. The command line exits with 2.

    ``InputError(given, expected, remedy)`` reads as one line: "given; expected …. remedy."
    """

    def __init__(self, given: str, expected: str = "", remedy: str = "") -> None:
        line = given
        if expected:
            line += f"; expected {expected}"
        if remedy:
            line += f". {remedy[0].upper()}{remedy[1:]}"
        super().__init__(line if line.endswith("?") else line.rstrip(".") + ".")


class InputTypeError(InputError, TypeError):
    """An argument has a type that vaelid cannot use."""


class RunError(VaelidError, RuntimeError):
    """The run failed in the middle; its state is saved and the message says how to go on. Exit code 1."""


class Interrupted(VaelidError):
    """Ctrl-C or SIGTERM; the state is saved. Exit code 130."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the known name closest to ``name``, else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(names)


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, on one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def command(*words: object) -> str:
    """A command as one types it: ``command("info", path)`` is ``vaelid info 'my run'``."""
    return shlex.join(["vaelid", *map(str, words)])


def some(rows: Iterable[int], limit: int = 5) -> str:
    """``row 3`` or ``rows 1, 4, 9 and 12 more``: row numbers for an error message."""
    numbers = [int(row) for row in rows]
    shown = ", ".join(str(row) for row in numbers[:limit])
    rest = len(numbers) - limit
    return f"row{'s' if len(numbers) != 1 else ''} {shown}" + (f" and {rest} more" if rest > 0 else "")
