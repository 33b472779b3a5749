"""What a section is, and the `Material` that sections are made of, with its `Look`."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import NamedTuple, final

import numpy as np
import torch

from vaelid import runs
from vaelid.data import Dataset
from vaelid.data.covariates import Category
from vaelid.diagnostics import ACTIVE, Evaluation
from vaelid.likelihoods import Categorical
from vaelid.model import VAE
from vaelid.report import pictures
from vaelid.report.curves import Curves
from vaelid.report.style import Picture
from vaelid.runs import Run


class Shown(NamedTuple):
    """A figure and the line under it."""

    picture: Picture
    caption: str


class Table(NamedTuple):
    """A table and the line above it; the first column holds names. A wide one has no other beside it."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    wide: bool = False


@final
@dataclass(frozen=True, eq=False)
class Section:
    """A part of the page under a heading of its own."""

    title: str
    notes: list[str] = field(default_factory=list)
    figures: list[Shown] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@final
@dataclass(frozen=True, eq=False)
class Look:
    """How rows of a run, and what its decoder answers, are shown; ``index`` holds their places in the data, (rows,)."""

    run: Run
    model: VAE
    dataset: Dataset
    index: np.ndarray

    @functools.cached_property
    def flat(self) -> np.ma.MaskedArray:
        """The rows in the data's own units, (rows, features); cells that were not observed are masked."""
        x = self.dataset.x[self.index].reshape(len(self.index), -1).astype(np.float64)
        mask = self.run.extras().get("mask")
        return np.ma.array(x, mask=False if mask is None else ~mask[self.index].reshape(x.shape).astype(bool))

    @functools.cached_property
    def features(self) -> list[str]:
        """Names of the cells of a row."""
        if self.dataset.columns is not None:
            return list(self.dataset.columns)
        cells = np.ndindex(*self.dataset.event_shape)
        if len(self.dataset.event_shape) == 1:
            return [f"x{cell}" for (cell,) in cells]
        return [f"x[{', '.join(map(str, cell))}]" for cell in cells]

    def spread(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each feature over the rows."""
        return self.flat.mean(0).filled(np.nan), self.flat.std(0).filled(np.nan)

    @property
    def expected(self) -> str:
        """What the decoder's answer is called."""
        return "the most likely class" if isinstance(self.model.likelihood, Categorical) else "E[x|z]"

    def grain(self, spread: float) -> float:
        """The spread by which `vaelid.report.words.rounded` rounds values of x: whole numbers stay whole."""
        return 100.0 if self.model.likelihood.support.integer else spread

    def context(self, rows: np.ndarray) -> torch.Tensor | None:
        """The covariates of the rows at some places; None where the run has none."""
        context = runs.context_of(self.run, self.dataset, self.index[rows])
        return None if context is None else torch.from_numpy(context).to(self.model.device, self.model.dtype)

    @property
    def classes(self) -> Category | None:
        """The one context column of a model that is given a category alone."""
        columns = () if self.dataset.covariates is None else self.dataset.covariates.columns
        return columns[0] if len(columns) == 1 and isinstance(columns[0], Category) else None

    def typical(self) -> torch.Tensor | None:
        """A context (c,) that stands for the rows: the most frequent categories and the mean of numbers."""
        context = runs.typical_context(self.run, self.dataset, self.index)
        return None if context is None else torch.from_numpy(context).to(self.model.device, self.model.dtype)

    @property
    def held(self) -> str:
        """That context in words; empty where there is none, or none that has names."""
        return runs.context_in_words(self.dataset, runs.typical_context(self.run, self.dataset, self.index))

    def colours(self, x: np.ndarray) -> np.ndarray:
        """Images as tiles, from the smallest value that a pixel can have to the largest."""
        support = self.model.likelihood.support
        low, high = support.low, support.high
        if not (np.isfinite(low) and np.isfinite(high)):
            low, high = (float(end) for end in np.percentile(self.dataset.x[self.index], (0.5, 99.5)))
        return pictures.tiles(x, low, high)


@final
@dataclass(frozen=True, eq=False)
class Material:
    """A run with what was found out about it; ``index`` holds the scored rows' positions in the data, (rows,)."""

    run: Run
    model: VAE
    dataset: Dataset
    evaluation: Evaluation
    curves: Curves
    index: np.ndarray

    @functools.cached_property
    def look(self) -> Look:
        """How the scored rows are shown."""
        return Look(self.run, self.model, self.dataset, self.index)

    @functools.cached_property
    def centre(self) -> np.ndarray:
        """Latent means of the scored rows, (rows, latent)."""
        return self.evaluation.per_row.centre.double().cpu().numpy()

    @functools.cached_property
    def active(self) -> np.ndarray:
        """Which latent dimensions are active, (latent,)."""
        active: np.ndarray = np.var(self.centre, axis=0) > ACTIVE
        return active

    @functools.cached_property
    def use(self) -> np.ndarray:
        """How much each latent dimension is used, (latent,): its KL, or else the variance of its mean."""
        kl = self.evaluation.kl_per_dimension
        use: np.ndarray = np.nan_to_num(np.var(self.centre, axis=0) if kl is None else np.array(kl), nan=0.0)
        return use
