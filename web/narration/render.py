"""Record the lessons: ``python web/narration/render.py [--voice hts]``, run by hand whenever spoken words change.

Each sentence is read into a WAV file of its own, checked, and joined to its paragraph with measured pauses, so that
the time of each sentence is a sum of lengths and no guess. Per paragraph one MP3 of constant bit rate and without a
table of contents is written (players then seek in it exactly) and decoded again to see that the times hold; the times
of a lesson go to ``cues.json``. Needs Debian's flite, festival, festvox-us-slt-hts and ffmpeg; nothing is downloaded.

The voice is ``hts``: the CMU ARCTIC speaker slt as a statistical model, spoken by festival. By ``compare.py`` over the
75 sentences of the first lesson a recogniser mishears fewest of its words (29 %, the others 41 to 46 %), it is the
only one made at 32 kHz (the others have 16), its time is spread most evenly over syllables, and nothing clips. Its
pitch moves by 1.6 semitones: more than flite's slt (1.1), less than rms and awb (2.1, 2.0). None was judged by ear.
The voice is Carnegie Mellon University's and free: its licence grants use, copying, modification and licensing without
fee, as long as the notice stays with the voice itself. No part of the voice is shipped; the words are the project's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sound
import voices
from sound import Recording

from vaelid.lesson.text import Lesson, Paragraph, texts

AUDIO = Path(__file__).parents[2] / "src/vaelid/serving/assets/audio"

STRETCH = 1.1  # a little slower than the voice's own pace
OPENING, BETWEEN, FORMULA, CLOSING = 0.25, 0.35, 0.6, 0.8  # pauses in seconds
LEVEL, PEAK = -20.0, 0.89  # dB of full scale for speech, and what no sample may exceed
BIT_RATE = 48  # kbit/s, constant
LONGEST = 90.0  # seconds of a paragraph
PER_SYLLABLE = (0.12, 0.45)  # seconds; shorter is cut off or garbled, longer is stuck
SLACK = 0.1  # seconds an MP3 may be longer than what went into it: the codec's delay and last frame


def render(name: str, lesson: Lesson, voice: str, folder: Path) -> list[dict[str, Any]]:
    """Record a lesson; returns its cues, a dictionary per paragraph."""
    cues = []
    for number, paragraph in enumerate(lesson.paragraph, start=1):
        whole, times = joined(paragraph, sentences(paragraph, voice, folder / f"{name}-{number}"))
        if whole.seconds >= LONGEST:
            raise SystemExit(
                f"{name}, paragraph {number} lasts {whole.seconds:.1f} s; at most {LONGEST:.0f} are heard out"
            )
        target = AUDIO / f"{name}-{number}.mp3"
        encode(whole, target, folder)
        agree(target, whole, times)
        print(f"{target.name}: {whole.seconds:5.1f} s, {len(times)} sentences, {target.stat().st_size / 1000:.0f} kB")
        cues.append({"digest": paragraph.digest, "seconds": round(whole.seconds, 3), "sentences": times})
    return cues


def sentences(paragraph: Paragraph, voice: str, folder: Path) -> list[Recording]:
    """Every sentence of a paragraph, read, checked and trimmed."""
    spoken = [sentence.spoken for sentence in paragraph.sentence]
    files = voices.speak(voice, spoken, folder, STRETCH)
    return [checked(words, sound.read(file)) for words, file in zip(spoken, files, strict=True)]


def checked(words: str, recording: Recording) -> Recording:
    """The speech of a recording without the silence around it, if it is whole as far as can be measured."""
    _, _, within = sound.silence(recording)
    speech = sound.trimmed(recording)
    pace = speech.seconds / sound.syllables(voices.spelled(words))
    faults = {
        "is cut off at its end": sound.ending(recording) > 0.12,
        "clips": sound.clipped(recording) > 0,
        "is too quiet": sound.speech_level(recording) < -40,
        "has a hole": within > 0.6,
        f"takes {pace:.2f} s a syllable": not PER_SYLLABLE[0] < pace < PER_SYLLABLE[1],
    }
    if found := [fault for fault, there in faults.items() if there]:
        raise SystemExit(f"{words!r} {' and '.join(found)}")
    return speech


def joined(paragraph: Paragraph, parts: list[Recording]) -> tuple[Recording, list[list[float]]]:
    """The paragraph in one piece at an even level, and [start, end] of each sentence in seconds."""
    rate = parts[0].rate
    pieces, times, at = [], [], 0

    def add(samples: sound.Samples) -> None:
        nonlocal at
        pieces.append(samples)
        at += len(samples)

    add(np.zeros(int(OPENING * rate)))
    for index, (sentence, part) in enumerate(zip(paragraph.sentence, parts, strict=True)):
        start = at
        add(part.samples)
        times.append([round(start / rate, 3), round(at / rate, 3)])
        if index + 1 == len(parts):
            add(np.zeros(int(CLOSING * rate)))
        else:
            formula = sentence.tex or paragraph.sentence[index + 1].tex
            add(np.zeros(int((FORMULA if formula else BETWEEN) * rate)))
    whole = Recording(np.concatenate(pieces), rate)
    gain = 10 ** ((LEVEL - sound.speech_level(whole)) / 20)
    gain = min(gain, PEAK / float(np.abs(whole.samples).max()))
    return Recording(whole.samples * gain, rate), times


def encode(whole: Recording, target: Path, folder: Path) -> None:
    """MP3, mono, constant bit rate, nothing but frames in the file."""
    wave = folder / f"{target.stem}.wav"
    sound.write(wave, whole)
    options = ["-c:a", "libmp3lame", "-b:a", f"{BIT_RATE}k", "-abr", "0", "-ac", "1"]
    bare = ["-write_xing", "0", "-id3v2_version", "0", "-map_metadata", "-1", "-fflags", "+bitexact"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(wave), *options, *bare, str(target)], check=True)


def agree(target: Path, whole: Recording, times: list[list[float]]) -> None:
    """See that the MP3 is as long as what went in, speaks where a sentence is and is silent between two."""
    heard = sound.decode(target, whole.rate)
    if not -0.01 < heard.seconds - whole.seconds < SLACK:
        raise SystemExit(f"{target.name} lasts {heard.seconds:.3f} s, not {whole.seconds:.3f}")
    loud = sound.spoken(heard)
    for index, (start, end) in enumerate(times):
        if loud[int(start / sound.FRAME) : int(end / sound.FRAME)].mean() < 0.6:
            raise SystemExit(f"{target.name}: hardly anything is heard of sentence {index}")
        after = times[index + 1][0] if index + 1 < len(times) else whole.seconds
        if loud[int((end + SLACK) / sound.FRAME) : int(after / sound.FRAME)].any():
            raise SystemExit(f"{target.name}: sentence {index} goes on beyond its time")


def main() -> None:
    """Record every lesson anew."""
    parser = argparse.ArgumentParser(description="Record the lessons.")
    parser.add_argument("--voice", choices=voices.VOICES, default="hts")
    voice = parser.parse_args().voice
    AUDIO.mkdir(parents=True, exist_ok=True)
    for old in AUDIO.glob("*.mp3"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        cues = {name: render(name, lesson, voice, Path(folder)) for name, lesson in texts().items()}
    lines = (
        json.dumps(cues)
        .replace(' {"digest"', '\n  {"digest"')
        .replace('[{"digest"', '[\n  {"digest"')
        .replace("]]}]", "]]}\n]")
    )
    (AUDIO / "cues.json").write_text(lines + "\n", encoding="utf-8")
    print(f"{sum(file.stat().st_size for file in AUDIO.iterdir()) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
