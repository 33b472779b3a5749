"""From log-weights to an estimate of log p(x), with its error and its effective sample size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaelid.random import Key


def reduced(log_weight: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate, Monte Carlo standard error and effective sample size over chains (chain, row) of log w.

    Forward log (1/M Σ w), in reverse −log (1/M Σ 1/w). NaN counts as weight 0: the bounds stay bounds.
    """
    sign = -1.0 if reverse else 1.0
    values = (sign * log_weight).nan_to_num(nan=-math.inf, neginf=-math.inf, posinf=math.inf)
    chains = len(values)
    total = values.logsumexp(0)
    ess = (2 * total - (2 * values).logsumexp(0)).exp().nan_to_num(nan=0.0)
    mc_se = ((1 / ess - 1 / chains).clamp(min=0) * (chains / (chains - 1) if chains > 1 else math.nan)).sqrt()
    return sign * (total - math.log(chains)), mc_se, ess


def resampled(log_weight: Tensor, draws: int, ids: Tensor, key: Key) -> Tensor:
    """Which chains to take, (draw, row), by systematic resampling of their weights, (chain, row) (Kitagawa 1996).

    A chain of share s is taken ⌊draws · s⌋ or ⌈draws · s⌉ times. Weights that are not finite count as 0; where all are,
    each counts the same.
    """
    finite = log_weight.isfinite()
    usable = torch.where(finite, log_weight, -torch.inf)
    share = torch.where(finite.any(0), usable, 0.0).softmax(0).cumsum(0).T.contiguous()
    uniform = key.fold("resample").uniform_rows(ids, 1, 1, dtype=torch.float64)[0]
    marks = (torch.arange(draws, device=share.device) + uniform) / draws
    return torch.searchsorted(share, marks * share[:, -1:], right=True).clamp(max=len(log_weight) - 1).T
