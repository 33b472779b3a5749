"""Evidence beside a straightforward BDMC loop and beside the bare decoder: ``python -m benchmarks.evidence``.

(a) Bounds from both sides on images simulated from a model, `vaelid.evidence` and `benchmarks.public_bdmc` at equal
chains, distributions and leapfrogs. They take turns on the same images, new ones in every round, each image with its
true latents; seconds are medians over rounds, ratios are medians of the ratios within a round, gaps are means over all
images of upper − lower. vaelid tunes its steps in a pilot, which is shown apart and included. (b) Decoder rows per
second of a longer annealing run beside forward and backward through the decoder alone.

The model has a Bernoulli likelihood, a standard normal prior and 784-500-500-40 networks: that of ``--run``, else one
trained first, on ``mnist.npz`` in the folder ``VAELID_DATA`` if that is set, else on scikit-learn's digits.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import vaelid as vd
from benchmarks import public_bdmc
from vaelid.networks.products import FastProducts

CHAINS, LATENT, HIDDEN = 16, 40, (500, 500)
MNIST_EPOCHS, DIGITS_EPOCHS = 10, 100
FLOOR_ROUNDS, FLOOR_ROWS, FLOOR_IMAGES = 5, 16_384, 256


@dataclass(frozen=True)
class Setting:
    """What both contestants are asked for; rows of one round and direction are ``CHAINS`` times ``images``."""

    distributions: int
    leapfrogs: int
    images: int
    rounds: int


SETTINGS = (Setting(20, 3, images=64, rounds=5), Setting(100, 10, images=32, rounds=3))
WARM_UP = Setting(2, 1, images=64, rounds=1)


@dataclass(frozen=True)
class Turn:
    """One direction on the images of one round: bounds (image,), and what they cost; ``pilot`` is not in ``run``."""

    bound: Tensor
    run: float
    rows: int
    pilot: float = 0.0
    pilot_rows: int = 0


@dataclass
class Contestant:
    """What does its turn when asked, and what came of it, a pair of turns (forward, reverse) per round."""

    name: str
    turn: Callable[[vd.evidence.Simulated, Setting, int, bool], Turn]
    turns: list[tuple[Turn, Turn]] = field(default_factory=list)

    @property
    def gap(self) -> tuple[float, float]:
        """Mean of upper − lower over images, and its standard error."""
        gaps = torch.cat([upper.bound - lower.bound for lower, upper in self.turns]).double()
        return float(gaps.mean()), float(gaps.std()) / math.sqrt(len(gaps))

    def seconds(self, *, pilot: bool) -> list[float]:
        """Of both directions together, for every round."""
        return [sum(turn.run + pilot * turn.pilot for turn in pair) for pair in self.turns]


def vaelid_turn(model: vd.VAE) -> Callable[[vd.evidence.Simulated, Setting, int, bool], Turn]:
    """`annealing` or `reverse_annealing` as users call them; the pilot ends when its progress says so."""

    def turn(data: vd.evidence.Simulated, setting: Setting, seed: int, reverse: bool) -> Turn:
        began = pilot_ended = time.perf_counter()

        def watch(stage: str, done: int, total: int) -> None:
            nonlocal pilot_ended
            if stage == "pilot":
                pilot_ended = time.perf_counter()

        asked: dict[str, Any] = {
            "distributions": setting.distributions,
            "leapfrogs": setting.leapfrogs,
            "chains": CHAINS,
        }
        key = vd.Key(seed).fold("reverse" if reverse else "forward")
        if reverse:
            found = vd.evidence.reverse_annealing(model, data.batch, data.z, key=key, on_progress=watch, **asked)
        else:
            found = vd.evidence.annealing(model, data.batch, key=key, on_progress=watch, **asked)
        ended = time.perf_counter()
        return Turn(found.log_evidence, ended - pilot_ended, found.decoder_rows, pilot_ended - began, found.pilot_rows)

    return turn


def public_turn(decoder: public_bdmc.Decoder) -> Callable[[vd.evidence.Simulated, Setting, int, bool], Turn]:
    """The plain loop, chains and images in one batch."""

    def turn(data: vd.evidence.Simulated, setting: Setting, seed: int, reverse: bool) -> Turn:
        began = time.perf_counter()
        asked = (setting.distributions, setting.leapfrogs, CHAINS)
        bound = public_bdmc.bound(decoder, data.batch.x.flatten(1), data.z, *asked, 2 * seed, reverse=reverse)
        rows = len(bound) * public_bdmc.rows_per_datum(*asked)
        return Turn(bound, time.perf_counter() - began, rows)

    return turn


def bare(model: vd.VAE) -> public_bdmc.Decoder:
    """The decoder as plain modules of torch.nn, latents (row, latent) to logits (row, cell)."""
    network = copy.deepcopy(model.likelihood.network).requires_grad_(False)
    return lambda z: network(z).flatten(1)


def compare(contestants: list[Contestant], model: vd.VAE, setting: Setting, key: vd.Key) -> None:
    """Let the contestants take turns."""
    for contestant in contestants:
        contestant.turns.clear()
    for number in range(setting.rounds):
        data = vd.evidence.simulate(model, setting.images, key.fold("images", setting.distributions, number))
        pairs: list[list[Turn]] = [[] for _ in contestants]
        for reverse in (False, True):
            for pair, contestant in zip(pairs, contestants, strict=True):
                pair.append(contestant.turn(data, setting, number, reverse))
        for (lower, upper), contestant in zip(pairs, contestants, strict=True):
            contestant.turns.append((lower, upper))


def show(setting: Setting, ours: Contestant, theirs: Contestant) -> None:
    """Print the table of one setting."""
    print(
        f"\n{setting.distributions} distributions, {setting.leapfrogs} leapfrogs, {CHAINS} chains, "
        f"{setting.rounds} rounds of {setting.images} images"
        f"\n  {'':18} {'s per image':>20} {'rows per image':>15} {'decoder':>9}"
        f"\n  {'':18} {'forward':>10} {'reverse':>9} {'and direction':>15} {'rows/s':>9}   vaelid / it   gap ± se, nats"
    )
    for contestant, pilot in ((ours, False), (ours, True), (theirs, False)):
        ways = [
            statistics.median(pair[way].run + pilot * pair[way].pilot for pair in contestant.turns) / setting.images
            for way in (0, 1)
        ]
        both = contestant.seconds(pilot=pilot)
        rows = sum(turn.rows + pilot * turn.pilot_rows for turn in contestant.turns[0])
        ratio = statistics.median(a / b for a, b in zip(ours.seconds(pilot=pilot), both, strict=True))
        mean, se = contestant.gap
        print(
            f"  {contestant.name + ', with pilot' * pilot:18} {ways[0]:10.4f} {ways[1]:9.4f} "
            f"{rows / 2 / setting.images:15,.0f} {rows / statistics.median(both):9,.0f}   "
            f"× {ratio:<9.2f}   {mean:8.3f} ± {se:.3f}"
        )
    whole = statistics.median(a / b for a, b in zip(ours.seconds(pilot=True), theirs.seconds(pilot=False), strict=True))
    (mean, se), other = ours.gap, theirs.gap[0]
    print(f"  with its pilot, vaelid takes × {whole:.2f} the time of the public loop")
    print(f"  gap of the public loop / (gap of vaelid + 2 se) = {other / (mean + 2 * se):,.0f}", flush=True)


def passes(model: vd.VAE, x: Tensor, size: int, products: bool) -> Callable[[], float]:
    """Rows per second of `FLOOR_ROWS` latents forward and backward through the decoder, ``size`` in a call.

    With ``products`` its matrix products are those that vaelid takes.
    """
    decoder = bare(model)
    target = x.flatten(1).repeat(math.ceil(size / len(x)), 1)[:size]
    z = torch.zeros(size, model.prior.latent, requires_grad=True)

    def turn() -> float:
        began = time.perf_counter()
        with FastProducts() if products else contextlib.nullcontext():
            for _ in range(FLOOR_ROWS // size):
                loss = functional.binary_cross_entropy_with_logits(decoder(z), target, reduction="sum")
                torch.autograd.grad(loss, z)
        return FLOOR_ROWS / (time.perf_counter() - began)

    return turn


def floor(model: vd.VAE, ours: Contestant, key: vd.Key) -> None:
    """Annealing beside the decoder alone, in turns."""
    setting = Setting(20, 3, FLOOR_IMAGES, FLOOR_ROUNDS)
    data = vd.evidence.simulate(model, setting.images, key.fold("floor"))

    def annealing() -> float:
        found = ours.turn(data, setting, 0, False)
        return found.rows / found.run

    turns: dict[str, Callable[[], float]] = {"vaelid annealing, pilot apart": annealing}
    for size in (FLOOR_ROWS, FLOOR_ROWS // 4):
        for name, products in (("torch.nn", False), ("vaelid's products", True)):
            turns[f"bare, {size:,} per call, {name}"] = passes(model, data.batch.x, size, products)
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        turn()
    for _ in range(FLOOR_ROUNDS):
        for name, turn in turns.items():
            rates[name].append(turn())
    print(f"\nforward and backward through the decoder, {FLOOR_ROUNDS} rounds\n  {'':42} {'rows/s':>9}   vaelid / it")
    for name, rate in rates.items():
        ratio = statistics.median(a / b for a, b in zip(next(iter(rates.values())), rate, strict=True))
        print(f"  {name:42} {statistics.median(rate):9,.0f}   × {ratio:.2f}", flush=True)


def trained() -> vd.VAE:
    """A model of the size that is compared, trained for about half a minute."""
    folder = os.environ.get("VAELID_DATA")
    if folder:
        with np.load(Path(folder) / "mnist.npz", allow_pickle=False) as arrays:
            images, epochs = arrays["x_train"], MNIST_EPOCHS
    else:
        small = torch.from_numpy(vd.data.load("digits").x).float()
        large = functional.interpolate(small, size=(28, 28), mode="bilinear")
        images, epochs = (large * (255 / 16)).round().to(torch.uint8).numpy(), DIGITS_EPOCHS
    images = images.reshape(len(images), 784)
    with vd.Key(0).fold("init").seeding():
        decoder, encoder = vd.networks.MLP(LATENT, 784, HIDDEN), vd.networks.MLP(784, LATENT, HIDDEN, heads=2)
        prior, posterior = vd.priors.StandardNormal(LATENT), vd.posteriors.DiagonalNormal(encoder)
        model = vd.VAE(prior, vd.likelihoods.Bernoulli(decoder), posterior)
    settings = vd.Settings(epochs=epochs, learning_rate=1e-3, schedule="cosine", patience=0)
    began = time.perf_counter()
    vd.fit(model, images, settings=settings, binarise=True, progress=False)
    print(f"trained on {len(images):,} images, {epochs} epochs, {time.perf_counter() - began:.0f} s")
    return model


def main() -> None:
    """Train or load, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="a run folder of that size, instead of training")
    parser.add_argument("--threads", type=int, help="threads of PyTorch, by default its own choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    began = time.perf_counter()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.2f}")
    model = vd.load(arguments.run) if arguments.run else trained()
    key = vd.Key(0)
    ours, theirs = Contestant("vaelid", vaelid_turn(model)), Contestant("public loop", public_turn(bare(model)))
    compare([ours, theirs], model, WARM_UP, key)
    for setting in SETTINGS:
        compare([ours, theirs], model, setting, key)
        show(setting, ours, theirs)
    floor(model, ours, key)
    print(f"\n{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
