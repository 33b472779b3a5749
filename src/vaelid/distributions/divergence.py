"""Kullback–Leibler divergences that have a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from vaelid.distributions.base import Distribution
from vaelid.distributions.continuous import Normal
from vaelid.errors import InputTypeError


def has_kl(q: Distribution, p: Distribution) -> bool:
    """Whether `kl_cells` has a closed form for this pair."""
    return isinstance(q, Normal) and isinstance(p, Normal)


def kl_cells(q: Distribution, p: Distribution) -> Tensor:
    """KL(q ‖ p) = E_q[log q − log p] of every cell, shape broadcast(q, p), nats.

    Between normals, with ρ = log(scale_q / scale_p) and Δ = (loc_q − loc_p) / scale_p, it is
    ½ (e^(2ρ) − 1 − 2ρ) + ½ Δ². Source: Kingma and Welling 2014, appendix B, where p is N(0, 1).

    Raises:
        InputTypeError: the pair has no closed form; take log q − log p at samples of q instead.
    """
    if not (isinstance(q, Normal) and isinstance(p, Normal)):
        raise InputTypeError(
            f"KL({type(q).__name__} ‖ {type(p).__name__}) has no closed form here",
            "two Normals",
            "estimate it by log q − log p at samples of q",
        )
    rho = q.scale.log() - p.scale.log()
    delta = (q.loc - p.loc) / p.scale
    return 0.5 * (torch.expm1(2 * rho) - 2 * rho + delta.square())
