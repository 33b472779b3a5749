"""The pages tell the truth: examples run, links lead somewhere, formulas name functions, no flag or key is left out."""

import dataclasses
import importlib
import importlib.util
import json
import re
from pathlib import Path

import pytest
import typer

import vaelid
from vaelid.cli import app, main
from vaelid.data import ENDINGS, LIKELIHOODS
from vaelid.evidence import optimised
from vaelid.runs import Config, known_keys

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "vaelid"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
LINES = {
    "pip install -c constraints.txt . && vaelid train digits",
    "pip install -c constraints.txt '.[test]' && pytest",
}
FEW = "--set evaluation.evidence=8"  # rows whose log p(x) is bracketed after training, in place of all

spec = importlib.util.spec_from_file_location("blocks", DOCS / "blocks.py")
assert spec is not None
assert spec.loader is not None
blocks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(blocks)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def form(text: str) -> str:
    """Text with numbers replaced and blanks closed up: digits may differ between processors, words may not.

    Why training ended is a matter of digits as well.
    """
    text = re.sub(r"^trained for .*$", "trained", text, flags=re.MULTILINE)
    return re.sub(r"[ \t]+", " ", re.sub(r"[-+]?\d[\d,.]*", "#", text))


def in_short(text: str) -> str:
    """The page with runs that take less long and print the same but for digits."""

    def shorter(match: re.Match[str]) -> str:
        line = re.sub(r" --epochs \d+", "", match[0])
        few = "" if match[1] == "scans" else f" {FEW}"  # of images no row is bracketed by default
        return f"{line} --epochs 1{few}"

    return re.sub(r"^\$ vaelid train (digits|scans|\S+\.csv)\b.*$", shorter, text, flags=re.MULTILINE)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An empty folder in which ``vaelid train digits`` was run in short."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        blocks.command(f"train digits --epochs 1 {FEW}")
    return folder


# -- examples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if blocks.FENCE.search(read(page))], ids=name)
def test_examples_print_what_the_page_says(page):
    text = in_short(read(page))
    with blocks.empty_folder():
        assert form(blocks.printed(text)) == form(text)


def test_readme_holds_the_two_lines():
    found = re.findall(r"pip install -c constraints\.txt [^`\n]*", read(ROOT / "README.md"))
    assert set(found) == LINES
    for line in LINES:
        assert f"\n{line}\n" in read(ROOT / "README.md")


# -- links -------------------------------------------------------------------------------------------------------------


def links(page: Path) -> list[tuple[str, str]]:
    """(text, target) of the page's links that stay inside the project."""
    prose = re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", prose)
    return [(text, target) for text, target in found if not target.startswith(("http://", "https://"))]


def anchors(page: Path) -> set[str]:
    """The anchors that the page's headings get."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for text, target in links(page):
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"[{text}]({target})"
        if anchor:
            assert anchor in anchors(place), f"[{text}]({target})"


def functions() -> list[tuple[str, str]]:
    found = [(text, target) for text, target in links(DOCS / "mathematics.md") if target.endswith(".py")]
    return sorted({(text.strip("`"), target) for text, target in found})


def test_mathematics_links_many_functions():
    assert len(functions()) > 40


@pytest.mark.parametrize(("text", "target"), functions())
def test_formula_names_an_attribute_of_the_linked_file(text, target):
    file = (DOCS / target).resolve().relative_to(SOURCE)
    module = importlib.import_module(".".join(("vaelid", *file.with_suffix("").parts)))
    value, home = vaelid, None
    for part in text.split("."):
        field = dataclasses.is_dataclass(value) and part in {field.name for field in dataclasses.fields(value)}
        assert field or hasattr(value, part), f"{text}: no {part}"
        value = None if field else getattr(value, part)
        if home is None and isinstance(value, type | type(form)):
            home = value.__module__
    # what is no class and no function, such as a constant, must at least be found in that file under its name
    assert home == module.__name__ or (home is None and hasattr(module, text.rpartition(".")[2]))


# -- completeness ------------------------------------------------------------------------------------------------------


def sections(page: Path) -> dict[str, str]:
    """The text below each heading of the second rank."""
    parts = re.split(r"^## (.+)$", read(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMON = ("--json", "--quiet", "--device")


def section_of(command: str) -> str:
    found = [body for title, body in sections(DOCS / "cli.md").items() if command in title.split(", ")]
    assert len(found) == 1, command
    return found[0]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_command_line_page_has_every_flag(command):
    body = section_of(command)
    flags = [parameter.opts[0] for parameter in COMMANDS[command].params if parameter.opts[0].startswith("-")]
    assert {flag for flag in flags if flag not in COMMON and f"| `{flag}" not in body} == set()
    assert set(re.findall(r"^\| `(--?[\w-]+)", body, re.MULTILINE)) <= set(flags)
    assert ("--device" in flags) == (command not in ("info", "compare"))
    assert all(f"| `{flag}" in read(DOCS / "cli.md") for flag in COMMON)


@pytest.mark.parametrize(
    "line",
    [
        "train --resume runs/digits-001 --epochs 2",
        "evaluate runs/digits-001 --samples 2",
        "evidence runs/digits-001 --rows 4 --gaps",
        "encode runs/digits-001 digits",
        "reconstruct runs/digits-001 digits",
        "sample runs/digits-001 -n 2",
        "geodesic runs/digits-001 --from 0 --to 1",
        "map runs/digits-001",
        "distances runs/digits-001 --rows 3",
        "report runs/digits-001",
        "info runs/digits-001",
        "compare runs/digits-001",
    ],
)
def test_command_line_page_has_every_key_of_the_json(line, trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    climb = optimised.climb
    # only the names of the numbers are looked at: 20 steps in place of 300 for each q*
    monkeypatch.setattr(optimised, "climb", lambda *given: climb(*given[:4], 20, given[5]))
    assert main([*line.split(), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    body = section_of(line.split()[0])
    assert {key for key in table if not key.endswith("_se") and f"`{key}`" not in body} == set()
    assert all(re.sub("(_mc|_data)?_se$", "", key) in table for key in table if key.endswith("_se"))


def settings() -> list[str]:
    """The rows of the table of settings, from the descriptions in the code."""
    rows = []
    for key in known_keys():
        section, _, last = key.rpartition(".")
        field = (type(getattr(Config(), section)) if section else Config).model_fields[last]
        default = "" if field.default in (None, "") else f"`{json.dumps(field.default)}`"
        rows.append(f"| `{key}` | {default} | {field.description} |")
    return rows


def test_command_line_page_has_every_key_of_the_configuration():
    body = sections(DOCS / "cli.md")["config.toml"]
    assert [row for row in body.splitlines() if row.startswith("| `")] == settings()


def test_data_page_has_every_likelihood_and_ending():
    page = read(DOCS / "data.md")
    assert all(f"| `{likelihood}` | {what}" in page for likelihood, what in LIKELIHOODS.items())
    assert all(f"`{ending}`" in page for ending in ENDINGS)


def test_runs_page_has_every_file_of_a_run(trained):
    run = trained / "runs" / "digits-001"
    files = [file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert {file for file in files if f"| `{file}` |" not in read(DOCS / "runs.md")} == set()


def test_architecture_has_every_room():
    page = read(DOCS / "architecture.md")
    rooms = [path.name + "/" * path.is_dir() for path in SOURCE.iterdir() if not path.name.startswith(("_", "."))]
    assert {room for room in rooms if room != "py.typed" and f"`{room}`" not in page} == set()
