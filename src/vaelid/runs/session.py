"""Training inside a run folder: start, go on, score. `fit` is the same from Python, with or without a folder."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from vaelid import checks
from vaelid.data import Dataset, Split, standard_split
from vaelid.data import load as load_data
from vaelid.diagnostics import Evaluation, evaluate
from vaelid.errors import InputError, RunError
from vaelid.model import VAE
from vaelid.objectives import ELBO, Objective
from vaelid.parts import describe, is_named
from vaelid.random import Key
from vaelid.runs.config import Config, DataConfig, ObjectiveConfig
from vaelid.runs.folder import Run
from vaelid.training import EpochDone, Event, Finished, RolledBack, Settings, events, graceful, rows_of, watch
from vaelid.types import Batch

SCORING = Key(0)  # names the noise of every score, whatever the seed of the run, so that runs can be compared


@final
@dataclass(frozen=True, eq=False)
class History:
    """What `fit` returns: one `EpochDone` per epoch, what went wrong on the way, how it ended, and the split.

    ``history.split.test`` holds the numbers of the rows that training never saw: evaluate on those.
    """

    epochs: list[EpochDone]
    rollbacks: list[RolledBack]
    finished: Finished
    split: Split = field(repr=False)


def start(path: Path | str, config: Config, model: VAE, dataset: Dataset, parts: Split,
          extras: dict[str, np.ndarray] | None = None) -> Run:
    """Make the run folder for a model about to be trained."""
    data = config.data.model_copy(update={"source": dataset.source, "fingerprint": dataset.fingerprint})
    training = config.training.resolved()
    config = config.model_copy(update={"data": data, "training": training, "parts": describe(model)})
    return Run.create(path, config, dataset, parts, extras or {})


def go(
    run: Run,
    model: VAE,
    dataset: Dataset,
    *,
    objective: Objective | None = None,
    resume: bool = False,
    stop: threading.Event | None = None,
) -> Iterator[Event]:
    """Train in a run folder to the end; record every event and save the best weights.

    Raises:
        InputError: the data do not suit the model, or the objective cannot be built from config.toml.
        Interrupted: ``stop`` was set; the state is saved.
        RunError: training failed; the best weights so far are saved.
    """
    config = run.config
    if objective is None:
        if config.objective is None:
            raise InputError(
                f"{run.path} was trained with an objective that config.toml cannot express",
                "the same objective from Python", "vaelid.resume(path, objective=…)",
            )
        objective = config.objective.build()
    stream = events(
        model,
        dataset,
        objective=objective,
        settings=config.training,
        seed=config.seed,
        split_rows=run.split(),
        binarise=config.data.binarise,
        checkpoints=run.checkpoints,
        resume=resume,
        stop=stop,
        **run.extras(),
    )
    with contextlib.closing(run.record(stream)) as recorded:  # type: ignore[type-var]
        try:
            yield from recorded
        except RunError:
            with contextlib.suppress(OSError):  # the disk may be what failed
                run.save_model(model)
            raise
    run.save_model(model)


def prepare_resume(run: Run, epochs: int | None = None) -> None:
    """Make a run ready to go on: more epochs if asked for, and no events from after the checkpoint.

    Raises:
        InputError: there is nothing to go on from, or nothing left to do.
    """
    if epochs is not None and epochs < run.config.training.epochs:
        raise InputError(
            f"--epochs {epochs} for a run that was asked for {run.config.training.epochs}", "as many, or more"
        )
    _, state = run.last_checkpoint()
    if epochs is not None and epochs != run.config.training.epochs:
        training = run.config.training.model_copy(update={"epochs": epochs})
        run.save_config(run.config.model_copy(update={"training": training}))
    run.forget_after(state["step"])


def batch_of(run: Run, model: VAE, dataset: Dataset, index: np.ndarray, *, own: bool = True) -> Batch:
    """Rows of a data set as the run's model takes them; grey levels binarised once, the same in every run.

    ``own`` says that the data set is the run's, whose mask, context and weights then travel along.
    """
    checks.same_event(dataset.x, run.event_shape(), dataset.name)
    extras = run.extras() if own else {}
    rows = rows_of(dataset, index, model.device, binarise=run.config.data.binarise, **extras)
    if not run.config.data.binarise:
        checks.support(dataset.x[index], model.likelihood.support, type(model.likelihood).__name__, dataset.name)
    return rows.fixed(SCORING.fold("binarise"), model.dtype)


def score(
    run: Run, model: VAE, dataset: Dataset, *, samples: int | None = None, rows: int | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate on the run's test rows, the first ``rows`` of them in a fixed random order."""
    settings = run.config.evaluation
    test = run.split().test
    chosen = SCORING.fold("rows").permutation(len(test)).numpy()[: rows or settings.rows]
    batch = batch_of(run, model, dataset, test[np.sort(chosen)])
    return evaluate(model, batch, samples=samples or settings.samples, key=SCORING.fold("evaluate"), on_rows=on_rows)


def fit(
    model: VAE,
    x: Any,
    *,
    objective: Objective | None = None,
    settings: Settings | None = None,
    epochs: int | None = None,
    seed: int = 0,
    split_rows: Split | None = None,
    mask: Any = None,
    context: Any = None,
    weight: Any = None,
    binarise: bool = False,
    out: Path | str | None = None,
    progress: bool = True,
) -> History:
    """Train to the end with a progress bar, in place; the model then holds its best weights.

    The arguments are those of `vaelid.training.events`, and

    Args:
        epochs: overrides ``settings.epochs``.
        out: a run folder to make: config, rows, events, checkpoints and weights are kept there, every command of the
            command line works on it, and `resume` goes on with it. Nothing is written by default.
        progress: show a bar on stderr.

    Raises:
        InputError: the data do not suit the model, or ``out`` exists.
        Interrupted: Ctrl-C; with ``out`` the state is saved.
        RunError: training failed and could not be rescued.
    """
    settings = settings or Settings()
    if epochs is not None:
        settings = settings.model_copy(update={"epochs": checks.positive_int(epochs, "epochs")})
    objective = objective or ELBO()
    dataset = load_data(x)
    parts = split_rows or standard_split(len(dataset.x), dataset.test_rows)
    extras = {"mask": mask, "context": context, "weight": weight}
    with graceful() as stop:
        if out is None:
            stream = events(
                model, dataset, objective=objective, settings=settings, seed=seed, split_rows=parts,
                binarise=binarise, stop=stop, **extras,
            )
        else:
            config = Config(
                seed=seed, device=str(model.device), data=DataConfig(binarise=binarise),
                objective=ObjectiveConfig.of(objective), training=settings,
            )
            given = {name: np.asarray(value) for name, value in extras.items() if value is not None}
            run = start(out, config, model, dataset, parts, given)
            stream = go(run, model, dataset, objective=objective, stop=stop)
        return _history(watch(stream) if progress else stream, parts)


def resume(
    path: Path | str, *, epochs: int | None = None, model: VAE | None = None, objective: Objective | None = None,
    progress: bool = True,
) -> tuple[VAE, History]:
    """Go on with a run where it stopped, or further than first asked for; its rows come from the run folder.

    ``model`` and ``objective`` are needed where config.toml cannot express them.
    """
    run = Run.open(path)
    model = own_model(run, model)
    prepare_resume(run, epochs)
    with graceful() as stop:
        stream = go(run, model, run.dataset(), objective=objective, resume=True, stop=stop)
        return model, _history(watch(stream) if progress else stream, run.split())


def load(path: Path | str, *, model: VAE | None = None) -> VAE:
    """The trained model of a run folder, ready to use.

    No code of the user's is needed where the model was built from named parts; otherwise pass an equal ``model``,
    which is filled with the weights.

    Raises:
        InputError: the folder is not a whole run, or holds networks that only ``model`` can supply.
    """
    run = Run.open(path)
    return run.model(own_model(run, model))


def own_model(run: Run, model: VAE | None) -> VAE:
    """``model``, or the one that the run's named parts build."""
    if model is None:
        return run.build()
    if is_named(run.config.parts) and describe(model) != run.config.parts:
        raise InputError("another model than the run's", f"the model that {run.path} was made with")
    return model


def _history(stream: Iterator[Event], parts: Split) -> History:
    with contextlib.closing(stream) as watched:  # type: ignore[type-var]
        done = list(watched)
    return History(
        [event for event in done if isinstance(event, EpochDone)],
        [event for event in done if isinstance(event, RolledBack)],
        next(event for event in done if isinstance(event, Finished)),
        parts,
    )

