r"""The words of the lessons, and when each sentence is spoken.

A lesson is a TOML file beside this module: ``title``, ``summary`` and paragraphs of sentences. ``text`` is shown and
may hold TeX between ``$…$`` (with ``tex = true`` it is one displayed formula); ``say`` is what a voice reads and a
caption shows, given where it differs. ``cues.json`` beside the recordings says when each sentence begins and ends.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vaelid.errors import InputError, nearest

WORDS_PER_MINUTE = 170
"""How fast the captions run where there is no recording."""

Words = Annotated[str, Field(min_length=1)]


class Sentence(BaseModel):
    """One sentence or displayed formula.

    Raises a ``ValueError`` (pydantic's) where TeX is unbalanced or would be read aloud.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Words
    say: str = ""
    tex: bool = False

    @property
    def spoken(self) -> str:
        """What a voice reads: words only."""
        return self.say or self.text

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.text.count("$") % 2 or (self.tex and "$" in self.text):
            raise ValueError(f"the $ of {self.text!r} are not in pairs around inline TeX")
        if self.tex and not self.say:
            raise ValueError(f"the formula {self.text!r} has no words of its own; give it say = '…'")
        if odd := sorted(set(re.findall(r"[^\w\s.,:;?’'–-]|[\d_]|[^\W\d_a-zA-Z]", self.spoken))):
            raise ValueError(f"{self.spoken!r} cannot be read aloud as it is, for {' '.join(odd)}; write words in say")
        return self


class Paragraph(BaseModel):
    """Sentences beside one live figure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Words
    figure: Literal["belief", "approximation", "bar", "betas", "gradients", "plane"]
    sentence: Annotated[tuple[Sentence, ...], Field(min_length=1)]

    @property
    def digest(self) -> str:
        """A short fingerprint of the spoken words, by which a recording of other words is known."""
        return hashlib.sha256("\n".join(s.spoken for s in self.sentence).encode()).hexdigest()[:16]


class Lesson(BaseModel):
    """A lesson as its file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Words
    summary: Words
    paragraph: Annotated[tuple[Paragraph, ...], Field(min_length=1)]


class Cues(BaseModel):
    """When a paragraph's sentences are spoken, in seconds of its recording."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    digest: str
    seconds: float
    sentences: tuple[tuple[float, float], ...]


def lessons() -> dict[str, Any]:
    """Every lesson in short: ``{lessons: [{id, title, summary, paragraphs, minutes}]}``, ``paragraphs`` a number."""
    return {
        "lessons": [
            {
                "id": name,
                "title": text.title,
                "summary": text.summary,
                "paragraphs": len(text.paragraph),
                "minutes": _minutes(text, _cues(name)),
            }
            for name, text in texts().items()
        ]
    }


def lesson(name: str) -> dict[str, Any]:
    """One lesson in full, with the times of its sentences where all of it has been recorded.

    ``{id, title, audio, paragraphs: [{title, figure, seconds, sentences: [{text, say, tex, start, end}]}]}``. Without
    recordings, or with recordings of other words, ``audio`` is False and ``seconds``, ``start``, ``end`` are None.

    Raises:
        InputError: There is no lesson of that name.
    """
    known = texts()
    if name not in known:
        raise InputError(f"there is no lesson {name!r}", remedy=nearest(name, known))
    text, cues = known[name], _cues(name)
    return {
        "id": name,
        "title": text.title,
        "audio": cues is not None,
        "paragraphs": [
            _paragraph(paragraph, cues[number] if cues is not None else None)
            for number, paragraph in enumerate(text.paragraph)
        ],
    }


@functools.cache
def texts() -> dict[str, Lesson]:
    """The lessons by their names, each read and checked: ``geometry-of-latent-spaces`` → :class:`Lesson`."""
    folder = resources.files(__package__)
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {
        file.name.removesuffix(".toml").replace("_", "-"): Lesson.model_validate(
            tomllib.loads(file.read_text(encoding="utf-8"))
        )
        for file in files
    }


def recordings() -> Traversable:
    """The folder of recordings: ``<lesson>-<n>.mp3`` for paragraph n, from 1, and ``cues.json``."""
    return resources.files("vaelid") / "serving" / "assets" / "audio"


def _cues(name: str) -> tuple[Cues, ...] | None:
    """The cues of a lesson, or None unless every paragraph has been recorded in its present words."""
    file, paragraphs = recordings() / "cues.json", texts()[name].paragraph
    if not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8")).get(name, [])
    cues = tuple(Cues.model_validate(entry) for entry in found)
    whole = [cue.digest for cue in cues] == [paragraph.digest for paragraph in paragraphs]
    there = all((recordings() / f"{name}-{n}.mp3").is_file() for n in range(1, len(paragraphs) + 1))
    return cues if whole and there else None


def _paragraph(paragraph: Paragraph, cues: Cues | None) -> dict[str, Any]:
    times: Iterable[tuple[float | None, float | None]] = (
        cues.sentences if cues is not None else [(None, None)] * len(paragraph.sentence)
    )
    return {
        "title": paragraph.title,
        "figure": paragraph.figure,
        "seconds": None if cues is None else cues.seconds,
        "sentences": [
            {"text": sentence.text, "say": sentence.spoken, "tex": sentence.tex, "start": start, "end": end}
            for sentence, (start, end) in zip(paragraph.sentence, times, strict=True)
        ],
    }


def _minutes(text: Lesson, cues: tuple[Cues, ...] | None) -> int:
    if cues is not None:
        return max(1, round(sum(cue.seconds for cue in cues) / 60))
    words = sum(len(sentence.spoken.split()) for paragraph in text.paragraph for sentence in paragraph.sentence)
    return max(1, round(words / WORDS_PER_MINUTE))
