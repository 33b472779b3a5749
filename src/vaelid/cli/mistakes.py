"""Calls that make no sense, as one line: what was given, what is expected, what was probably meant."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence

import typer

from vaelid.errors import InputError, nearest
from vaelid.runs import known_keys

WRONG_PATH = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


def check_command(arguments: Sequence[str], commands: Iterable[str]) -> None:
    """Refuse a first word that is no command.

    Raises:
        InputError: it is none; the nearest one is named.
    """
    first = arguments[0] if arguments else "-"
    if not first.startswith("-") and first not in commands:
        raise InputError(f"no command {first!r}", "a command of vaelid", nearest(first, commands))


def usage(error: typer.TyperException) -> str:
    """One line for a call that Typer refuses."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)  # errors of usage know where they happened
    if context is None:
        return message
    if type(error).__name__ != "NoSuchOption":
        return f"{message}. See: {context.command_path} --help"
    option = str(getattr(error, "option_name", message))
    if context.parent is None:
        return str(
            InputError(f"unknown option {option}", "a command first", "options follow it: vaelid train digits --quiet")
        )
    known = {name: name for parameter in context.command.params for name in parameter.opts if name.startswith("-")}
    if "--set" in known:
        keys = {f"--{key.rpartition('.')[2].replace('_', '-')}": f"--set {key}=VALUE" for key in known_keys()}
        known = keys | known
    close = difflib.get_close_matches(option, known, n=1, cutoff=0.7)
    remedy = f"did you mean {known[close[0]]}?" if close else f"see: {context.command_path} --help"
    return str(InputError(f"unknown option {option}", f"one that {context.command_path} has", remedy))
