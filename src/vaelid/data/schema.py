"""Which likelihood suits the data, by a short rule that is printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from vaelid import checks
from vaelid.data.dataset import Dataset
from vaelid.errors import InputError, nearest
from vaelid.likelihoods import resolution
from vaelid.types import Support

LIKELIHOODS = {
    "bernoulli": "cells that are 0 or 1",
    "binomial": "counts of successes among a known number of trials",
    "categorical": "cells that are one of the classes 0, 1, 2, …",
    "continuous-bernoulli": "numbers from 0 to 1",
    "discretized-logistic": "levels of equal steps, such as 8-bit images",
    "discretized-logistic-mixture": "the same, each cell a mixture of five",
    "gaussian": "real numbers, one σ learned per feature",
    "gaussian-fixed": "real numbers, σ given",
    "gaussian-shared": "real numbers, one σ learned for all features",
    "gaussian-predicted": "real numbers, σ predicted from the latents",
    "laplace": "real numbers with exponential tails, one scale learned per feature",
    "log-normal": "numbers above 0, skewed, one σ of the logarithm learned per feature",
    "negative-binomial": "counts without an upper end",
    "ordinal": "cells that are one of the ordered levels 0, 1, 2, …",
    "poisson": "counts whose variance is their mean",
    "student-t": "real numbers with outliers, scale and degrees of freedom learned per feature",
    "zero-inflated-negative-binomial": "counts with more zeros than a negative binomial has",
}

_MAX_CLASSES = 1024
_GRIDS = ("discretized-logistic", "discretized-logistic-mixture")
_COUNTS = ("negative-binomial", "poisson", "zero-inflated-negative-binomial")


@final
@dataclass(frozen=True)
class Choice:
    """A likelihood by name, why it was chosen, and what the data say about its arguments.

    ``arguments`` holds ``trials`` (binomial), ``classes`` (categorical), ``levels`` (ordinal) or ``low``, ``high``,
    ``step`` (discretised logistic and its mixture), in the data's own units. ``binarise`` says that grey levels are
    drawn as 0 or 1.
    """

    likelihood: str
    reason: str
    arguments: dict[str, float]
    binarise: bool = False

    def line(self) -> str:
        """One line to print: ``likelihood: binomial, 16 trials (built-in digits: …)``."""
        given = self.arguments
        if "step" in given:
            details = [f"levels {given['low']:g} to {given['high']:g} in steps of {given['step']:g}"]
        else:
            details = [f"{value:g} {name}" for name, value in given.items()]
        return f"likelihood: {', '.join([self.likelihood, *details])} ({self.reason})"


def choose(dataset: Dataset, likelihood: str | None = None, binarise: bool = False) -> Choice:
    """The likelihood for a data set: the one named, or by the first rule that holds.

    1. a known number of trials → binomial; 2. only 0 and 1 → Bernoulli; 3. uint8 images → discretised logistic;
    4. whole numbers ≥ 0 → negative binomial; 5. numbers from 0 to 1 → continuous Bernoulli; 6. else Gaussian.
    With ``binarise``, grey levels become on or off anew at every step, and the likelihood is Bernoulli.

    Raises:
        InputError: an unknown name, values that the named likelihood cannot give, grey levels where there are none.
    """
    if likelihood is not None and likelihood not in LIKELIHOODS:
        raise InputError(f"no likelihood is called {likelihood!r}", "a known name", nearest(likelihood, LIKELIHOODS))
    if binarise:
        return _binarised(dataset, likelihood)
    if likelihood is None:
        return _by_rule(dataset)
    arguments = _arguments(dataset, likelihood)
    checks.support(dataset.x, _support(likelihood, arguments), likelihood, dataset.name)
    return Choice(likelihood, "chosen by you", arguments)


def grey_scale(dataset: Dataset) -> float:
    """What to divide the data by so that grey levels lie in [0, 1]: the trials, 255 for uint8, else 1."""
    if dataset.trials is not None:
        return float(dataset.trials)
    return 255.0 if dataset.x.dtype == np.uint8 and not _is_binary(dataset.x) else 1.0


def _by_rule(dataset: Dataset) -> Choice:
    x = dataset.x
    if dataset.trials is not None:
        reason = f"each cell counts 0–{dataset.trials}"
        if dataset.source == "digits":
            reason = "built-in digits: each pixel counts 0–16 dark dots of a 4×4 block"
        return Choice("binomial", reason, {"trials": dataset.trials})
    if _is_binary(x):
        return Choice("bernoulli", "all values are 0 or 1", {})
    if dataset.kind == "image" and x.dtype == np.uint8:
        return Choice("discretized-logistic", "8-bit images", _arguments(dataset, "discretized-logistic"))
    if x.min() >= 0 and _is_whole(x):
        return Choice("negative-binomial", "all values are whole numbers ≥ 0", {})
    if x.dtype.kind == "f" and x.min() >= 0 and x.max() <= 1:
        return Choice("continuous-bernoulli", "all values lie in [0, 1]", {})
    return Choice("gaussian", "real values; σ learned per feature, no smaller than the recorded step allows", {})


def _binarised(dataset: Dataset, likelihood: str | None) -> Choice:
    if likelihood not in (None, "bernoulli"):
        raise InputError(
            f"binarised data with the {likelihood} likelihood", "the bernoulli likelihood", "leave one of the two out"
        )
    x, scale = dataset.x, grey_scale(dataset)
    if x.min() < 0 or x.max() > scale:
        raise InputError(
            f"{dataset.name} has values from {x.min():g} to {x.max():g} and cannot be binarised",
            "grey levels: 8-bit values (uint8), or numbers from 0 to 1",
            "leave --binarise out or scale the data to [0, 1]",
        )
    return Choice("bernoulli", "grey levels binarised afresh at every step", {}, binarise=True)


def _arguments(dataset: Dataset, likelihood: str) -> dict[str, float]:
    """What the data say about a likelihood's arguments."""
    x = dataset.x
    if likelihood == "binomial":
        return {"trials": dataset.trials or max(1, int(x.max()))}
    if likelihood in ("categorical", "ordinal"):
        checks.support(x, Support(0, integer=True), likelihood, dataset.name)
        count = max(2, int(x.max()) + 1)
        what, noun = ("classes", "class numbers") if likelihood == "categorical" else ("levels", "levels")
        if count > _MAX_CLASSES:
            raise InputError(
                f"{dataset.name} has values up to {count - 1} for the {likelihood} likelihood",
                f"{noun} below {_MAX_CLASSES}",
                "choose --likelihood negative-binomial for counts",
            )
        return {what: count}
    if likelihood in _GRIDS:
        if x.dtype == np.uint8:
            return {"low": 0.0, "high": 255.0, "step": 1.0}
        return _levels(dataset, likelihood)
    return {}


def _levels(dataset: Dataset, likelihood: str) -> dict[str, float]:
    x = dataset.x
    low, high = float(x.min()), float(x.max())
    step = float(resolution(torch.from_numpy(x.reshape(-1, 1)).double(), rows=x.size)[0])
    if step == 0:
        raise InputError(
            f"all values of {dataset.name} are {low:g}", "at least two levels", "choose another likelihood"
        )
    count = round((high - low) / step)
    step = (high - low) / count
    position = (x.astype(np.float64) - low) / step
    if np.abs(position - np.round(position)).max() > 0.01:
        raise InputError(
            f"{dataset.name} has values off a grid of equal steps (smallest step {step:g})",
            f"levels of equal steps for the {likelihood} likelihood",
            "round the data or choose --likelihood gaussian",
        )
    return {"low": low, "high": high, "step": step}


def _support(likelihood: str, arguments: dict[str, float]) -> Support:
    if likelihood == "bernoulli":
        return Support(0, 1, integer=True)
    if likelihood == "binomial":
        return Support(0, arguments["trials"], integer=True)
    if likelihood == "categorical":
        return Support(0, arguments["classes"] - 1, integer=True)
    if likelihood == "ordinal":
        return Support(0, arguments["levels"] - 1, integer=True)
    if likelihood in _COUNTS:
        return Support(0, integer=True)
    if likelihood == "continuous-bernoulli":
        return Support(0, 1)
    if likelihood == "log-normal":
        return Support(0, strict=True)
    if likelihood in _GRIDS:
        return Support.grid(arguments["low"], arguments["high"], arguments["step"])
    return Support()


def _is_binary(x: np.ndarray) -> bool:
    return x.dtype.kind == "b" or (bool(x.min() >= 0 and x.max() <= 1) and _is_whole(x))


def _is_whole(x: np.ndarray) -> bool:
    return x.dtype.kind != "f" or bool((np.floor(x) == x).all())
