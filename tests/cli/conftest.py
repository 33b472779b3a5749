"""Commands as a user types them: in an empty folder, in this process or in one of their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vaelid
from vaelid.cli import main

FEW = ("--epochs", 2, "--set", "evaluation.samples=20", "--set", "evaluation.evidence=0")


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        return json.loads(self.out)


def _call(*words: object) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Answer(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def call():
    """``call("info", run)`` is ``vaelid info RUN`` in this process."""
    return _call


@pytest.fixture(scope="session")
def spawn():
    """``spawn("info", run, cwd=folder)`` is ``python -m vaelid info RUN`` in a process of its own."""
    source = str(Path(vaelid.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}

    def start(*words: object, cwd: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "vaelid", *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)

    return start


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def numbers():
    """Real numbers with a common cause, (40, 3), recorded to three decimals."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 1)) @ rng.normal(size=(1, 3)) + 0.3 * rng.normal(size=(40, 3))
    return x.round(3)


@pytest.fixture(scope="session")
def table(numbers):
    """The text of a table: columns a, b and c, and the labels kind."""
    rows = [",".join(map(str, row)) + f",{('left', 'right')[index % 2]}" for index, row in enumerate(numbers.tolist())]
    return "\n".join(["a,b,c,kind", *rows]) + "\n"


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run on digits of two epochs, in a folder whose name holds a blank; not to be changed."""
    path = tmp_path_factory.mktemp("session") / "digits run"
    answer = _call("train", "digits", "--out", path, *FEW)
    assert answer.code == 0, answer.err
    return path


@pytest.fixture(scope="session")
def table_run(tmp_path_factory, table):
    """A run on a table with labels, and the table's file; not to be changed."""
    folder = tmp_path_factory.mktemp("session")
    source, path = folder / "my table.csv", folder / "run"
    source.write_text(table)
    answer = _call("train", source, "--label", "kind", "--out", path, *FEW)
    assert answer.code == 0, answer.err
    return path, source
