"""Compare the voices on a lesson's own sentences, without ears: ``python web/narration/compare.py [LESSON]``.

Rate (words and syllables), how evenly the time falls on syllables, silence around and within a sentence, clipping,
pitch and how much it moves, bandwidth, and how many words a recogniser of speech gets wrong that knows none of these
voices (Debian's ``pocketsphinx`` and ``pocketsphinx-en-us``; an old one, so only the order of its errors says much).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import sound
import voices

from vaelid.lesson.text import texts

HEARD = 16  # sentences without formulas that the recogniser hears of each voice


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"[a-z']+", text.lower().replace("’", "'"))


def misheard(said: list[str], heard: list[str]) -> int:
    """Words to insert, delete or replace to make one of the other."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        corner, row[0] = row[0], i
        for j, other in enumerate(heard, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (word != other))
    return row[-1]


def recognised(file: Path) -> list[str]:
    """What the recogniser takes a recording for."""
    narrow = file.with_suffix(".narrow.wav")
    convert = ["ffmpeg", "-v", "error", "-i", str(file), "-ar", "16000", "-af", "adelay=500,apad=pad_dur=1"]
    subprocess.run([*convert, str(narrow)], check=True)
    listen = ["pocketsphinx_continuous", "-logfn", "/dev/null", "-infile", str(narrow)]
    return words_of(subprocess.run(listen, capture_output=True, text=True, check=True).stdout)


def main(name: str) -> None:
    """Print a line of measures for each voice."""
    sentences = [sentence.spoken for paragraph in texts()[name].paragraph for sentence in paragraph.sentence]
    spoken = [voices.spelled(sentence) for sentence in sentences]
    counts = np.array([sound.syllables(words) for words in spoken])
    words = np.array([len(sentence.split()) for sentence in sentences])
    common = [n for n, s in enumerate(sentences) if voices.spelled(s) == s and not re.search(r"\b[a-z] of\b", s)][
        :HEARD
    ]
    print(
        "voice   Hz s/sentence words/min ms/syllable (sd) silence before/after/within clipped pitch  sd  5–95 %", end=""
    )
    print("  99 %-band  words misheard")
    for voice in voices.VOICES:
        with tempfile.TemporaryDirectory() as folder:
            files = voices.speak(voice, sentences, Path(folder), 1.0)
            read = [sound.read(path) for path in files]
            errors = sum(misheard(words_of(sentences[n]), recognised(files[n])) for n in common)
        said = sum(len(words_of(sentences[n])) for n in common)
        speech = np.array([sound.trimmed(one, 0.0, 0.0).seconds for one in read])
        gaps = np.array([sound.silence(one) for one in read])
        pitches = np.concatenate([sound.pitch(one) for one in read])
        tones = sound.semitones(pitches)
        per = 1000 * speech / counts
        low, high = np.percentile(tones, [5, 95])
        band = np.median([sound.rolloff(one) for one in read])
        print(
            f"{voice:5}{read[0].rate:6}{speech.mean():10.2f}{60 * words.sum() / speech.sum():10.0f}"
            f"{per.mean():9.0f} ({per.std():2.0f})    {gaps[:, 0].mean():12.2f} {gaps[:, 1].mean():6.2f}"
            f" {gaps[:, 2].max():6.2f}{sum(map(sound.clipped, read)):9}{np.median(pitches):7.0f}"
            f"{tones.std():5.1f}{high - low:7.1f} st{band:8.0f}{errors / said:14.0%}"
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "geometry-of-latent-spaces")
