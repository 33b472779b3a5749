"""`events`: train a model on rows, step by step."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Items

from vaelid import checks
from vaelid.data import Dataset, Split, grey_scale, load, standard_split
from vaelid.data.batches import Form, HeldOut
from vaelid.data.rows import Rows
from vaelid.errors import InputError, InputTypeError, some
from vaelid.fitted import PerDatum
from vaelid.model import VAE
from vaelid.objectives import ELBO, Objective
from vaelid.random import Key
from vaelid.training.checkpoints import Checkpoints
from vaelid.training.events import Stream
from vaelid.training.feed import Feed, InMemory, Streamed
from vaelid.training.loop import Loop
from vaelid.training.settings import Settings
from vaelid.types import Batch


def dataset_of(model: VAE, x: Any, mask: Any = None) -> Dataset:
    """The data set of x; cells of arrays that ``mask`` says were not observed may hold anything, NaN included."""
    if mask is None or isinstance(x, Dataset | Items | str | Path) or checks.is_frame(x) or checks.is_lazy(x):
        return load(x)
    return load(checks.observed(x, mask, model.likelihood.support)[0])


def _check_split(parts: Split, rows: int) -> None:
    """Refuse parts that are empty, overlap, or name rows that do not exist; only the test part may be empty."""
    for name, part in (("training", parts.train), ("validation", parts.validation)):
        if not len(part):
            raise InputError(f"a split without {name} rows", f"at least one row for {name}")
    numbers, counts = np.unique(np.concatenate((parts.train, parts.validation, parts.test)), return_counts=True)
    if numbers[0] < 0 or numbers[-1] >= rows:
        missing = numbers[(numbers < 0) | (numbers >= rows)]
        raise InputError(f"a split with {some(missing)}", f"rows from 0 to {rows - 1}")
    if counts.max() > 1:
        raise InputError(f"a split with {some(numbers[counts > 1])} in several places", "every row once at most")


def rows_of(
    dataset: Dataset,
    index: np.ndarray,
    device: torch.device,
    *,
    mask: Any = None,
    context: Any = None,
    weight: Any = None,
    binarise: bool = False,
) -> Rows:
    """The rows at ``index`` of a data set, on a device, with their numbers in the source.

    Context and weights are those given, or else the data set's own.

    Raises:
        InputError: mask, context or weight do not suit the rows, or are given where the data set has its own.
    """
    own = {"context": dataset.context, "weight": dataset.weight}
    found = {name: value for name, value in own.items() if value is not None} | checked(dataset, mask, context, weight)
    extras = {name: value[index] for name, value in found.items()}
    on_device = {name: torch.from_numpy(value).to(device) for name, value in extras.items()}
    x = torch.from_numpy(np.ascontiguousarray(dataset.x[index])).to(device)
    batch = Batch(x, row_id=torch.from_numpy(dataset.row_id[index]).to(device), **on_device)
    return Rows(batch, grey_scale(dataset) if binarise else None)


def checked(dataset: Dataset, mask: Any = None, context: Any = None, weight: Any = None) -> dict[str, np.ndarray]:
    """Those given of mask (the shape of x, bool), context (rows, c) and weight (rows,), float32, one entry per row.

    Raises:
        InputError: another shape, values that are not finite, negative weights, or weights that are all 0; context or
            weight where the data set has its own.
    """
    for name, given, own in (("context", context, dataset.context), ("weight", weight, dataset.weight)):
        if given is not None and own is not None:
            raise InputError(f"{name} beside data that have their own", "one of the two", f"leave {name}= out")
    found = {}
    if mask is not None:
        found["mask"] = load(mask, name="mask").x.astype(bool)
    if context is not None:
        found["context"] = checks.array(context, "context").astype(np.float32)
    if weight is not None:
        found["weight"] = checks.weights(weight, len(dataset.x))
    for name, values in found.items():
        shape = dataset.x.shape if name == "mask" else (len(dataset.x), *values.shape[1:])
        if values.shape != shape:
            raise InputError(f"{name} has shape {values.shape}", f"{shape}, one entry for each row of x")
    return found


def events(
    model: VAE,
    x: Any,
    *,
    validation: Any = None,
    objective: Objective | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    split_rows: Split | None = None,
    mask: Any = None,
    context: Any = None,
    weight: Any = None,
    binarise: bool = False,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    stop: threading.Event | None = None,
) -> Stream:
    """Train ``model`` in place and yield what happens, as `vaelid.training.events` values.

    Rows are split into train, validation (early stopping, schedule) and test unless ``split_rows`` says
    how. Equal seeds, data, settings, device and thread count give equal weights, bit for bit.

    Args:
        model: the model to train, on the device where it is.
        x: a `vaelid.data.Dataset` or whatever `vaelid.data.load` reads; or a PyTorch ``DataLoader``, whose batches are
            x, (x, …) or dicts with x, image or data and, where there are any, mask, context and weight.
        validation: beside a loader, and only there: the validation rows, given like x; they are kept in memory.
        objective: what to maximise; `ELBO` by default.
        settings: see `Settings`.
        seed: names every random number of the run.
        split_rows: rows for training, validation and test.
        mask: True where a cell is observed, the shape of x; the others may hold anything.
        context: observed covariates, (rows, c); by default the data set's own.
        weight: weight of each row, (rows,); by default the data set's own.
        binarise: draw grey levels as 0 or 1 afresh at every step.
        checkpoints: where to save; nowhere by default.
        resume: go on from the last checkpoint there.
        stop: set it to stop at the next step with the state saved.

    Raises:
        InputError: the data do not suit the model.
        Interrupted: ``stop`` was set.
        RunError: training failed and could not be rescued, or a checkpoint could not be written.
    """
    _check_trainable(model)
    how: dict[str, Any] = {"objective": objective, "settings": settings, "seed": seed}
    how |= {"checkpoints": checkpoints, "resume": resume, "stop": stop}
    extra = {"mask": mask, "context": context, "weight": weight}
    if isinstance(x, DataLoader):
        held = held_out(model, validation, seed=seed, binarise=binarise, split_rows=split_rows, **extra)
        return streamed(model, feed_of(model, x, held, binarise), held, binarise=binarise, **how)
    refuse_held_out(validation)
    dataset = dataset_of(model, x, mask)
    parts = split_rows or standard_split(len(dataset.x), dataset.test_rows)
    _check_split(parts, len(dataset.x))
    train, rows = (
        rows_of(dataset, part, model.device, binarise=binarise, **extra) for part in (parts.train, parts.validation)
    )
    if not binarise:
        support, kind = model.likelihood.support, type(model.likelihood).__name__
        seen = dataset.x if mask is None else checks.observed(dataset.x, checked(dataset, mask)["mask"], support)[0]
        checks.support(seen, support, kind)
    return _run(model, InMemory(train, (settings or Settings()).batch_size), rows, **how)


def streamed(model: VAE, feed: Streamed, held: HeldOut, *, binarise: bool = False, **how: Any) -> Stream:
    """What `events` does, for a loader and rows that are held out; ``how`` are its other arguments."""
    _check_trainable(model)
    rows = rows_of(held.dataset, held.split.validation, model.device, binarise=binarise, **held.extras)
    return _run(model, feed, rows, **how)


def held_out(
    model: VAE, validation: Any, test: Any = None, *, seed: int = 0, binarise: bool = False, **beside: Any
) -> HeldOut:
    """The rows that a loader does not train on; ``beside`` holds arguments that must not stand beside a loader.

    Raises:
        InputError: there is something beside it, no ``validation``, or rows that do not suit the model.
    """
    for name, value in beside.items():
        if value is not None:
            part = "batches that are dicts" if name != "split_rows" else "validation= and test="
            raise InputError(f"{name}= beside a DataLoader", f"{part} to say so", f"leave {name}= out")
    if validation is None:
        raise InputError(
            "a DataLoader without rows to validate on",
            "validation=, an array, a data set or another loader",
            "give rows that the loader does not: ten thousand are plenty",
        )
    with Key(seed).fold("held out").seeding():
        return HeldOut.read(validation, test, model.likelihood, binarise)


def refuse_held_out(validation: Any, test: Any = None) -> None:
    """Refuse rows held out by hand where the rows are split.

    Raises:
        InputError: one of the two is given.
    """
    for name, value in (("validation", validation), ("test", test)):
        if value is not None:
            given = f"{name}= beside rows that are split into training, validation and test"
            raise InputError(given, "a DataLoader of training rows", "to split rows your own way give split_rows=")


def feed_of(model: VAE, loader: Any, held: HeldOut, binarise: bool) -> Streamed:
    """A loader as the source of training rows.

    Raises:
        InputTypeError: it is none. InputError: it has no batches.
    """
    if not isinstance(loader, DataLoader):
        raise InputTypeError(f"data={type(loader).__name__}", "a PyTorch DataLoader, as the run was made with")
    return Streamed(loader, Form.of(held.dataset, held.extras, model.likelihood, binarise), model.device)


def _run(
    model: VAE,
    feed: Feed,
    validation: Rows,
    *,
    objective: Objective | None,
    settings: Settings | None,
    seed: int,
    checkpoints: Checkpoints | None,
    resume: bool,
    stop: threading.Event | None,
) -> Stream:
    key, objective, settings = Key(seed).fold("training"), objective or ELBO(), settings or Settings()
    loop = Loop(model, feed, validation, objective, settings, key, checkpoints, stop)
    try:
        if resume:
            loop.load()
        loop.check()
    except BaseException:
        feed.close()
        raise
    return loop.run()


def _check_trainable(model: VAE) -> None:
    if isinstance(model.posterior, PerDatum):
        raise InputError(
            "a model without an encoder, which would fit q to every row anew at every step",
            "one with an encoder to train",
            "give vaelid.wrap an encoder, or vaelid.VAE a posterior that holds one",
        )
