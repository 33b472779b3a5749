"""Contexts for new rows: what a conditional model is given when it samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from vaelid.errors import InputError, nearest
from vaelid.random import Key
from vaelid.runs.folder import Run


def contexts(run: Run, n: int, where: Mapping[str, str], key: Key) -> np.ndarray | None:
    """Contexts for n new rows of a run's model, (n, c); None where it was trained without context.

    Columns named in ``where`` have the value that stands there. If it leaves some open, each row gets the context of a
    training row drawn at random among those that match: a function of key and row.

    Raises:
        InputError: an unknown column or value, values that no training row has together, or the run's data are needed
            and are gone.
    """
    covariates = run.config.data.encoding()
    if covariates is None:
        if where:
            given = f"--where {'='.join(next(iter(where.items())))}, but {run.path} has no context columns"
            raise InputError(given, "a run trained with --context", "leave --where out")
        known = run.extras().get("context")
        return None if known is None else _drawn(_trained(run, known), n, key)
    for name in where:
        if name not in covariates.names:
            given = f"--where {name}={where[name]}, but {run.path} has no context column of that name"
            raise InputError(given, "a context column", nearest(name, covariates.names))
    chosen = {name: covariates[name].parse(word) for name, word in where.items()}
    if len(chosen) == len(covariates.names):
        return covariates.encode({name: [value] for name, value in chosen.items()}).repeat(n, axis=0)
    try:
        dataset = run.dataset()
    except InputError as error:
        free = next(name for name in covariates.names if name not in chosen)
        raise InputError(
            f"contexts cannot be drawn from the run's rows ({str(error).rstrip('.')})",
            "a value of every context column",
            f"name them: --where {free}=VALUE",
        ) from error
    rows = np.empty((0, covariates.size)) if dataset.context is None else _trained(run, dataset.context)
    for name, value in chosen.items():
        place = covariates.place(name)
        wanted = covariates[name].encode(np.array([value]), f"context {name!r}")
        rows = rows[(rows[:, place] == wanted).all(axis=1)]
    if not len(rows):
        said = " and ".join(f"{name}={word}" for name, word in where.items())
        raise InputError(
            f"no training row has {said}",
            "values that training rows have, or a value of every context column",
            "name the others as well",
        )
    return _drawn(rows, n, key)


def _trained(run: Run, context: np.ndarray) -> np.ndarray:
    """The context of training rows; of those held out where a ``DataLoader`` gave the training rows."""
    train = run.split().train
    rows: np.ndarray = context[train] if len(train) else context
    return rows


def _drawn(rows: np.ndarray, n: int, key: Key) -> np.ndarray:
    uniform = key.uniform_rows(torch.arange(n), 1, 1, dtype=torch.float64)[0, :, 0].numpy()
    drawn: np.ndarray = rows[np.minimum((uniform * len(rows)).astype(np.int64), len(rows) - 1)]
    return drawn
