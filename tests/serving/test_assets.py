"""What is installed is all there: the built pages, the narration, the lesson's model."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import vaelid

HERE = Path(vaelid.__file__).parent
SOURCE = Path(__file__).parents[2] / "src" / "vaelid"
FOLDERS = ("serving/assets", "lesson")


def files(root: Path) -> dict[str, str]:
    """Names and SHA-256 of the files that are no code."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }


def test_the_installed_package_holds_every_asset() -> None:
    found = files(HERE)
    assert {"serving/assets/app.js", "serving/assets/app.css", "serving/assets/LICENSES.txt"} <= found.keys()
    assert "serving/assets/audio/cues.json" in found
    assert "lesson/model/model.safetensors" in found
    if not SOURCE.is_dir():
        pytest.skip("the sources are not beside the tests: nothing to compare the installed package with")
    assert found == files(SOURCE)


def test_the_pages_name_no_other_host() -> None:
    """Addresses of standards, which nobody fetches, are all there is."""
    for name in ("app.js", "app.css"):
        text = (HERE / "serving" / "assets" / name).read_text(encoding="utf-8")
        hosts = set(re.findall(r"https?://([\w.-]+)", text))
        assert hosts <= {"www.w3.org", "katex.org"}, name
