"""What can be said of speech without ears: length, silence, clipping, loudness, pitch, syllables."""

from __future__ import annotations

import subprocess
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]  # (n,), within ±1

FRAME = 0.02  # seconds
QUIET = 0.04  # −28 dB of the loudest frame: what is softer counts as silence
VOWELS = frozenset(("aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw"))


@dataclass(frozen=True)
class Recording:
    """Samples of one channel at ``rate`` per second."""

    samples: Samples
    rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate


def read(path: Path) -> Recording:
    """A mono WAV file of 16 bits."""
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            raise ValueError(f"{path.name} is not mono with 16 bits per sample")
        raw = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        return Recording(raw / 32768.0, file.getframerate())


def write(path: Path, recording: Recording) -> None:
    """A mono WAV file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(recording.rate)
        file.writeframes(np.round(recording.samples * 32767.0).astype("<i2").tobytes())


def decode(path: Path, rate: int) -> Recording:
    """An audio file of any kind, as a player would hear it."""
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "s16le", "-ac", "1", "-ar", str(rate), "-"],
        capture_output=True,
        check=True,
    )
    return Recording(np.frombuffer(done.stdout, dtype="<i2") / 32768.0, rate)


def loudness(recording: Recording) -> Samples:
    """Root mean square of each frame of 20 ms, (frames,)."""
    size = int(recording.rate * FRAME)
    whole = len(recording.samples) // size * size
    return np.sqrt((recording.samples[:whole].reshape(-1, size) ** 2).mean(axis=1))


def spoken(recording: Recording) -> NDArray[np.bool_]:
    """Which frames of 20 ms are speech, (frames,)."""
    frames = loudness(recording)
    return frames > QUIET * frames.max(initial=1e-4)


def silence(recording: Recording) -> tuple[float, float, float]:
    """Seconds of silence before, after and, the longest one, within the speech."""
    loud = np.flatnonzero(spoken(recording))
    if len(loud) == 0:
        return recording.seconds, 0.0, 0.0
    before = float(loud[0]) * FRAME
    after = recording.seconds - float(loud[-1] + 1) * FRAME
    return before, after, float(np.diff(loud).max(initial=1) - 1) * FRAME


def trimmed(recording: Recording, before: float = 0.04, after: float = 0.08) -> Recording:
    """The speech alone, with so many seconds left around it, and its edges faded so that nothing clicks."""
    lead, trail, _ = silence(recording)
    first = max(0, int((lead - before) * recording.rate))
    last = len(recording.samples) - max(0, int((trail - after) * recording.rate))
    samples = recording.samples[first:last].copy()
    ramp = np.linspace(0.0, 1.0, int(0.01 * recording.rate))
    samples[: len(ramp)] *= ramp
    samples[-len(ramp) :] *= ramp[::-1]
    return Recording(samples, recording.rate)


def ending(recording: Recording) -> float:
    """How loud the last 10 ms are, as a share of the loudest frame: speech that was cut off ends loud."""
    last = recording.samples[-recording.rate // 100 :]
    return float(np.sqrt((last**2).mean()) / loudness(recording).max(initial=1e-4))


def clipped(recording: Recording) -> int:
    """How many samples stand at full scale."""
    return int((np.abs(recording.samples) >= 0.999).sum())


def speech_level(recording: Recording) -> float:
    """Root mean square of what is not silence, in dB of full scale."""
    frames = loudness(recording)[spoken(recording)]
    return float(10 * np.log10((frames**2).mean())) if len(frames) else -np.inf


def pitch(recording: Recording, low: float = 70.0, high: float = 400.0) -> Samples:
    """Fundamental frequency in Hz of the voiced frames, one each 10 ms: the peak of each one's autocorrelation."""
    rate, size, hop = recording.rate, int(0.04 * recording.rate), int(0.01 * recording.rate)
    frames = np.lib.stride_tricks.sliding_window_view(recording.samples, size)[::hop]
    frames = frames - frames.mean(axis=1, keepdims=True)
    loud = np.sqrt((frames**2).mean(axis=1))
    frames = frames[loud > 2 * QUIET * loud.max()]
    power = np.abs(np.fft.rfft(frames, 2 * size)) ** 2
    correlation = np.fft.irfft(power)[:, :size]
    correlation /= correlation[:, :1] * (1 - np.arange(size) / size)
    first, last = int(rate / high), int(rate / low)
    window = correlation[:, first:last]
    best = window.max(axis=1)
    # The shortest period that is nearly as good as the best: not its double.
    period = (window > 0.92 * best[:, None]).argmax(axis=1)
    rows = np.arange(len(period))
    for _ in range(12):  # climb to the top of that peak
        right = np.minimum(period + 1, window.shape[1] - 1)
        period = np.where(window[rows, right] > window[rows, period], right, period)
    return rate / (first + period[best > 0.6])


def semitones(frequencies: Samples) -> Samples:
    """Distance from the median, in semitones."""
    return 12 * np.log2(frequencies / np.median(frequencies))


def rolloff(recording: Recording, share: float = 0.99) -> float:
    """The frequency in Hz below which this share of the energy lies."""
    power = np.abs(np.fft.rfft(recording.samples)) ** 2
    at = power.cumsum().searchsorted(power.sum() * share)
    return float(np.fft.rfftfreq(len(recording.samples), 1 / recording.rate)[at])


def phones(words: str) -> list[str]:
    """The sounds that flite makes of these words."""
    done = subprocess.run(
        ["flite", "-voice", "slt", "-ps", "-t", words, "none"], capture_output=True, text=True, check=True
    )
    return [phone for phone in done.stdout.split() if phone != "pau"]


def syllables(words: str) -> int:
    """One for each vowel."""
    return sum(phone in VOWELS for phone in phones(words))
