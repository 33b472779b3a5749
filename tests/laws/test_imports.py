"""Imports go strictly down, from the faces to the ground."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vaelid

ROOT = Path(vaelid.__file__).parent

# From the ground up. What stands on one line does not import its neighbours, except where the line below says so;
# a room (a folder) is one name, and what it does inside is its own affair.
FLOORS: list[list[str]] = [
    ["errors", "types", "random", "files"],
    ["parts", "checks"],
    ["distributions", "networks"],
    ["transports"],
    ["priors", "likelihoods", "posteriors", "quantizers"],
    ["fitted"],
    ["model", "hierarchy"],
    ["wrapping"],
    ["objectives", "evidence", "geometry", "diagnostics"],
    ["data"],
    ["training"],
    ["runs"],
    ["tasks", "interop", "recipes"],
    ["report", "serving"],
    ["studio", "lesson"],
    ["cli"],
    ["__main__"],
]
SIDEWAYS = {("evidence", "objectives"), ("diagnostics", "evidence"), ("lesson", "studio")}
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
MODULES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    """The name on its floor of a file of the package; "" is the package's own front door."""
    first = path.relative_to(ROOT).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported(source: str) -> set[str]:
    """Rooms that a file imports, wherever the statement stands; ``vaelid.x`` counts after a bare ``import vaelid``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                dotted = [alias.name.split(".") for alias in names]
                found |= {name[1] for name in dotted if name[0] == "vaelid" and len(name) > 1}
            case ast.ImportFrom(module="vaelid", level=0, names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), level=0) if module.startswith("vaelid."):
                found.add(module.split(".")[1])
            case ast.ImportFrom(level=level) if level:
                found.add("a relative import")
            case ast.Attribute(value=ast.Name(id="vaelid"), attr=name):
                found.add(name)
    return found - {"__version__"}


def offences(here: str, source: str) -> list[str]:
    """Imports of a file in room ``here`` that do not go down."""
    found = imported(source) - {here}
    if here == "":
        return []  # the front door shows what is in the house
    return [
        f"{here} imports {there}"
        for there in sorted(found)
        if LEVEL.get(there, len(FLOORS)) >= LEVEL[here] and (here, there) not in SIDEWAYS
    ]


def test_every_module_has_a_floor() -> None:
    assert {room(path) for path in MODULES} - {""} <= LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down(path: Path) -> None:
    assert offences(room(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize(
    ("here", "source", "wrong"),
    [
        ("errors", "from vaelid.types import Batch", ["errors imports types"]),
        ("model", "from vaelid import checks, training", ["model imports training"]),
        ("model", "from vaelid import __version__", []),
        ("likelihoods", "from vaelid.posteriors import x", ["likelihoods imports posteriors"]),
        ("objectives", "def f():\n    import vaelid.evidence.importance", ["objectives imports evidence"]),
        ("evidence", "from vaelid.objectives.elbo import ELBO", []),
        ("evidence", "from vaelid.diagnostics import x", ["evidence imports diagnostics"]),
        ("training", "import vaelid\nvaelid.runs.start", ["training imports runs"]),
        ("runs", "import vaelid\nprint(vaelid.__version__)", []),
        ("runs", "import vaelid\nvaelid.fit()", ["runs imports fit"]),
        ("data", "from .rows import Rows", ["data imports a relative import"]),
        ("cli", "from vaelid.cli import output\nfrom vaelid import report, runs", []),
    ],
)
def test_the_test_sees(here: str, source: str, wrong: list[str]) -> None:
    assert offences(here, source) == wrong
