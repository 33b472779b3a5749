"""Which rows a bracket on log p(x) is made on, and what evidence.json keeps of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import nn

from vaelid.data import Dataset
from vaelid.errors import InputError
from vaelid.evidence import Bracket, Simulated, simulate
from vaelid.model import VAE
from vaelid.random import Key
from vaelid.runs.folder import Run
from vaelid.runs.session import SCORING, batch_of, scored_rows
from vaelid.types import Batch

TEST, SIMULATED = "test rows of the run", "simulated"
ROWS = 200  # rows bracketed where nobody says how many


@final
@dataclass(frozen=True, eq=False)
class Chosen:
    """Rows to be bracketed.

    Attributes:
        rows: the rows, with their latents where they were simulated.
        data: what they are: `TEST`, `SIMULATED`, or the source that they were read from.
        of: how many there were to choose from.
        count: how many they are.
        trained: on how many of them the model was trained.
        seed: names them, where they were simulated, and the noise of the bracket.
    """

    rows: Batch | Simulated
    data: str
    of: int
    count: int
    trained: int = 0
    seed: int = 0

    @property
    def key(self) -> Key:
        """Names the noise of the bracket."""
        return Key(self.seed).fold("evidence")


def rows_after_training(model: VAE) -> int:
    """How many test rows are bracketed when training ends: the fixed rule behind ``evaluation.evidence``.

    `ROWS`, or none where the decoder is convolutional: a bracket takes some thousand decoder rows per row of data.
    """
    convolutional = any(isinstance(module, nn.modules.conv._ConvNd) for module in model.likelihood.modules())
    return 0 if convolutional else ROWS


def rows_of_test(run: Run, model: VAE, dataset: Dataset, rows: int | None = None, seed: int = 0) -> Chosen:
    """Test rows of a run, whose own data are ``dataset``: all, or `ROWS` or ``rows`` of them, those scored first.

    Raises:
        InputError: the run has no test rows.
    """
    index = scored_rows(run, rows or ROWS)
    return Chosen(batch_of(run, model, dataset, index), TEST, len(run.split().test), len(index), seed=seed)


def rows_of_data(run: Run, model: VAE, dataset: Dataset, rows: int | None = None, seed: int = 0) -> Chosen:
    """Rows of data that the run has read: all, or `ROWS` or ``rows`` of them chosen at random, always the same ones.

    Raises:
        InputError: the rows do not suit the model.
    """
    total = len(dataset.x)
    index = np.sort(SCORING.fold("rows").permutation(total).numpy()[: rows or ROWS])
    own = dataset.fingerprint == run.config.data.fingerprint
    trained = len(np.intersect1d(index, run.split().train)) if own else 0
    batch = batch_of(run, model, dataset, index, own=own)
    return Chosen(batch, dataset.source, total, len(index), trained, seed)


def rows_simulated(run: Run, model: VAE, rows: int | None = None, seed: int = 0) -> Chosen:
    """Rows from the model, `ROWS` by default; a conditional one is given the contexts of test rows.

    Raises:
        InputError: contexts are needed, and the run's data are gone or hold no test rows.
    """
    count = rows or ROWS
    return Chosen(_simulated(run, model, count, seed), SIMULATED, count, count, seed=seed)


def rows_of_training(run: Run, model: VAE, beside: Chosen) -> Chosen | None:
    """As many training rows as test rows were chosen, at random, always the same ones; None where the run keeps none.

    Raises:
        InputError: the run's data are gone.
    """
    train = run.split().train
    if not len(train):
        return None
    index = train[np.sort(SCORING.fold("training rows").permutation(len(train)).numpy()[: beside.count])]
    batch = batch_of(run, model, run.dataset(), index)
    return Chosen(batch, "training rows of the run", len(train), len(index), len(index), beside.seed)


def rows_named(run: Run, model: VAE, table: dict[str, Any], numbers: Sequence[int], dataset: Dataset) -> Batch:
    """Rows of what evidence.json holds, ``table``, by their numbers; ``dataset`` is the run's own.

    Raises:
        InputError: they are gone, or have changed.
    """
    if table["data"] == SIMULATED:
        return _simulated(run, model, max(numbers) + 1, table["seed"]).batch.take(torch.tensor(numbers))
    if table["data"] != TEST:
        dataset = run.read(table["data"])
    places = {int(number): place for place, number in enumerate(dataset.row_id)}
    if missing := [number for number in numbers if number not in places]:
        raise InputError(f"{dataset.source} has no row {missing[0]} any more", "the rows that were bracketed")
    index = np.array([places[number] for number in numbers])
    return batch_of(run, model, dataset, index, own=dataset.fingerprint == run.config.data.fingerprint)


def record(run: Run, chosen: Chosen, bracket: Bracket) -> dict[str, Any]:
    """What evidence.json holds: which rows of which model, and all numbers of the bracket."""
    which = {"data": chosen.data, "of": chosen.of, "seed": chosen.seed, "model": run.weights()}
    return which | bracket.as_dict()


def sentences(table: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """The warnings of evidence.json, each sentence with the rows that it is about, the most frequent first.

    Sentences that differ in their numbers alone are one, with the numbers of the first row.
    """
    about: dict[str, list[int]] = {}
    first: dict[str, str] = {}
    for row in table["per_row"]:
        for sentence in row["warnings"]:
            form = re.sub(r"-?\d[\d.,]*", "#", sentence)
            about.setdefault(form, []).append(row["row"])
            first.setdefault(form, sentence)
    return sorted(((first[form], rows) for form, rows in about.items()), key=lambda item: -len(item[1]))


def families(split: dict[str, Any]) -> list[str]:
    """The families of q that gaps hold, of test or of training rows."""
    end = "_amortisation"
    return [name.removesuffix(end) for name in split if name.endswith(end)]


def _simulated(run: Run, model: VAE, rows: int, seed: int) -> Simulated:
    """Rows from the model; a conditional one is given the contexts of test rows, over and over.

    The first rows are the same however many there are.
    """
    context = None
    if run.config.data.context is not None or "context" in run.extras():
        test = run.split().test
        if not len(test):
            raise InputError(f"{run.path} has no test rows to take contexts from", "rows that training never saw")
        index = np.resize(test[SCORING.fold("rows").permutation(len(test)).numpy()], rows)
        context = batch_of(run, model, run.dataset(), index).context
    return simulate(model, rows, Key(seed).fold("evidence", "simulated"), context)
