"""A run that was opened: its model, its rows, and how both are shown."""

from __future__ import annotations

import functools
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self, cast, final

import numpy as np
import torch
from torch import Tensor

from vaelid import runs
from vaelid.data import Dataset
from vaelid.data.covariates import Category
from vaelid.data.rows import Rows
from vaelid.distributions import Categorical, Distribution, Ordinal, StudentT
from vaelid.errors import InputError
from vaelid.model import VAE
from vaelid.runs import Run
from vaelid.studio.latents import Latents, fixed, limit, stratified
from vaelid.studio.waiting import watched
from vaelid.training.start import rows_of
from vaelid.types import Batch

CHANNELS = 3  # of a picture that a screen shows, at most
CELLS = 1 << 20  # decoded at once
KEPT = 4  # runs in memory beside those that somebody looks at
_POINTS: dict[type[Distribution], str] = {
    Categorical: "the most likely class",
    Ordinal: "the median of p(x|z)",
    StudentT: "the location of p(x|z), its median",
}


@final
@dataclass(frozen=True, eq=False)
class Subject:
    """A run in memory; what happens to its folder later does not matter to it.

    Attributes:
        run: the folder.
        model: the trained model, in evaluation mode.
        dataset: the run's rows; None where they are gone.
        gone: why there are no rows; empty where there are.
        rows: all of them on the device; None where they are gone.
        latents: what q says of the rows that are shown.
        context: the covariates (1, c) at which a conditional model is looked at, or None.
        words: those in words; empty where the model is given none.
        part: of each row of the data, which part of the split it is in: 0 training, 1 validation, 2 test, 3 none.
        low, high: values of x that are drawn black and white.
    """

    run: Run
    model: VAE
    dataset: Dataset | None
    gone: str
    rows: Rows | None
    latents: Latents
    context: Tensor | None
    words: str
    part: np.ndarray
    low: float
    high: float

    @classmethod
    def open(cls, path: Path | str, device: str | None = None) -> Subject:
        """A run, read and its rows encoded; one that was opened before and has not changed since is there at once.

        Args:
            path: the run's folder.
            device: where the model is put; None for where it was trained.

        Raises:
            InputError: it is no whole run, its weights are damaged, it holds networks that only Python can supply, or
                there is no such device.
        """
        run = Run.open(path)
        if device is not None:
            run.config = run.config.model_copy(update={"device": device})
        changed = tuple(file.stat().st_mtime_ns for file in (run.model_file, run.path / "config.toml") if file.exists())
        key = (run.path.resolve(), device, changed)
        with _OPENING:
            _load()
            found = _OPENED.pop(key, None) or cls._read(run)
            if found.dataset is not None:  # rows that are gone may come back
                _OPENED[key] = found
            while len(_OPENED) > KEPT:
                _OPENED.popitem(last=False)
            return found

    @classmethod
    def _read(cls, run: Run) -> Self:
        model = watched(run.model(runs.own_model(run, None)).eval())
        try:
            dataset, gone = run.dataset(), ""
        except InputError as error:
            dataset, gone = None, str(error)
        if dataset is None:
            latents, rows, index = Latents.none(model), None, np.arange(0)
        else:
            rows = _rows(run, model, dataset)
            latents = Latents.of(model, rows, stratified(dataset.labels, dataset.rows, limit(model, rows)))
            index = latents.index
        context, words = _typical(run, model, dataset, index)
        low, high = _shades(model, dataset, index)
        return cls(run, model, dataset, gone, rows, latents, context, words, _parts(run, dataset), low, high)

    # -- rows ----------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Dataset:
        """The run's rows.

        Raises:
            InputError: they are gone.
        """
        return self._refuse() if self.dataset is None else self.dataset

    def batch(self, places: np.ndarray) -> Batch:
        """Rows at places in the data, as the model takes them.

        Raises:
            InputError: they are gone.
        """
        return self._refuse() if self.rows is None else fixed(self.model, self.rows, places)

    def places(self, numbers: Sequence[int]) -> np.ndarray:
        """Places in the data of rows of these numbers.

        Raises:
            InputError: there is no row of one of them, or the rows are gone.
        """
        ids, wanted = self.data.row_id, np.asarray(numbers, dtype=np.int64)
        order = np.argsort(ids, kind="stable")
        places: np.ndarray = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)]
        if len(missing := wanted[ids[places] != wanted]):
            runs.place_of(self.data, int(missing[0]))  # says so
        return places

    def means(self, places: np.ndarray) -> np.ndarray:
        """Latent means of rows at places in the data, (n, d), float64; those that are not shown are encoded now."""
        index = self.latents.index
        at = np.searchsorted(index, places).clip(max=max(0, len(index) - 1))
        found, known = np.empty((len(places), self.latents.size)), index[at] == places
        found[known] = self.latents.z[at[known]]
        if not known.all():
            found[~known] = self.model.encode(self.batch(places[~known])).double().numpy(force=True)
        return found

    def label(self, place: int) -> str | float | None:
        """The label of a row at a place in the data."""
        labels = self.data.labels
        if labels is None:
            return None
        value = labels[place].item()
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)

    def _refuse(self) -> NoReturn:
        raise InputError(f"{self.run.path} has no rows to show ({self.gone.rstrip('.')})", "the data of the run")

    # -- what is decoded -----------------------------------------------------------------------------------------

    @property
    def picture(self) -> bool:
        """Whether rows are shown as pictures."""
        return self.kind == "image"

    @property
    def kind(self) -> str:
        """``image`` or ``table``."""
        return "image" if self.run.config.data.kind == "image" else "table"

    @property
    def shape(self) -> list[int] | None:
        """Height, width and channels of a picture."""
        if not self.picture:
            return None
        channels, height, width = self.run.event_shape() if self.dataset is None else self.dataset.event_shape
        return [height, width, min(channels, CHANNELS)]

    @property
    def features(self) -> list[str]:
        """Names of the cells of a row."""
        columns = self.run.config.data.columns
        if columns is not None:
            return list(columns)
        event = self.run.event_shape() if self.dataset is None else self.dataset.event_shape
        if len(event) == 1:
            return [f"x{cell}" for cell in range(event[0])]
        return [f"x[{', '.join(map(str, cell))}]" for cell in np.ndindex(*event)]

    def expected(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """What stands for p(x|z) at latents (n, d), (n, *event): its mean, where that says something.

        ``context`` is that of the points, (n, c) or (1, c); by default the one at which the model is looked at.
        """
        context = self.context if context is None else context
        with torch.no_grad():  # and no `evaluating`, whose detour costs likelihoods of many small steps their time
            event = self._decoded(z[:1], context)
            step = max(1, CELLS // max(1, event.numel()))
            return torch.cat(
                [self._decoded(z[first : first + step], context, first) for first in range(0, len(z), step)]
            )

    def _decoded(self, z: Tensor, context: Tensor | None, first: int = 0) -> Tensor:
        if context is not None:
            context = context.expand(len(z), -1) if len(context) == 1 else context[first : first + len(z)]
        return self.model.decode(z, context).point

    @property
    def answer(self) -> str:
        """What `expected` is called."""
        with torch.no_grad():
            decoded = self.model.decode(self.latents.centre(self.model)[None], self.context)
        return _POINTS.get(type(decoded), "E[x|z]")

    def pictures(self, x: Tensor) -> np.ndarray:
        """Images (n, channels, height, width) as bytes, (n, height, width, 1 or 3); black where there is no number."""
        scaled = (x[:, :CHANNELS] - self.low) * (255 / max(self.high - self.low, 1e-12))
        levels = scaled.nan_to_num(0.0).add_(0.5).clamp_(0, 255).to(torch.uint8)
        found: np.ndarray = levels.permute(0, 2, 3, 1).contiguous().numpy(force=True)
        return found

    def shown(self, x: Tensor) -> dict[str, np.ndarray]:
        """Rows (n, *event) as a browser takes them: ``tiles``, or ``values`` (n, features) of a table."""
        if self.picture:
            return {"tiles": self.pictures(x)}
        return {"values": x.flatten(1).float().numpy(force=True)}


def _rows(run: Run, model: VAE, dataset: Dataset) -> Rows:
    """All rows of the run, found by one of them to suit the model."""
    runs.batch_of(run, model, dataset, np.arange(1))
    everything = cast(np.ndarray, slice(None))  # a view, where an index of every row would copy
    return rows_of(dataset, everything, model.device, binarise=run.config.data.binarise, **run.extras())


def _typical(run: Run, model: VAE, dataset: Dataset | None, index: np.ndarray) -> tuple[Tensor | None, str]:
    """The context at which a conditional model is looked at, (1, c), and its words."""
    encoding = run.config.data.encoding()
    if dataset is not None:
        context = runs.typical_context(run, dataset, index)
        words = runs.context_in_words(dataset, context)
    elif encoding is not None:  # without rows: the first categories and mean numbers
        first = {c.name: [c.categories[0] if isinstance(c, Category) else c.loc] for c in encoding.columns}
        context = encoding.encode(first)[0]
        words = ", ".join(f"{name} = {value[0]}" for name, value in first.items())
    else:
        known = run.extras().get("context")
        context, words = (None if known is None else known.mean(0)), ""
    if context is None:
        return None, ""
    held = torch.from_numpy(np.asarray(context)).to(model.device, model.dtype)[None]
    return held, words or f"the mean of its {held.shape[1]} covariates"


def _shades(model: VAE, dataset: Dataset | None, index: np.ndarray) -> tuple[float, float]:
    """Values of x that are drawn black and white: the ends of the support, or else those that few pixels pass."""
    support = model.likelihood.support
    if np.isfinite(support.low) and np.isfinite(support.high):
        return float(support.low), float(support.high)
    if dataset is None:
        return 0.0, 1.0
    some = dataset.x[index[:: max(1, len(index) // 5000)]]
    low, high = (float(end) for end in np.nanpercentile(some, (0.5, 99.5)))
    return low, high


def _parts(run: Run, dataset: Dataset | None) -> np.ndarray:
    if dataset is None:
        return np.empty(0, np.int8)
    split, part = run.split(), np.full(dataset.rows, 3, np.int8)
    for code, places in enumerate((split.train, split.validation, split.test)):
        part[places] = code
    return part


def named(box: object) -> str:
    """What a box of a model is called: ``diagonal normal``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(box).__name__).lower()


@functools.cache
def _load() -> None:
    """Have PyTorch load what forward derivatives need, which two jobs at once would not survive (Python 3.11)."""
    one = torch.ones(1)
    torch.func.jvp(torch.sin, (one,), (one,))


_OPENED: OrderedDict[tuple[Path, str | None, tuple[int, ...]], Subject] = OrderedDict()
_OPENING = threading.Lock()
