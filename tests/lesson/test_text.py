"""The lessons' words, and the recordings that go with them."""

from __future__ import annotations

import json
import re
from importlib.resources import as_file
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from vaelid.errors import InputError
from vaelid.lesson import text

GEOMETRY = "geometry-of-latent-spaces"
FIGURES = ["belief", "approximation", "bar", "betas", "gradients", "plane"]
GREEK = r"[Α-Ωα-ωϵϕϑ]"


@pytest.fixture(scope="module")
def lesson() -> dict[str, Any]:
    return text.lesson(GEOMETRY)


def sentences(lesson: dict[str, Any]) -> list[dict[str, Any]]:
    return [sentence for paragraph in lesson["paragraphs"] for sentence in paragraph["sentences"]]


def test_the_page_of_lessons() -> None:
    (entry,) = text.lessons()["lessons"]
    assert entry["id"] == GEOMETRY
    assert entry["title"] == "The Geometry of Latent Spaces: Bayesian Inference and the VAE"
    assert entry["paragraphs"] == 6
    assert 5 <= entry["minutes"] <= 9
    assert entry["summary"]


def test_six_paragraphs_each_with_its_figure(lesson: dict[str, Any]) -> None:
    assert [paragraph["figure"] for paragraph in lesson["paragraphs"]] == FIGURES
    assert len({paragraph["title"] for paragraph in lesson["paragraphs"]}) == 6


def test_an_unknown_lesson_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=f"Did you mean '{GEOMETRY}'"):
        text.lesson("geometry-of-latent-space")
    with pytest.raises(InputError, match="no lesson"):
        text.lesson("../geometry-of-latent-spaces")


@pytest.mark.parametrize(
    ("figure", "formulas"),
    [
        ("belief", [r"p(\theta \mid x)", r"\int"]),
        ("approximation", [r"\mathcal{N}", r"\mathrm{KL}"]),
        ("bar", [r"\log p(x) =", r"\mathrm{ELBO} ="]),
        ("betas", [r"\mathrm{ELBO} =", r"\beta"]),
        ("gradients", [r"\nabla_\phi", r"\odot \varepsilon"]),
        ("plane", [r"\hat{x}", r"z \sim p(z)"]),
    ],
)
def test_every_paragraph_has_its_formulas(lesson: dict[str, Any], figure: str, formulas: list[str]) -> None:
    paragraph = lesson["paragraphs"][FIGURES.index(figure)]
    shown = [sentence["text"] for sentence in paragraph["sentences"] if sentence["tex"]]
    assert len(shown) == len(formulas)
    assert all(part in formula for part, formula in zip(formulas, shown, strict=True))


def test_what_is_spoken_is_words(lesson: dict[str, Any]) -> None:
    for sentence in sentences(lesson):
        say = sentence["say"]
        assert not re.search(rf"[\d$\\_^{{}}=+|<>()]|{GREEK}", say), say
        assert 6 <= len(say.split()) <= 25, say
        assert re.match(r"[A-Z]|[qxz] ", say), say
        assert say[-1] in ".:?", say


def test_formulas_and_inline_tex_are_whole(lesson: dict[str, Any]) -> None:
    for sentence in sentences(lesson):
        shown = sentence["text"]
        parts = [shown] if sentence["tex"] else shown.split("$")[1::2]
        assert sentence["tex"] or shown.count("$") % 2 == 0
        for part in parts:
            assert part.strip(), shown
            assert (part.count("{"), part.count("(")) == (part.count("}"), part.count(")")), shown
        if parts:
            assert sentence["say"] != shown
        else:
            assert sentence["say"] == shown


def test_shown_and_spoken_words_agree(lesson: dict[str, Any]) -> None:
    """Outside the TeX, what is read is what is shown."""
    for sentence in sentences(lesson):
        if not sentence["tex"]:
            words = [part.strip() for part in sentence["text"].split("$")[::2] if part.strip()]
            pattern = ".*?".join(re.escape(part) for part in words)
            assert re.fullmatch(rf".*?{pattern}.*?", sentence["say"]), sentence["text"]


def test_no_paragraph_is_long(lesson: dict[str, Any]) -> None:
    for paragraph in lesson["paragraphs"]:
        assert 130 <= sum(len(sentence["say"].split()) for sentence in paragraph["sentences"]) <= 220
        assert paragraph["seconds"] < 90


def test_every_figure_is_pointed_at(lesson: dict[str, Any]) -> None:
    asks = re.compile(r"^(Pick|Drag|Move|Step|Choose|Sample|Then compare)\b")
    for paragraph in lesson["paragraphs"]:
        assert any(asks.match(sentence["text"]) for sentence in paragraph["sentences"]), paragraph["title"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"text": "A lone $x stands here."}, "pairs"),
        ({"text": "$x$", "tex": True, "say": "x"}, "pairs"),
        ({"text": r"p(x)", "tex": True}, "no words of its own"),
        ({"text": "Here is $x$."}, "cannot be read aloud"),
        ({"text": "There are 7 of them."}, "cannot be read aloud"),
        ({"text": "Here is θ."}, "cannot be read aloud"),
        ({"text": "Fine.", "says": "Fine."}, "says"),
        ({"text": ""}, "text"),
    ],
)
def test_words_that_cannot_be_shown_or_read_are_refused(broken: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        text.Sentence.model_validate(broken)


def test_the_lesson_is_recorded(lesson: dict[str, Any]) -> None:
    """Fails when spoken words changed and nobody recorded them anew: python web/narration/render.py."""
    assert lesson["audio"]
    size = 0
    for number, paragraph in enumerate(lesson["paragraphs"], start=1):
        with as_file(text.recordings() / f"{GEOMETRY}-{number}.mp3") as file:
            content = file.read_bytes()
        size += len(content)
        assert int.from_bytes(content[:2], "big") >> 5 == 0x7FF, "begins with a frame: nothing to shift a seek"
        assert len(content) * 8 / 48_000 == pytest.approx(paragraph["seconds"], abs=0.15)
    assert size < 4_000_000


def test_cues_follow_one_another_within_the_recording(lesson: dict[str, Any]) -> None:
    for paragraph in lesson["paragraphs"]:
        times = [(sentence["start"], sentence["end"]) for sentence in paragraph["sentences"]]
        assert all(start < end for start, end in times)
        gaps = [after[0] - before[1] for before, after in pairwise(times)]
        for gap, (before, after) in zip(gaps, pairwise(paragraph["sentences"]), strict=True):
            assert gap == pytest.approx(0.6 if before["tex"] or after["tex"] else 0.35, abs=0.002)
        assert times[0][0] > 0
        assert times[-1][1] < paragraph["seconds"]


def test_a_recording_of_other_words_is_not_played(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    cues = json.loads((text.recordings() / "cues.json").read_text(encoding="utf-8"))
    for number in range(1, 7):
        (tmp_path / f"{GEOMETRY}-{number}.mp3").touch()
    monkeypatch.setattr(text, "recordings", lambda: tmp_path)

    def audio() -> bool:
        lesson = text.lesson(GEOMETRY)
        timed = [sentence["start"] is not None for sentence in sentences(lesson)]
        assert all(timed) if lesson["audio"] else not any(timed)
        return bool(lesson["audio"])

    assert not audio()
    assert text.lessons()["lessons"][0]["minutes"] == 7
    (tmp_path / "cues.json").write_text(json.dumps(cues), encoding="utf-8")
    assert audio()
    cues[GEOMETRY][3]["digest"] = "0" * 16
    (tmp_path / "cues.json").write_text(json.dumps(cues), encoding="utf-8")
    assert not audio()
    (tmp_path / "cues.json").write_text(json.dumps({}), encoding="utf-8")
    assert not audio()
    (tmp_path / f"{GEOMETRY}-6.mp3").unlink()
    assert not audio()
