"""Companions: small models with two latents, trained on the spot where a run has no plane to look at, or one β only."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from vaelid import parts
from vaelid.data import Dataset, Split, standard_split
from vaelid.data.sources import MEMORY
from vaelid.errors import InputError
from vaelid.likelihoods import Likelihood
from vaelid.model import VAE
from vaelid.networks import MLP
from vaelid.objectives import ELBO, Warmup
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key
from vaelid.runs import SCORING, Config, Run
from vaelid.runs.config import DataConfig, ModelConfig, ObjectiveConfig
from vaelid.serving import Progress
from vaelid.training import EpochDone, Settings, Started, events, rows_of
from vaelid.types import Batch

TRAIN, HELD, TEST = 5000, 500, 1000  # rows of the run's parts that a companion sees, at most
STEPS = 1500  # of training, about
EPOCHS = (12, 150)  # passes over the rows, at least and at most
WARMUP = 0.2  # of the steps, over which β rises
NARROW, WIDE = (128, 64), (256, 128)  # hidden layers up to 256 cells, and above
SEED = 0
KEY = Key(0).fold("companion")  # names the choice of rows
KEPT = 32  # companions remembered


@final
@dataclass(frozen=True, eq=False)
class Sample:
    """The rows of a run that its companions are made from: no more than needed, and without context.

    Attributes:
        dataset: the rows, those of the three parts alone, with their numbers in the source.
        parts: where they stand in it.
        extras: mask and weights given beside them.
        binarise: grey levels are drawn as 0 or 1.
        whole: how many training rows the run has.
        context: the run's model is given a context, which companions are not.
    """

    dataset: Dataset
    parts: Split
    extras: dict[str, np.ndarray]
    binarise: bool
    whole: int
    context: bool

    @classmethod
    def of(cls, run: Run) -> Sample:
        """The rows of a run, its first ones in an order that is always the same.

        Raises:
            InputError: its data are gone or have changed.
        """
        dataset, extras, old = run.dataset(), run.extras(), run.split()
        if not len(old.train):  # a loader's, of which the run keeps the rows held out alone
            old = standard_split(len(dataset.x))
        test = old.test if len(old.test) else old.validation
        wanted = {"train": (old.train, TRAIN), "validation": (old.validation, HELD), "test": (test, TEST)}
        chosen = {name: _first(name, rows, most) for name, (rows, most) in wanted.items()}
        index = np.unique(np.concatenate(list(chosen.values())))
        kept = dataclasses.replace(
            dataset,
            source=MEMORY,
            x=dataset.x[index],
            row_id=dataset.row_id[index],
            labels=None if dataset.labels is None else dataset.labels[index],
            weight=None if dataset.weight is None else dataset.weight[index],
            test_rows=None,
            context=None,
            covariates=None,
        )
        places = Split(**{name: np.searchsorted(index, rows) for name, rows in chosen.items()})
        given = "context" in extras or dataset.context is not None
        beside = {name: values[index] for name, values in extras.items() if name != "context"}
        return cls(kept, places, beside, run.config.data.binarise, len(old.train), given)

    def batch(self, model: VAE, index: np.ndarray) -> Batch:
        """Rows at some places as a model takes them, grey levels binarised as in every score."""
        rows = rows_of(self.dataset, index, model.device, binarise=self.binarise, **self.extras)
        return rows.fixed(SCORING.fold("binarise"), model.dtype)


@final
@dataclass(frozen=True, eq=False)
class Companion:
    """A model with two latents, trained on a sample of a run's rows.

    Attributes:
        model: the model, in evaluation mode.
        beta: the weight of the KL in its training.
        sample: the rows.
        said: what it is, one sentence or two.
        seconds: that its training took.
    """

    model: VAE
    beta: float
    sample: Sample
    said: str
    seconds: float

    @functools.cached_property
    def run(self) -> Run:
        """The companion in a run folder of its own, which is gone when this process ends.

        Raises:
            InputError: no folder can be made.
        """
        data = DataConfig(binarise=self.sample.binarise).of(self.sample.dataset)
        config = Config(
            seed=SEED,
            data=data,
            model=ModelConfig(latent=2),
            objective=ObjectiveConfig(beta=self.beta),
            parts=parts.describe(self.model),
        )
        path = Path(_folder().name) / f"companion-{next(_NUMBERS)}"
        run = Run.create(path, config, self.sample.dataset, self.sample.parts, self.sample.extras)
        run.save_model(self.model)
        return run


def companion(run: Run, beta: float = 1.0, progress: Progress | None = None) -> Companion:
    """A companion of a run: two latents, small networks, the run's family of p(x|z), no context, its own weights.

    It is trained on `TRAIN` of the run's training rows at most, under E_q log p(x|z) − β KL(q ‖ p) with β rising at
    first, and is the same whenever it is asked for. Companions are remembered by the run's folder and weights and by β;
    one is trained at a time.

    Args:
        run: the run.
        beta: β.
        progress: told of every epoch, and asked whether to go on.

    Raises:
        InputError: the run's data are gone, or its likelihood is none that vaelid knows by name.
        Cancelled: nobody waits for it any more.
    """
    progress = progress or Progress(lambda partial: None)
    key = (str(run.path.resolve()), run.weights(), float(beta))
    with _alone(progress):
        if key not in _KNOWN:
            _KNOWN[key] = _train(run, float(beta), progress)
        _KNOWN.move_to_end(key)
        while len(_KNOWN) > KEPT:
            _KNOWN.popitem(last=False)
        return _KNOWN[key]


def _train(run: Run, beta: float, progress: Progress) -> Companion:
    began = time.perf_counter()
    sample, latent = Sample.of(run), latent_of(run)
    model = build(run, sample)
    steps = math.ceil(len(sample.parts.train) / Settings().batch_size)
    epochs = min(max(math.ceil(STEPS / steps), EPOCHS[0]), EPOCHS[1])
    settings = Settings(epochs=epochs, learning_rate=4e-3, schedule="cosine", patience=0, compile=False)
    objective = ELBO(beta=Warmup(max(1, int(WARMUP * steps * epochs)), end=beta))
    how: dict[str, Any] = {"split_rows": sample.parts, "binarise": sample.binarise, **sample.extras}
    stream = events(model, sample.dataset, objective=objective, settings=settings, seed=SEED, **how)
    with contextlib.closing(stream):
        for event in stream:
            progress.check()
            match event:
                case Started():
                    progress.send({"beta": beta, "epoch": 0, "epochs": epochs, "elbo": None})
                case EpochDone(epoch=epoch, validation=found):
                    progress.send({"beta": beta, "epoch": epoch, "epochs": epochs, "elbo": found["bound"]})
    return Companion(model.eval(), beta, sample, _words(run, sample, beta, latent), time.perf_counter() - began)


def build(run: Run, sample: Sample) -> VAE:
    """The companion's model before training.

    Raises:
        InputError: the run's likelihood is none that vaelid knows by name.
    """
    event = sample.dataset.event_shape
    hidden = NARROW if math.prod(event) <= 256 else WIDE
    table = run.config.parts.get("likelihood", {})
    with Key(SEED).fold("init").seeding():
        likelihood = parts.build(table | {"network": parts.describe(MLP(2, event))})
        if not isinstance(likelihood, Likelihood):
            raise InputError(f"{run.path} has a {type(likelihood).__name__} for p(x|z)", "a likelihood")
        likelihood.network = MLP(2, event, hidden[::-1], heads=likelihood.heads)
        encoder = MLP(likelihood.feature_shape(event), 2, hidden, heads=2)
        model = VAE(StandardNormal(2), likelihood, DiagonalNormal(encoder))
    if not sample.binarise:
        train, mask = sample.parts.train, sample.extras.get("mask")
        likelihood.adapt(sample.dataset.x[train], None if mask is None else mask[train])
    return model


def latent_of(run: Run) -> int:
    """How many latents a run's model has.

    Raises:
        InputError: its prior is none that vaelid knows by name.
    """
    prior = run.config.parts.get("prior", {})
    if "latent" not in prior:
        raise InputError(f"{run.path} has the prior {prior.get('own', 'nothing')}", "one that vaelid knows by name")
    return int(prior["latent"])


def _words(run: Run, sample: Sample, beta: float, latent: int) -> str:
    """What a companion is and why there is one."""
    used = len(sample.parts.train)
    rows = f" ({used:,} of its {sample.whole:,} training rows)" if used < sample.whole else ""
    if beta == 1 and latent != 2:
        reason = f"because the run has {latent} latent" + "s" * (latent != 1)
        why = f"A two-dimensional companion, trained here on the same data{rows}, {reason}."
    else:
        why = f"A two-dimensional companion with β = {beta:g}, trained here on the same data{rows}."
    return why + " It is given no context, unlike the run." * sample.context


def _first(name: str, rows: np.ndarray, most: int) -> np.ndarray:
    """The first ``most`` of some rows in an order that is always the same, sorted."""
    chosen: np.ndarray = np.sort(rows[KEY.fold(name).permutation(len(rows)).numpy()[:most]])
    return chosen


_KNOWN: OrderedDict[tuple[str, str, float], Companion] = OrderedDict()
_TRAINING = threading.Lock()
_NUMBERS = itertools.count()


@contextlib.contextmanager
def _alone(progress: Progress) -> Iterator[None]:
    """One training at a time: PyTorch's global generator names the initial weights, and cores are few."""
    while not _TRAINING.acquire(timeout=0.1):
        progress.check()
    try:
        yield
    finally:
        _TRAINING.release()


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where companions' run folders are made; it goes with the process."""
    try:
        return tempfile.TemporaryDirectory(prefix="vaelid-lesson-")
    except OSError as error:
        raise InputError(f"no temporary folder can be made ({error.strerror or error})", "room for one") from error
