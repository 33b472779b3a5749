"""Isometric embeddings: functions of a family's parameters whose squared differential is the Fisher–Rao metric.

A family with one parameter per cell is a curve, so its Fisher–Rao metric is flat and arc length is the coordinate:
φ(θ) = ∫ √I(θ) dθ. Masses on finitely many levels lie on a sphere, φ = 2√p. A location with its scale predicted beside
it is a hyperbolic plane and has no flat coordinates.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vaelid import distributions

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


def bernoulli(logits: Tensor) -> Tensor:
    """2 arcsin √p = π/2 + 2 atan(tanh(η/4)) with η the logit of p; I(η) = p (1 − p)."""
    return math.pi / 2 + 2 * torch.atan(torch.tanh(logits / 4))


def finite(log_probs: Tensor) -> Tensor:
    """2√p from the log masses of all levels, (*cells, levels), laid side by side in the last dimension of the cells."""
    return 2 * torch.exp(0.5 * log_probs).flatten(-2)


def poisson(log_mean: Tensor) -> Tensor:
    """2√μ; I(log μ) = μ."""
    return 2 * torch.exp(0.5 * log_mean)


def negative_binomial(log_mean: Tensor, log_concentration: Tensor) -> Tensor:
    """2√r asinh √(μ/r), whose r does not depend on z; I(log μ) = μ r / (μ + r)."""
    return 2 * torch.exp(0.5 * log_concentration) * torch.asinh(torch.exp(0.5 * (log_mean - log_concentration)))


def continuous_bernoulli(logits: Tensor) -> Tensor:
    """∫ √Var(x; l) dl from l = 0 to η, by Gauss–Legendre over v with l = sinh v, in which the integrand is smooth.

    The relative error is below 1e-12 up to |η| = 100 and below 1e-8 up to 10⁴.
    """
    end = torch.asinh(logits).unsqueeze(-1)
    v = end * logits.new_tensor(0.5 * (1 + _NODES))
    speed = distributions.ContinuousBernoulli(torch.sinh(v)).variance.sqrt() * torch.cosh(v)
    return (end * speed * logits.new_tensor(0.5 * _WEIGHTS)).sum(-1)
