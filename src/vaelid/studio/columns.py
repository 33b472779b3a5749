"""Columns that points may be coloured by: labels, split, features, covariates, KL."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from vaelid.data.covariates import Category
from vaelid.errors import InputError, nearest
from vaelid.runs import context_of
from vaelid.studio.subject import Subject

LEGEND = 40  # categories with a line of their own
WHOLE = 100  # distinct whole numbers that are categories, at most
FEATURES = 200  # columns of a table that are offered
_PARTS = ("train", "validation", "test", "none")


@final
class Columns:
    """The columns of the rows that are shown, by name, in the order in which they are offered."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.found: dict[str, np.ndarray] = {}
        self.split = "split"
        if subject.dataset is None:
            return
        dataset, index = subject.dataset, subject.latents.index
        features = self._features(index)
        context = context_of(subject.run, dataset, index) if dataset.covariates is not None else None
        given = {} if context is None or dataset.covariates is None else dataset.covariates.decode(context)
        taken = {*features, *given, dataset.label_name}

        def own(name: str) -> str:
            return f"{name} of the run" if name in taken else name

        if dataset.labels is not None:
            self.found[dataset.label_name or "label"] = np.asarray(dataset.labels)[index]
        self.split = own("split")
        self.found[self.split] = np.array(_PARTS)[subject.part[index]]
        self.found |= features
        for name, values in given.items():
            if name not in self.found:  # a label may be context too
                category = dataset.covariates is not None and isinstance(dataset.covariates[name], Category)
                self.found[name] = values.astype(str) if category else values
        self.found[own("KL")] = subject.latents.kl

    def listed(self) -> list[dict[str, str]]:
        """Name and kind of each."""
        return [
            {"name": name, "kind": "category" if _categories(values) else "number"}
            for name, values in self.found.items()
        ]

    def colour(self, name: str) -> dict[str, Any]:
        """The values of a column: codes, names and counts of categories, or numbers with their ends.

        Raises:
            InputError: there is none of that name.
        """
        if name not in self.found:
            raise InputError(f"no column is called {name!r}", "one that there is", nearest(name, self.found))
        values = self.found[name]
        if not _categories(values):
            numbers = values.astype(np.float32)
            finite = numbers[np.isfinite(numbers)]
            low, high = (float(finite.min()), float(finite.max())) if len(finite) else (float("nan"), float("nan"))
            return {"kind": "number", "values": numbers, "low": low, "high": high}
        names, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
        said = [str(each) for each in names.tolist()]
        if name == self.split:
            said, codes, counts = _ordered(said, codes, counts)
        if len(said) > LEGEND:
            said, codes, counts = _grouped(said, codes, counts)
        return {"kind": "category", "codes": codes.astype(np.int32), "names": said, "counts": counts.tolist()}

    def _features(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of a table; numbers that were not observed are NaN."""
        names = [] if self.subject.picture else self.subject.features
        if not 0 < len(names) <= FEATURES:
            return {}
        x = self.subject.data.x[index].reshape(len(index), -1)
        mask = None if self.subject.rows is None else self.subject.rows.batch.mask
        seen = None if mask is None else mask.numpy(force=True)[index].reshape(x.shape)
        return {
            name: x[:, cell] if seen is None else np.where(seen[:, cell], x[:, cell], np.nan)
            for cell, name in enumerate(names)
        }


def _categories(values: np.ndarray) -> bool:
    if values.dtype.kind not in "fiu":
        return True
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.floor(values)).all()):
        return False
    distinct = len(np.unique(values))
    return distinct <= WHOLE and 2 * distinct <= len(values)


def _ordered(names: list[str], codes: np.ndarray, counts: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The parts of a split in their own order."""
    order = sorted(range(len(names)), key=lambda code: _PARTS.index(names[code]))
    return [names[code] for code in order], np.argsort(order)[codes], counts[order]


def _grouped(names: list[str], codes: np.ndarray, counts: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The most frequent categories, in their order, and one that holds the rest."""
    kept = np.sort(np.argsort(-counts, kind="stable")[: LEGEND - 1])
    new = np.full(len(names), len(kept))
    new[kept] = np.arange(len(kept))
    rest = len(names) - len(kept)
    total = np.append(counts[kept], counts.sum() - counts[kept].sum())
    return [names[code] for code in kept] + [f"other ({rest} categories)"], new[codes], total
