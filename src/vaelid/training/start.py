"""`events`: train a model on rows, step by step."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from vaelid import checks
from vaelid.data import Dataset, Split, grey_scale, load, standard_split
from vaelid.data.rows import Rows
from vaelid.errors import InputError
from vaelid.model import VAE
from vaelid.objectives import ELBO, Objective
from vaelid.random import Key
from vaelid.training.checkpoints import Checkpoints
from vaelid.training.events import Event
from vaelid.training.loop import Loop
from vaelid.training.settings import Settings
from vaelid.types import Batch


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
    """The rows at ``index`` of a data set, on a device, with their numbers in the source."""

    def move(values: Any, name: str, dtype: torch.dtype | None = None) -> torch.Tensor | None:
        if values is None:
            return None
        array = np.asarray(values)
        if len(array) != len(dataset.x):
            raise InputError(f"{name} has {len(array)} rows", f"{len(dataset.x)}, one for each row of x")
        return torch.as_tensor(array[index], dtype=dtype, device=device)

    x = torch.from_numpy(np.ascontiguousarray(dataset.x[index])).to(device)
    batch = Batch(
        x,
        move(mask, "mask", torch.bool),
        move(context, "context", torch.float32),
        torch.from_numpy(dataset.row_id[index]).to(device),
        move(weight, "weight", torch.float32),
    )
    return Rows(batch, grey_scale(dataset) if binarise else None)


def events(
    model: VAE,
    x: Any,
    *,
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
) -> Iterator[Event]:
    """Train ``model`` in place and yield what happens, as `vaelid.training.events` values.

    Rows are split into train, validation (early stopping, schedule) and test unless ``split_rows`` says
    how. Equal seeds, data, settings, device and thread count give equal weights, bit for bit.

    Args:
        model: the model to train, on the device where it is.
        x: a `vaelid.data.Dataset` or whatever `vaelid.data.load` reads.
        objective: what to maximise; `ELBO` by default.
        settings: see `Settings`.
        seed: names every random number of the run.
        split_rows: rows for training, validation and test.
        mask: True where a cell is observed, the shape of x.
        context: observed covariates, (rows, c).
        weight: weight of each row, (rows,).
        binarise: draw grey levels as 0 or 1 afresh at every step.
        checkpoints: where to save; nowhere by default.
        resume: go on from the last checkpoint there.
        stop: set it to stop at the next step with the state saved.

    Raises:
        InputError: the data do not suit the model.
        Interrupted: ``stop`` was set.
        RunError: training failed and could not be rescued, or a checkpoint could not be written.
    """
    dataset = load(x)
    parts = split_rows or standard_split(len(dataset.x), dataset.test_rows)
    extra = {"mask": mask, "context": context, "weight": weight, "binarise": binarise}
    train, validation = (
        rows_of(dataset, part, model.device, **extra)  # type: ignore[arg-type]
        for part in (parts.train, parts.validation)
    )
    if not binarise:
        kind = type(model.likelihood).__name__
        observed = dataset.x if mask is None else dataset.x[np.asarray(mask, dtype=bool)]
        checks.support(observed, model.likelihood.support, kind)
    key = Key(seed).fold("training")
    model.check(train.fixed(key, model.dtype, slice(0, 1)))
    loop = Loop(model, train, validation, objective or ELBO(), settings or Settings(), key, checkpoints, stop)
    if resume:
        loop.load()
    return loop.run()

