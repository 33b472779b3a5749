"""Several local minima for every pair: further curves to begin with, and which of the minima are different ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from vaelid.geometry.blocks import each
from vaelid.geometry.manifold import Embedding
from vaelid.geometry.newton import Minimum, Status, lowest
from vaelid.random import Key

_SAME = 0.02  # of the length: minima that stay so near to one another are one
_TIE = 0.01  # minima whose lengths are so near are a tie


@final
@dataclass(frozen=True, eq=False)
class Best:
    """The best minimum of every pair.

    Attributes:
        minimum: the curves; their iterations are those of all tries.
        first: whether it came from the first curve, (n,).
        count: how many minima differ, (n,).
        tie: whether another one is about as short, (n,).
    """

    minimum: Minimum
    first: Tensor
    count: Tensor
    tie: Tensor


def bent(begin: Tensor, starts: int, key: Key) -> list[Tensor]:
    """``starts`` curves for every pair: those given, (n, N + 1, d), and some that are bent away from them.

    Half a sine along a direction across the pair's own, to both sides, at first as far as the pair is apart, then half
    as far, then along another direction. A direction is the same for all pairs, so a pair does not depend on others.
    """
    n, size, d = begin.shape
    ends = begin[:, -1] - begin[:, 0]
    wave = torch.sin(torch.linspace(0, math.pi, size, dtype=begin.dtype, device=begin.device))[:, None]
    tiny = torch.finfo(begin.dtype).tiny
    curves = [begin]
    for start in range(starts - 1):
        axis = key.fold("bend", start // 4).normal((1, d), dtype=begin.dtype).to(begin.device).expand(n, d)
        along = (axis * ends).sum(1, keepdim=True) / ends.square().sum(1, keepdim=True).clamp_min(tiny)
        across = axis - along * ends if d > 1 else axis
        across = across * (ends.norm(dim=1, keepdim=True) / across.norm(dim=1, keepdim=True).clamp_min(tiny))
        reach = (1.0, -1.0, 0.5, -0.5)[start % 4]
        curves.append(begin + reach * wave * across[:, None])
    return curves


def choose(f: Embedding, found: Minimum, starts: int) -> Best:
    """Of minima (starts · n), start by start, the best of every pair, and how many converged to different curves."""
    n = len(found.energy) // starts
    tries = Minimum(*(x.view(starts, n, *x.shape[1:]) for x in each(found)))
    rank = torch.where(tries.status == int(Status.BROKEN), torch.inf, tries.energy.nan_to_num(nan=torch.inf))
    order = rank.argsort(dim=0, stable=True)
    rows = torch.arange(n, device=order.device)
    ranked = [Minimum(*(x[place, rows] for x in each(tries))) for place in order]
    best = replace(ranked[0], iterations=tries.iterations.sum(0))
    least = (2 * best.energy).sqrt()
    known, count, tie = [best.nodes], torch.ones_like(rows), torch.zeros_like(rows, dtype=torch.bool)
    for other in ranked[1:]:
        apart = torch.stack([_apart(f, other.nodes, nodes) > _SAME * least for nodes in known]).all(0)
        new = apart & (other.status == int(Status.CONVERGED)) & lowest(f, other.nodes)
        count += new
        tie |= new & ((2 * other.energy).sqrt() <= (1 + _TIE) * least)
        known.append(other.nodes)
    return Best(best, order[0] == 0, count, tie)


def _apart(f: Embedding, one: Tensor, other: Tensor) -> Tensor:
    """The largest distance in the target space between curves at the same time, (n,)."""
    p, q = (f.values(nodes.flatten(0, 1)).view(*nodes.shape[:2], -1) for nodes in (one, other))
    return f.target.squared(p, q).amax(1).sqrt()
