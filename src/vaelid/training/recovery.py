"""What counts as a step gone wrong, and what to name when one has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from vaelid.objectives import Outcome
from vaelid.training.adam import Adam

ATTEMPTS = 3  # failures of the same stretch before training stops
LOWER = 0.3  # what a failure multiplies the rate by
RISE = 10.0  # an explosion rises this many times (spread of the losses so far + 1 nat per cell) above the highest
TAIL = 3  # steps in a row that have to stay there: one outlying batch is no explosion


@final
class Failed(Exception):
    """A stretch that cannot stand.

    Attributes:
        reason: why.
        index: which of its steps went wrong, from 0; None where that was found after its end.
        tensor: what is not finite, where that is known already.
        rows: the rows at fault, where they are known already.
    """

    def __init__(self, reason: str, index: int | None = None, tensor: str = "", rows: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.reason, self.index, self.tensor, self.rows = reason, index, tensor, list(rows)


def inspect(losses: Sequence[float], lengths: Sequence[float], high: float, low: float, cells: int) -> None:
    """Look at a stretch of steps in which ``losses`` (nats per row) and gradients of ``lengths`` were seen.

    Raises:
        Failed: a number is not finite, or the last `TAIL` losses (all, in a shorter stretch) lie more than
            `RISE` · (high − low + cells) above ``high``, where ``high`` and ``low`` are the extreme losses so far.
            Neither the units of x, which shift all densities alike, nor a single heavy row makes a difference.
    """
    for index, (loss, length) in enumerate(zip(losses, lengths, strict=True)):
        if not math.isfinite(loss):
            raise Failed("the loss is not finite", index)
        if not math.isfinite(length):
            raise Failed("the gradient is not finite", index)
    limit = high + RISE * (high - low + cells)
    first = len(losses)
    while first and losses[first - 1] > limit:
        first -= 1
    if len(losses) - first >= min(TAIL, len(losses)):
        reason = f"the loss rose to {losses[first]:.3g} and stayed there, {high:.3g} being the highest so far"
        raise Failed(reason, first)


def culprit(outcome: Outcome, optimizer: Adam) -> str:
    """The first part of the bound, or else the first parameter's gradient, that is not finite; or else the longest."""
    for name, term in outcome.terms.items():
        if not bool(term.isfinite().all()):
            return f"the {name}"
    lengths = {
        name: float(p.grad.norm()) if p.grad is not None else 0.0
        for name, p in zip(optimizer.names, optimizer.parameters, strict=True)
    }
    broken = [name for name, length in lengths.items() if not math.isfinite(length)]
    return f"the gradient of {broken[0] if broken else max(lengths, key=lambda name: lengths[name])}"


def rows_at_fault(outcome: Outcome, ids: Tensor) -> list[int]:
    """Rows whose bound (or any term) is not finite, or else the one that fares worst."""
    values = [*outcome.terms.values(), *([] if outcome.bound is None else [outcome.bound])]
    if not values:
        return []
    broken = torch.stack([~value.isfinite() for value in values]).any(0)
    chosen = ids[broken] if bool(broken.any()) else ids[values[-1].argmin().unsqueeze(0)]
    return [int(row) for row in chosen.tolist()]
