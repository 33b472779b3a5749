"""How far chains can be trusted: ArviZ's R-hat and effective sample size, and the Pareto k-hat of weights.

Every number is ArviZ's. Only the ranks behind R-hat and effective sample size are computed here, for all cells at once
and equal to ArviZ's bit for bit, since its own loop spends most of its time on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

TAIL = 25  # draws below which ArviZ finds too few in the tail
SHORT = 8  # draws per chain; halves of shorter chains go to ArviZ whole, which refuses halves below 4 by themselves


def r_hat(draws: Tensor) -> Tensor:
    """Rank-normalised split R-hat, the larger of that of the draws and that of their distances from the median.

    NaN where nothing can be said: fewer than two chains or four draws, a draw that is not finite, draws that are all
    the same. ∞ or very large where every chain stands still, each at its own place.

    Args:
        draws: one quantity per cell, (chain, draw, *cell), e.g. (chain, draw, row) or (chain, draw, row, d).

    Returns:
        R-hat, (*cell), float64; 1 where the chains agree.

    Source: Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), Rank-normalization, folding, and localization.
    """
    arviz = _arviz()

    def found(values: np.ndarray) -> np.ndarray:
        if values.shape[-1] < SHORT:
            return np.asarray(arviz.rhat(values, method="rank"))
        halves = _halves(values)
        folded = np.abs(halves - np.median(halves, axis=(-2, -1), keepdims=True))
        bulk = np.asarray(arviz.rhat(_z_scale(halves), method="identity"))
        tail = np.asarray(arviz.rhat(_z_scale(folded), method="identity"))
        return np.where(tail > bulk, tail, bulk)  # the bulk's where all distances are the same, as ArviZ has it

    return _each_cell(draws, found, chains=2)


def effective_draws(draws: Tensor) -> Tensor:
    """Bulk effective sample size: the number of independent draws that would tell the mean of the ranks as well.

    NaN where nothing can be said: fewer than four draws per chain, a draw that is not finite, draws that are all the
    same (for which ArviZ says the number of draws).

    Args:
        draws: one quantity per cell, (chain, draw, *cell).

    Returns:
        Effective sample size of all chains together, (*cell), float64.

    Source: Vehtari et al. (2021), section 3; Geyer (1992) for where the autocorrelations are cut.
    """
    arviz = _arviz()

    def found(values: np.ndarray) -> np.ndarray:
        if values.shape[-1] < SHORT:
            return np.asarray(arviz.ess(values, method="bulk"))
        return np.asarray(arviz.ess(_z_scale(_halves(values)), method="identity"))

    return _each_cell(draws, found, chains=1)


def pareto_k(log_weight: Tensor) -> Tensor:
    """Shape k of the generalised Pareto distribution fitted to the largest weights of each row.

    Weights have 1/k moments; above 0.7 their mean and its standard error cannot be relied upon. NaN where nothing can
    be said: fewer than 25 draws, a weight that is NaN or ∞, too few weights above 0, or largest weights that are all
    the same.

    Args:
        log_weight: log w, (draw, row); −∞ is a weight of 0.

    Returns:
        k-hat, (row,), float64.

    Source: Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling.
    """
    arviz = _arviz()

    values = np.ascontiguousarray(log_weight.detach().double().cpu().numpy().T)
    k_hat = np.full(len(values), math.nan)
    usable = (values < math.inf).all(-1) & (values > -math.inf).any(-1)  # NaN is below nothing
    for row in np.flatnonzero(usable & (values.shape[1] >= TAIL)):
        try:
            with np.errstate(all="ignore"):
                k_hat[row] = arviz.psislw(-values[row])[1]  # ArviZ takes log-likelihoods left out, −log w
        except ValueError:  # a tail without differences
            continue
    return torch.from_numpy(np.where(np.isfinite(k_hat), k_hat, math.nan)).to(log_weight.device)


def _arviz() -> Any:
    """ArviZ's functions of arrays, imported late since that takes a second."""
    from arviz_stats.base.array import array_stats

    return array_stats


def _each_cell(draws: Tensor, found: Callable[[np.ndarray], np.ndarray], chains: int) -> Tensor:
    """``found`` where there are enough chains and draws, all finite and not all the same; NaN elsewhere."""
    shape = draws.shape[2:]
    cells: Any = draws.detach().double().cpu().flatten(2) if shape else draws.detach().double().cpu().unsqueeze(-1)
    values = np.ascontiguousarray(cells.permute(2, 0, 1).numpy())
    result = np.full(len(values), math.nan)
    if values.shape[1] >= chains and values.shape[2] >= 4:
        varied = values.max((1, 2)) > values.min((1, 2))
        usable = varied & np.isfinite(values).all((1, 2))
        if usable.any():
            with np.errstate(all="ignore"):
                result[usable] = found(values[usable])
    return torch.from_numpy(result).view(shape).to(draws.device)


def _halves(values: np.ndarray) -> np.ndarray:
    """Each chain as two, (cell, 2 chain, draw // 2)."""
    half = values.shape[-1] // 2
    return np.concatenate((values[..., :half], values[..., -half:]), -2)


def _z_scale(values: np.ndarray) -> np.ndarray:
    """Normal quantiles of the ranks among all draws of a cell (Blom 1958)."""
    from scipy import special, stats

    size = values.shape[-1] * values.shape[-2]
    ranks = stats.rankdata(values.reshape(-1, size), axis=-1)
    scores: np.ndarray = special.ndtri((ranks - 3 / 8) / (size + 1 / 4)).reshape(values.shape)
    return scores
