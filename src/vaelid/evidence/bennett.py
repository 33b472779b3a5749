"""Bennett's acceptance ratio: one estimate of log p(x) from forward and reverse chains together."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bennett(forward: Tensor, reverse: Tensor) -> Tensor:
    """The root C of Σ σ(f − C − m) = Σ σ(C − r + m), m = log (forward chains / reverse chains) (Bennett 1976, eq. 12).

    It has the smallest variance of all estimates from independent forward and reverse log-weights, and between the
    two bounds no sign of its own: it is no bound. NaN where either side has no finite weight.

    Args:
        forward: log w of forward chains, (chain, row).
        reverse: log w of chains run in reverse, (chain, row).

    Returns:
        log p(x), (row,), nats.
    """
    ratio = math.log(len(forward) / len(reverse))
    forward, reverse = forward.where(~forward.isnan(), -math.inf), reverse.where(~reverse.isnan(), math.inf)
    both = torch.cat((forward, reverse))
    finite = both.isfinite()
    low = torch.where(finite, both, math.inf).amin(0) - abs(ratio) - 1
    high = torch.where(finite, both, -math.inf).amax(0) + abs(ratio) + 1
    for _ in range(100):
        middle = (low + high) / 2
        excess = torch.sigmoid(forward - middle - ratio).sum(0) - torch.sigmoid(middle - reverse + ratio).sum(0)
        low, high = torch.where(excess > 0, middle, low), torch.where(excess > 0, high, middle)
    usable = forward.isfinite().any(0) & reverse.isfinite().any(0)
    return torch.where(usable, (low + high) / 2, math.nan)
