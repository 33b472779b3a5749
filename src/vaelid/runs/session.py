"""Training inside a run folder: start, go on, score. `fit` is the same from Python, with or without a folder."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from torch.utils.data import DataLoader

from vaelid import checks
from vaelid.data import Dataset, Split, standard_split
from vaelid.data.batches import HeldOut
from vaelid.diagnostics import Evaluation, evaluate
from vaelid.errors import InputError, RunError, command
from vaelid.files import sweep
from vaelid.model import VAE
from vaelid.objectives import ELBO, Objective
from vaelid.parts import describe, is_named
from vaelid.random import Key
from vaelid.runs.config import Config, DataConfig, ObjectiveConfig
from vaelid.runs.folder import Run, ensure_new
from vaelid.training import Checkpoints, EpochDone, Finished, RolledBack, Settings, graceful, watch
from vaelid.training.events import Stream
from vaelid.training.feed import Streamed
from vaelid.training.start import (
    checked,
    dataset_of,
    events,
    feed_of,
    held_out,
    refuse_held_out,
    rows_of,
    streamed,
)
from vaelid.training.step import settled
from vaelid.types import Batch

SCORING = Key(0)  # names the noise of every score, whatever the seed of the run, so that runs can be compared


@final
@dataclass(frozen=True, eq=False)
class History:
    """What `fit` returns: one `EpochDone` per epoch, what went wrong on the way, how it ended, and the split.

    ``history.split.test`` holds the numbers of the rows that training never saw: evaluate on those. There is no split
    where the training rows came from a ``DataLoader``.
    """

    epochs: list[EpochDone]
    rollbacks: list[RolledBack]
    finished: Finished
    split: Split | None = field(repr=False)


def start(
    path: Path | str,
    config: Config,
    model: VAE,
    dataset: Dataset,
    parts: Split,
    extras: dict[str, np.ndarray] | None = None,
    objective: Objective | None = None,
    feed: Streamed | None = None,
) -> Run:
    """Make the run folder for a model about to be trained.

    ``extras`` holds mask, context and weight where the data set has none of its own; ``objective`` is needed where
    config.toml cannot express it. Where training rows come from a ``feed``, the data set holds those held out.

    Raises:
        InputError: the folder exists or cannot be made, or training could not start; nothing was written then.
    """
    steps = math.ceil(len(parts.train) / config.training.batch_size) if feed is None else feed.steps
    training = settled(config.training, model, objective or config.objective.build(), steps)
    config = config.model_copy(update={"data": config.data.of(dataset), "training": training, "parts": describe(model)})
    extras = checked(dataset, **(extras or {}))
    ensure_new(Path(path))
    _stream(config, model, dataset, parts, extras, objective, feed).close()
    return Run.create(path, config, dataset, parts, extras)


def _stream(
    config: Config,
    model: VAE,
    dataset: Dataset,
    parts: Split,
    extras: dict[str, np.ndarray],
    objective: Objective | None,
    feed: Streamed | None,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    stop: threading.Event | None = None,
) -> Stream:
    """Training as config.toml says, all checks done."""
    how: dict[str, Any] = {
        "objective": objective or config.objective.build(),
        "settings": config.training,
        "seed": config.seed,
        "binarise": config.data.binarise,
        "checkpoints": checkpoints,
        "resume": resume,
        "stop": stop,
    }
    if feed is not None:
        return streamed(model, feed, HeldOut(dataset, extras, parts), **how)
    return events(model, dataset, split_rows=parts, **how | extras)


def go(
    run: Run,
    model: VAE,
    dataset: Dataset,
    *,
    objective: Objective | None = None,
    feed: Streamed | None = None,
    resume: bool = False,
    stop: threading.Event | None = None,
) -> Stream:
    """Train in a run folder to the end; record every event and save the best weights.

    Training rows come from ``feed`` where the run was made with a ``DataLoader``.

    Raises:
        InputError: the data do not suit the model, or the objective cannot be built from config.toml.
        Interrupted: ``stop`` was set; the state is saved.
        RunError: training failed, the best weights so far are saved; or the disk refused.
    """
    parts, extras = run.split(), run.extras()
    stream = _stream(run.config, model, dataset, parts, extras, objective, feed, run.checkpoints, resume, stop)
    with contextlib.closing(run.record(_saving(run, model, stream))) as recorded:
        yield from recorded


def _saving(run: Run, model: VAE, stream: Stream) -> Stream:
    """Save the model's weights before the event is said that training is over."""
    with contextlib.closing(stream):
        try:
            for event in stream:
                if isinstance(event, Finished):
                    run.save_model(model)
                try:
                    yield event
                except RunError as error:
                    stream.throw(error)
        except RunError:
            with contextlib.suppress(RunError):  # the disk may be what failed
                run.save_model(model)
            raise


def prepare_resume(run: Run, epochs: int | None = None, data: Any = None) -> None:
    """Make a run ready to go on: more epochs if asked for, and no events from after the checkpoint.

    Raises:
        InputError: there is nothing to go on from, or nothing left to do; ``data`` is missing, or not needed.
        RunError: the disk refuses.
    """
    if run.streamed and data is None:
        again = f"go on in Python: {run.checkpoints.resume_command}"
        raise InputError(f"{run.path} was trained from a DataLoader, whose rows it does not keep", "the loader", again)
    if not run.streamed and data is not None:
        raise InputError(f"data= for {run.path}, which knows its rows", "no data", "leave data= out")
    asked = run.config.training.epochs
    epochs = asked if epochs is None else checks.positive_int(epochs, "epochs")
    if epochs < asked:
        raise InputError(f"--epochs {epochs} for a run that was asked for {asked}", "as many, or more")
    _, state = run.last_checkpoint()
    if run.finished and epochs <= state["asked"]:
        reason = state["stopped"] or f"all {state['epoch']} epochs done"
        further = command("train", "--resume", run.path, "--epochs", 2 * asked)
        raise InputError(
            f"{run.path} is finished ({reason})",
            f"more epochs than {asked} to go on with",
            f"to train further: {further}; to score it: {command('evaluate', run.path)}",
        )
    sweep(run.path)
    sweep(run.checkpoints.folder)
    run.forget_after(state["said"])
    if epochs != asked:
        training = run.config.training.model_copy(update={"epochs": epochs})
        run.save_config(run.config.model_copy(update={"training": training}))


def batch_of(run: Run, model: VAE, dataset: Dataset, index: np.ndarray, *, own: bool = True) -> Batch:
    """Rows of a data set as the run's model takes them; grey levels binarised once, the same in every run.

    ``own`` says that the data set is the run's, whose mask, context and weights then travel along.

    Raises:
        InputError: the rows do not suit the model, or lack the context that it was trained with.
    """
    checks.same_event(dataset.x, run.event_shape(), dataset.name)
    extras = run.extras()
    if dataset.covariates != run.config.data.encoding():
        raise InputError(
            f"{dataset.name} has the context {dataset.covariates or 'none'}",
            f"that of the run, {run.config.data.encoding() or 'none'}",
            f"read it as the run does: vaelid.runs.Run.open({str(run.path)!r}).read(DATA)",
        )
    if not own and "context" in extras:
        raise InputError(
            f"{dataset.name} comes without the context that the model was trained with",
            "the run's own rows",
            "in Python: vaelid.evaluate(model, model.batch(x, context=context))",
        )
    extras = extras if own else {}
    rows = rows_of(dataset, index, model.device, binarise=run.config.data.binarise, **extras)
    if not run.config.data.binarise:
        checks.support(dataset.x[index], model.likelihood.support, type(model.likelihood).__name__, dataset.name)
    return rows.fixed(SCORING.fold("binarise"), model.dtype)


def scored_rows(run: Run, rows: int | None = None) -> np.ndarray:
    """Row numbers that `score` takes: the first ``rows`` test rows in a fixed random order, then sorted, (rows,).

    Raises:
        InputError: the run has no test rows.
    """
    test = run.split().test
    if not len(test):
        remedy = "name DATA to evaluate on" + ", or give test= to vaelid.fit beside the loader" * run.streamed
        raise InputError(f"{run.path} has no test rows", "rows that training never saw", remedy)
    chosen = SCORING.fold("rows").permutation(len(test)).numpy()[: rows or run.config.evaluation.rows]
    numbers: np.ndarray = test[np.sort(chosen)]
    return numbers


def score(
    run: Run,
    model: VAE,
    dataset: Dataset,
    *,
    samples: int | None = None,
    rows: int | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate on the run's test rows, those of `scored_rows`."""
    samples = samples or run.config.evaluation.samples
    batch = batch_of(run, model, dataset, scored_rows(run, rows))
    return evaluate(model, batch, samples=samples, key=SCORING.fold("evaluate"), on_rows=on_rows)


def fit(
    model: VAE,
    x: Any,
    *,
    validation: Any = None,
    test: Any = None,
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
        test: beside a loader: the rows that the run in ``out`` is scored on; without them it has no scores.
        epochs: overrides ``settings.epochs``.
        out: a run folder to make: config, rows (of a loader's run: those held out), events, checkpoints and weights
            are kept there, every command of the command line works on it, and `resume` goes on with it. Nothing is
            written by default.
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
    feed, extras = None, {"mask": mask, "context": context, "weight": weight}
    if isinstance(x, DataLoader):
        held = held_out(model, validation, test, seed=seed, binarise=binarise, split_rows=split_rows, **extras)
        feed, dataset, parts, extras = feed_of(model, x, held, binarise), held.dataset, held.split, held.extras
        settings = settings.model_copy(update={"batch_size": x.batch_size or settings.batch_size})
    else:
        refuse_held_out(validation, test)
        dataset = dataset_of(model, x, mask)
        parts = split_rows or standard_split(len(dataset.x), dataset.test_rows)
    config = Config(
        seed=seed,
        device=str(model.device),
        data=DataConfig(binarise=binarise),
        objective=ObjectiveConfig.of(objective),
        training=settings,
    )
    with graceful() as stop:
        if out is None:
            stream = _stream(config, model, dataset, parts, extras, objective, feed, stop=stop)
        else:
            run = start(out, config, model, dataset, parts, extras, objective, feed)
            stream = go(run, model, dataset, objective=objective, feed=feed, stop=stop)
        return _history(watch(stream) if progress else stream, parts if feed is None else None)


def resume(
    path: Path | str,
    *,
    data: Any = None,
    epochs: int | None = None,
    model: VAE | None = None,
    objective: Objective | None = None,
    progress: bool = True,
) -> tuple[VAE, History]:
    """Go on with a run where it stopped, or further than first asked for.

    The weights, and what is recorded, are bit for bit those of a run that was never stopped, at an equal total of
    epochs; with a ``DataLoader`` if its batches are a function of PyTorch's global seed. A run that stopped early goes
    on only if asked for more epochs, and with its full patience.

    Args:
        path: the run folder.
        data: the loader that the run was made with, or an equal one, where it was made with one; other runs know
            their rows.
        epochs: how many epochs in all; by default as many as were asked for.
        model: a model equal to the run's, where it holds networks of your own.
        objective: the run's objective, where config.toml cannot express it.
        progress: show a bar on stderr.

    Returns:
        The model with its best weights, and the history since the run was resumed.

    Raises:
        InputError: the run is finished, damaged, or its data have changed. Interrupted, RunError: see `fit`.
    """
    run = Run.open(path)
    model = own_model(run, model, "resume")
    dataset, parts = run.dataset(), run.split()
    if objective is None:
        run.config.objective.build()
    feed = None
    if run.streamed and data is not None:
        feed = feed_of(model, data, HeldOut(dataset, run.extras(), parts), run.config.data.binarise)
    prepare_resume(run, epochs, data)
    with graceful() as stop:
        stream = go(run, model, dataset, objective=objective, feed=feed, resume=True, stop=stop)
        return model, _history(watch(stream) if progress else stream, parts if feed is None else None)


def load(path: Path | str, *, model: VAE | None = None) -> VAE:
    """The trained model of a run folder, ready to use.

    No code of the user's is needed where the model was built from named parts; otherwise pass an equal ``model``,
    which is filled with the weights.

    Raises:
        InputError: the folder is not a whole run, or holds networks that only ``model`` can supply.
    """
    run = Run.open(path)
    return run.model(own_model(run, model))


def own_model(run: Run, model: VAE | None, verb: str = "load") -> VAE:
    """``model``, or the one that the run's named parts build; ``verb`` is the function that was called.

    Raises:
        InputError: there is no model, and the run's holds networks of the user's own; or it is another one.
    """
    if model is None:
        if not is_named(run.config.parts):
            raise InputError(
                f"{run.path} holds networks of your own",
                "the model that it was made with",
                f"build it again in Python and pass it: vaelid.{verb}({str(run.path)!r}, model=model)",
            )
        return run.build()
    if is_named(run.config.parts) and describe(model) != run.config.parts:
        raise InputError("another model than the run's", f"the model that {run.path} was made with")
    return model


def _history(stream: Stream, parts: Split | None) -> History:
    with contextlib.closing(stream):
        done = list(stream)
    return History(
        [event for event in done if isinstance(event, EpochDone)],
        [event for event in done if isinstance(event, RolledBack)],
        next(event for event in done if isinstance(event, Finished)),
        parts,
    )
