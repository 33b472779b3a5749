"""Where the ELBO falls short of log p(x): the family of q, the encoder, and rows that were not trained on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
from torch import Tensor

from vaelid.errors import InputError
from vaelid.evidence.annealing import OnProgress
from vaelid.evidence.bracket import bracket
from vaelid.evidence.families import Diagonal, Family, Flow, Full
from vaelid.evidence.optimised import Optimised, optimise
from vaelid.evidence.result import Bracket
from vaelid.model import VAE
from vaelid.random import Key

if TYPE_CHECKING:
    import pandas as pd


class Mean(NamedTuple):
    """A mean over rows, nats.

    Attributes:
        value: the mean.
        se: its standard error over rows, standard deviation / √rows; Monte Carlo error is part of it.
        mc_se: its Monte Carlo standard error alone, the rows held fixed.
    """

    value: float
    se: float
    mc_se: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.se:.3f} ({self.mc_se:.3f})"


class Quantity(NamedTuple):
    """Estimates per row with their Monte Carlo standard errors, float64, (rows,), nats."""

    value: Tensor
    mc_se: Tensor

    def less(self, other: Quantity) -> Quantity:
        """The difference of independent estimates."""
        return Quantity(self.value - other.value, torch.hypot(self.mc_se, other.mc_se))

    def mean(self) -> Mean:
        """The mean over rows."""
        rows = len(self.value)
        se = float(self.value.std()) / math.sqrt(rows) if rows > 1 else math.nan
        return Mean(float(self.value.mean()), se, float(self.mc_se.square().sum().sqrt()) / rows)


@final
@dataclass(frozen=True, eq=False)
class Split:
    """The gaps of one set of rows, each quantity per row.

    Attributes:
        families: where q* was sought.
        optimised: ELBOs of q and of each q*.
        bracket: both sides of log p(x), with the kind of statement that each is.
    """

    families: tuple[Family, ...]
    optimised: Optimised
    bracket: Bracket

    @property
    def elbo(self) -> Quantity:
        """L[q] of the model's own q."""
        return Quantity(self.optimised.elbo, self.optimised.elbo_mc_se)

    @property
    def log_evidence(self) -> tuple[Quantity, Quantity]:
        """The sides of log p(x)."""
        lower = Quantity(self.bracket.lower, self.bracket.lower_mc_se)
        return lower, Quantity(self.bracket.upper, self.bracket.upper_mc_se)

    @property
    def kl(self) -> tuple[Quantity, Quantity]:
        """The sides of KL(q ‖ p(z|x)) = log p(x) − L[q]."""
        lower, upper = self.log_evidence
        return lower.less(self.elbo), upper.less(self.elbo)

    def best(self, family: Family) -> Quantity:
        """L[q*]."""
        index = self.families.index(family)
        return Quantity(self.optimised.best[index], self.optimised.best_mc_se[index])

    def approximation(self, family: Family) -> tuple[Quantity, Quantity]:
        """The sides of log p(x) − L[q*]: what no member of the family can reach."""
        lower, upper = self.log_evidence
        return lower.less(self.best(family)), upper.less(self.best(family))

    def amortisation(self, family: Family) -> Quantity:
        """L[q*] − L[q]: what the encoder loses against a q of the row's own."""
        index = self.families.index(family)
        return Quantity(self.optimised.gain[index], self.optimised.gain_mc_se[index])

    @property
    def unsettled(self) -> Tensor:
        """Rows with a q* whose last search still gained, (rows,)."""
        return self.optimised.unsettled.any(0)

    def quantities(self) -> Iterator[tuple[str, str, Quantity]]:
        """Key, name in words and value of everything, family by family."""
        sides = (("lower", "least"), ("upper", "most"))
        yield "elbo", "ELBO of q", self.elbo
        for (key, _), side in zip(sides, self.log_evidence, strict=True):
            yield key, f"log p(x), {key} side", side
        for (key, word), side in zip(sides, self.kl, strict=True):
            yield f"kl_{key}", f"KL(q ‖ p(z|x)), {word}", side
        for family, label in zip(self.families, labels(self.families), strict=True):
            yield f"{label}_elbo", f"{label}: ELBO of q*", self.best(family)
            for (key, word), side in zip(sides, self.approximation(family), strict=True):
                yield f"{label}_approximation_{key}", f"{label}: approximation gap, {word}", side
            yield f"{label}_amortisation", f"{label}: amortisation gap", self.amortisation(family)

    def as_dict(self) -> dict[str, Any]:
        """Means over rows, ``x`` with ``x_se`` over rows and ``x_mc_se`` beside it."""
        table: dict[str, Any] = {"rows": len(self.bracket.row), "upper_kind": self.bracket.kind}
        table["lower_kind"] = self.bracket.lower_kind
        for name, _, quantity in self.quantities():
            table |= _entry(name, quantity.mean())
        return table | {"unsettled": int(self.unsettled.sum())}


@final
@dataclass(frozen=True, eq=False)
class Gaps:
    """Inference gaps of test rows, and of training rows where there are some.

    Attributes:
        test: gaps of rows that were not trained on.
        train: gaps of rows that were; None where none were given.
        samples: draws per row behind every ELBO.
        seconds: wall time of everything.
    """

    test: Split
    train: Split | None
    samples: int
    seconds: float

    @property
    def generalisation(self) -> tuple[Mean, Mean] | None:
        """The sides of mean log p(x) over training rows minus that over test rows."""
        if self.train is None:
            return None
        (train_lower, train_upper), (test_lower, test_upper) = self.train.log_evidence, self.test.log_evidence
        return _difference(train_lower, test_upper), _difference(train_upper, test_lower)

    @property
    def generalisation_elbo(self) -> Mean | None:
        """Mean L[q] over training rows minus that over test rows."""
        return None if self.train is None else _difference(self.train.elbo, self.test.elbo)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, every mean ``x`` with ``x_se`` over rows and ``x_mc_se`` beside it."""
        table: dict[str, Any] = {"test": self.test.as_dict(), "train": self.train.as_dict() if self.train else None}
        if self.generalisation is not None and self.generalisation_elbo is not None:
            for name, side in zip(("lower", "upper"), self.generalisation, strict=True):
                table |= _entry(f"generalisation_{name}", side)
            table |= _entry("generalisation_elbo", self.generalisation_elbo)
        return table | {
            "families": [repr(family) for family in self.test.families],
            "samples": self.samples,
            "seconds": self.seconds,
        }

    def frame(self) -> pd.DataFrame:
        """One line per row of data, as a pandas data frame; ``set`` is "test" or "train".

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd

        frames = []
        for name, split in (("test", self.test), ("train", self.train)):
            if split is None:
                continue
            columns: dict[str, Any] = {
                "set": name,
                "row": split.bracket.row.numpy(),
                "unsettled": split.unsettled.numpy(),
            }
            for label, _, quantity in split.quantities():
                columns |= {label: quantity.value.numpy(), f"{label}_mc_se": quantity.mc_se.numpy()}
            frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True)

    def __str__(self) -> str:
        splits = {"test": self.test} | ({} if self.train is None else {"train": self.train})
        cells = [["", *(f"{name}, {len(split.bracket.row):,} rows" for name, split in splits.items())]]
        for column in zip(*(split.quantities() for split in splits.values()), strict=True):
            cells.append([column[0][1], *(str(quantity.mean()) for *_, quantity in column)])
        if self.generalisation is not None:
            names = ("log p(x), train − test, least", "log p(x), train − test, most", "ELBO of q, train − test")
            differences = (*self.generalisation, self.generalisation_elbo)
            cells += [[name, str(value), ""] for name, value in zip(names, differences, strict=True)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["inference gaps, means in nats ± standard error over rows (of which Monte Carlo)"]
        for first, *rest in cells:
            padded = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
            lines.append("  ".join(("", first.ljust(widths[0]), *padded)).rstrip())
        for name, split in splits.items():
            if unsettled := int(split.unsettled.sum()):
                lines.append(f"  {unsettled:,} of the {name} rows have a q* that still gained at the end; raise steps")
        kinds = ", ".join(f"{split.bracket.kind} ({name})" for name, split in splits.items())
        return "\n".join([*lines, f"  the upper side of log p(x) is: {kinds}; {self.seconds:.1f} s"])


def gaps(
    model: VAE,
    test: Any,
    *,
    train: Any = None,
    families: Sequence[Family] = (Diagonal(), Full(), Flow()),
    steps: int = 300,
    samples: int = 1000,
    brackets: Sequence[Bracket] | None = None,
    key: Key | None = None,
    on_progress: OnProgress | None = None,
) -> Gaps:
    """The gaps between the ELBO and log p(x), per row and in mean (Cremer et al. 2018, "Inference suboptimality").

    With q* the best q of a family for the row,

        log p(x) − L[q] = (log p(x) − L[q*]) + (L[q*] − L[q]) = approximation gap + amortisation gap,

    which is also KL(q ‖ p(z|x)). log p(x) is known between two sides, and so are the approximation gap and the KL.
    L[q*] is that of the q* *found*, under fresh noise: where the search falls short of the best one, the amortisation
    gap is reported too small and the approximation gap too large, each by as much; see
    `vaelid.evidence.optimised.optimise`. The generalisation gap is the mean of log p(x) over training rows minus that
    over test rows.

    Args:
        model: any model with one group of latents; one without an encoder has the best diagonal normal for a q.
        test: rows that were not trained on, an array or a `Batch`.
        train: rows that were.
        families: `Diagonal`, `Full`, `Flow`.
        steps: steps of each search for q*.
        samples: draws per row behind every ELBO.
        brackets: of the test rows, then of the training rows where there are some, if they are known already; else
            they come from `vaelid.evidence.bracket.bracket`.
        key: names the noise; ``Key(0)`` by default.
        on_progress: called with a stage's name and the rows done, of how many.

    Raises:
        InputError: the brackets are not one for each set, or of other rows; see `optimise` for the rest.
    """
    begin, key, families = time.perf_counter(), key or Key(0), tuple(families)
    sets = [("test", model.batch(test))] + ([] if train is None else [("train", model.batch(train))])
    if brackets is not None and len(brackets) != len(sets):
        raise InputError(f"{len(brackets)} brackets for {len(sets)} sets of rows", "one for each")
    for (name, batch), known in zip(sets, brackets or (), strict=False):
        if not torch.equal(known.row, batch.ids().cpu()):
            raise InputError(f"a bracket of other rows than the {name} rows", "the same rows in the same order")
    splits = []
    for index, (name, batch) in enumerate(sets):
        stage = f"q* of {name} rows"

        def on_rows(done: int, stage: str = stage, rows: int = batch.rows) -> None:
            if on_progress is not None:
                on_progress(stage, done, rows)

        own = key.fold(name)
        found = optimise(model, batch, families, steps=steps, samples=samples, key=own.fold("q"), on_rows=on_rows)
        if brackets is None:
            known = bracket(model, batch, key=own.fold("bracket"), on_progress=on_progress)
        else:
            known = brackets[index]
        splits.append(Split(families, found, known))
    return Gaps(splits[0], splits[1] if train is not None else None, samples, time.perf_counter() - begin)


def labels(families: Sequence[Family]) -> list[str]:
    """A short name for each family: its class, with its settings where two are of one class."""
    names = [type(family).__name__ for family in families]
    return [
        name.lower() if names.count(name) == 1 else repr(family) for name, family in zip(names, families, strict=True)
    ]


def _difference(left: Quantity, right: Quantity) -> Mean:
    """The difference of the means of two sets of rows."""
    a, b = left.mean(), right.mean()
    return Mean(a.value - b.value, math.hypot(a.se, b.se), math.hypot(a.mc_se, b.mc_se))


def _entry(name: str, mean: Mean) -> dict[str, float]:
    return {name: mean.value, f"{name}_se": mean.se, f"{name}_mc_se": mean.mc_se}
