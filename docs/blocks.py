"""Run the examples of a page and write what they print below them: ``python docs/blocks.py PAGE.md …``.

A ``python`` block is executed, all blocks of a page in one namespace; a ``text`` block right after it holds what it
printed. In a ``console`` block each line ``$ vaelid …`` is run and followed by what it printed on stdout, or by its
error. Pages are run in an empty folder. The tests run the same code and compare everything but the digits.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(python|text|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def printed(page: str) -> str:
    """The page with every example run, in the working folder, and what it printed written anew."""
    namespace: dict[str, Any] = {"__name__": "page"}
    output, end = "", -2

    def rewrite(match: re.Match[str]) -> str:
        nonlocal output, end
        kind, body = match.groups()
        if kind == "python":
            output, end = _captured(lambda: exec(compile(body, "<page>", "exec"), namespace)), match.end()
        elif kind == "console":
            body = "".join(_console(body))
        elif match.start() == end + 2:  # only an empty line between the two
            body = output
        return f"```{kind}\n{body}```"

    return FENCE.sub(rewrite, page)


def _console(body: str) -> Iterator[str]:
    for line in body.splitlines():
        if line.startswith("$ vaelid "):
            yield f"{line}\n{command(line.removeprefix('$ vaelid '))}"


def command(line: str) -> str:
    """What ``vaelid LINE`` prints: its stdout, or its one-line error."""
    from vaelid.cli import main

    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = main(shlex.split(line))
    text = out.getvalue() if code == 0 else out.getvalue() + error.getvalue().rpartition("\r")[2]
    return "".join(row.rstrip() + "\n" for row in text.splitlines())


def _captured(call: Callable[[], Any]) -> str:
    """What ``call`` prints on stdout; progress bars, on stderr, are dropped."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        call()
    return "".join(row.rstrip() + "\n" for row in out.getvalue().splitlines())


@contextlib.contextmanager
def empty_folder() -> Iterator[None]:
    """Work in an empty folder that is removed afterwards."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name).resolve()
        with empty_folder():
            text = printed(path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
