"""Kullback–Leibler divergences between transports that have a closed form."""

from __future__ import annotations

from torch import Tensor

from vaelid import distributions
from vaelid.distributions import Normal
from vaelid.errors import InputTypeError
from vaelid.transports.full import FullNormal
from vaelid.types import Transport


def has_kl(q: Transport, p: Transport) -> bool:
    """Whether `kl_cells` has a closed form for this pair."""
    return isinstance(q, Normal | FullNormal) and isinstance(p, Normal)


def kl_cells(q: Transport, p: Transport) -> Tensor:
    """KL(q ‖ p) per latent dimension, shape broadcast(q, p) ending in d, nats; the sum over d is the divergence.

    For a diagonal q it is `vaelid.distributions.kl_cells`. For a full one, N(μ, L Lᵀ) against N(m, diag s²), dimension
    j holds E_q KL(q(z_j | z_<j) ‖ p(z_j)), so no term is negative: with ρ = log(L_jj / s_j) and Δ = (μ_j − m_j) / s_j,

        ½ (e^(2ρ) − 1 − 2ρ) + ½ Δ² + ½ Σ_{i<j} (L_ji / s_j)²,

    and the sum is the familiar ½ (tr S⁻¹Σ + |Δ|² − d − log det S⁻¹Σ).

    Raises:
        InputTypeError: the pair has no closed form; take log q − log p at samples of q instead.
    """
    if isinstance(q, FullNormal) and isinstance(p, Normal):
        below = (q.scale_tril.tril(-1) / p.scale.unsqueeze(-1)).square().sum(-1)
        return distributions.kl_cells(Normal(q.loc, q.scale), p) + 0.5 * below
    if isinstance(q, Normal) and isinstance(p, Normal):
        return distributions.kl_cells(q, p)
    raise InputTypeError(
        f"KL({type(q).__name__} ‖ {type(p).__name__}) has no closed form here",
        "a Normal or a FullNormal, and a Normal",
        "estimate it by log q − log p at samples of q",
    )
