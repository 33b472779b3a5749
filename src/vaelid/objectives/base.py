"""What an objective is and what it returns."""

from __future__ import annotations

import abc
from dataclasses import dataclass

from torch import Tensor

from vaelid.model import Problem


@dataclass(frozen=True, eq=False)
class Outcome:
    """One evaluation of an objective on a batch.

    Attributes:
        surrogate: what is maximised, () nats per row; its gradient is the estimator, its value need not be a bound.
        terms: per-row parts of the bound, (batch,) nats each: ``reconstruction`` E_q log p(x|z) and ``rate`` KL.
        bound: a lower bound on log p(x) in expectation, (batch,) nats; None where the objective has none.
    """

    surrogate: Tensor
    terms: dict[str, Tensor]
    bound: Tensor | None


class Objective(abc.ABC):
    """A callable ``objective(problem, u, step)``; ``u`` is noise of shape (samples, batch, k)."""

    samples: int

    @property
    def settled_at(self) -> int:
        """The first step at which the objective no longer changes with the step."""
        return 0

    @property
    def compilable(self) -> bool:
        """Whether plain differentiation of the surrogate gives its gradient, without hooks, and ``step`` may be a
        tensor: only then is a training step compiled."""
        return False

    @abc.abstractmethod
    def __call__(self, problem: Problem, u: Tensor, step: int | Tensor) -> Outcome:
        """The outcome on the problem's rows; ``step`` counts optimiser steps from 0, as a float tensor () in a compiled
        training step."""


def mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over rows, (batch,) → (): Σ w v / Σ w."""
    return values.mean() if weight is None else (weight * values).sum() / weight.sum()
