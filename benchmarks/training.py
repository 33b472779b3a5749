"""Training and scoring speed beside Pythae 0.1.2 and JAX: ``python -m benchmarks.training``.

Needs, beside vaelid: ``pip install jax tqdm imageio cloudpickle`` and ``pip install --no-deps pythae==0.1.2`` (one of
the packages that Pythae asks for does not exist for current Pythons and is never imported).

Every contestant is a process of its own with the same network and the same rows. They take turns, one epoch (or one
scoring) each, so that what slows the machine slows all; a contestant's figure is the median of its turns, and ratios
are medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from benchmarks.contestants import CONTESTANTS, DRAWS, SCORED, SCORERS
from benchmarks.networks import BATCH, SHAPES


class Contestant:
    """A process that does its task once when asked, and says how long it took."""

    def __init__(self, task: str, name: str, shape: str) -> None:
        command = [sys.executable, "-m", "benchmarks.contestants", task, name, shape]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.name, self.seconds = name, list[float]()
        if self._read() != "ready":
            raise SystemExit(f"{name} did not get ready; see why with: python {' '.join(command[1:])}")

    def _read(self) -> str:
        return self.process.stdout.readline().strip()  # type: ignore[union-attr]

    def turn(self) -> None:
        print("go", file=self.process.stdin, flush=True)
        self.seconds.append(float(self._read()))


def compare(task: str, names: list[str], shape: str, rounds: int) -> list[Contestant]:
    """Let the contestants take turns."""
    contestants = [Contestant(task, name, shape) for name in names]
    for _ in range(rounds):
        for contestant in contestants:
            contestant.turn()
    for contestant in contestants:
        contestant.process.communicate()
    return contestants


def show(title: str, unit: str, count: int, contestants: list[Contestant]) -> None:
    """Print one table; ``count`` is what one turn gets done, in units."""
    print(f"\n{title}\n  {'':18} {unit + '/s':>15}   vaelid / it")
    ours = contestants[0].seconds
    for contestant in contestants:
        ratio = statistics.median(other / own for own, other in zip(ours, contestant.seconds, strict=True))
        print(
            f"  {contestant.name:18} {count / statistics.median(contestant.seconds):15,.0f}   × {ratio:.2f}", flush=True
        )


def main() -> None:
    """Compare on every network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=7, help="turns per contestant")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="one network only; repeatable")
    parser.add_argument("--without", choices=list(CONTESTANTS)[1:], action="append", default=[], help="leave one out")
    arguments = parser.parse_args()
    print(f"medians of {arguments.rounds} rounds")
    for shape in arguments.shape or SHAPES:
        names = [name for name in CONTESTANTS if name not in arguments.without]
        trained = compare("train", names, shape, arguments.rounds)
        show(f"training {shape}, batch {BATCH}", "rows", SHAPES[shape].steps * BATCH, trained)
        if not SHAPES[shape].convolutional:
            scored = compare("score", list(SCORERS), shape, arguments.rounds)
            show(f"log p by {DRAWS} importance samples, {shape}", "decoder rows", SCORED * DRAWS, scored)


if __name__ == "__main__":
    main()
