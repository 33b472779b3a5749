"""Where a run's rows lie in latent space, and the context at which a conditional model is looked at there."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from vaelid.data import Dataset
from vaelid.errors import InputError
from vaelid.geometry import Embedding, Graph
from vaelid.model import VAE
from vaelid.runs.folder import Run
from vaelid.runs.session import SCORING, batch_of

GRAPH = 1000  # rows that a graph is built over, at most


def latent_means(run: Run, model: VAE, dataset: Dataset, index: np.ndarray) -> Tensor:
    """T(0) of rows of the run's own data, (rows, latent)."""
    return model.encode(batch_of(run, model, dataset, index))


def graph_rows(run: Run, dataset: Dataset) -> np.ndarray:
    """Places of `GRAPH` training rows at most, always the same ones; of any rows where the run keeps none of those."""
    train = run.split().train
    rows = train if len(train) else np.arange(len(dataset.x))
    chosen: np.ndarray = rows[np.sort(SCORING.fold("graph").permutation(len(rows)).numpy()[:GRAPH])]
    return chosen


def graph_of(run: Run, model: VAE, dataset: Dataset, f: Embedding) -> Graph | None:
    """A graph over the latent means of `graph_rows`; None where they are fewer than two."""
    z = latent_means(run, model, dataset, graph_rows(run, dataset))
    z = z[z.isfinite().all(1)]
    return Graph.build(f, z) if len(z) > 1 else None


def place_of(dataset: Dataset, number: int) -> int:
    """The place in the data of the row of that number in the source.

    Raises:
        InputError: there is none.
    """
    found = np.flatnonzero(dataset.row_id == number)
    if not len(found):
        low, high = int(dataset.row_id.min()), int(dataset.row_id.max())
        raise InputError(f"{dataset.name} has no row {number}", f"the number of a row, {low} to {high}")
    return int(found[0])


def context_of(run: Run, dataset: Dataset, index: np.ndarray) -> np.ndarray | None:
    """Contexts of rows of the run's own data, (rows, c); None where its model is given none."""
    context = run.extras().get("context", dataset.context)
    return None if context is None else np.asarray(context)[index]


def typical_context(run: Run, dataset: Dataset, index: np.ndarray) -> np.ndarray | None:
    """A context (c,) that stands for rows: the most frequent categories and the mean of numbers."""
    context = context_of(run, dataset, index)
    if context is None or dataset.covariates is None:
        return None if context is None else context.mean(0)
    return dataset.covariates.typical(context)


def context_in_words(dataset: Dataset, context: np.ndarray | None) -> str:
    """A context as ``digit = 3, age = 40``; empty where there is none, or none that has names."""
    if context is None or dataset.covariates is None:
        return ""
    values = dataset.covariates.decode(context[None])
    return ", ".join(f"{name} = {column[0]}" for name, column in values.items())
