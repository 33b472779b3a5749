"""The voices that can read a lesson, and how words are spelled so that they are read right.

All are free software from Debian: ``flite`` (slt, rms, awb) and ``festival`` with ``festvox-us-slt-hts`` (hts).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOUNDS = {
    "autoencoder": "auto en coder",
    "encoder": "en coder",
    "encoder's": "en coder's",
    "decodes": "dee codes",
    "ELBO": "elbow",
    "KL": "K L",
    "Kullback-Leibler": "cull back lye bler",
    "mu": "mew",
    "reparameterisation": "ree parameter eye zaytion",
}
"""Spellings by sound: where flite and festival would both, or one of them, get a word wrong."""

VOICES = ("slt", "rms", "awb", "hts")


def spelled(words: str) -> str:
    """Words as a synthesiser must see them to say them right."""
    plain = words.replace("’", "'").replace("‘", "'").replace("–", "-")
    known = {word.lower(): sound for word, sound in SOUNDS.items()}
    longest_first = sorted(known, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w'])({'|'.join(map(re.escape, longest_first))})(?![\w'])", re.IGNORECASE)
    return pattern.sub(lambda match: known[match[0].lower()], plain)


def speak(voice: str, sentences: Sequence[str], folder: Path, stretch: float) -> list[Path]:
    """Read each sentence into a WAV file of its own; ``stretch`` above 1 is slower."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.wav" for number in range(len(sentences))]
    texts = [spelled(sentence) for sentence in sentences]
    if voice == "hts":
        _festival(texts, files, stretch)
    else:
        for text, file in zip(texts, files, strict=True):
            options = ["-voice", voice, "--setf", f"duration_stretch={stretch}"]
            subprocess.run(["flite", *options, "-t", text, "-o", str(file)], check=True)
    return files


def _festival(texts: Sequence[str], files: Sequence[Path], stretch: float) -> None:
    script = [
        "(voice_cmu_us_slt_arctic_hts)",
        f'(set! hts_engine_params (append hts_engine_params (list (list "-r" {1 / stretch:.4f}))))',
    ]
    for text, file in zip(texts, files, strict=True):
        if '"' in text or "\\" in text:
            raise ValueError(f"quotes and backslashes cannot be read aloud: {text!r}")
        script.append(f'(utt.save.wave (utt.synth (Utterance Text "{text}")) "{file}" \'riff)')
    subprocess.run(["festival", "--pipe"], input="\n".join(script), text=True, check=True)
