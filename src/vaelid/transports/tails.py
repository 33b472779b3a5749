"""The normal distribution function and its inverse with all digits in the lower tail."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_FAR = -80.0  # log-probabilities below this have no exponential in float32


def log_ndtr(t: Tensor) -> Tensor:
    """log Φ(t), differentiable once, with the slope φ/Φ from erfcx: PyTorch's own loses its digits far below 0."""
    value: Tensor = torch.special.log_ndtr(t.detach())
    return value + (t - t.detach()) / _mills(t.detach())


def ndtri_exp(log_p: Tensor) -> Tensor:
    """t with log Φ(t) = log_p, for log_p up to log ½ or a little above; differentiable once.

    The start is Φ⁻¹(exp log_p), or far out −√(2y − log 4πy) with y = −log_p; Newton steps on log Φ follow.
    """
    y = -log_p.detach()
    far = y.clamp(min=-_FAR)
    t: Tensor = torch.where(y < -_FAR, torch.special.ndtri((-y).exp()), -(2 * far - (4 * math.pi * far).log()).sqrt())
    for _ in range(3):
        t = t - (torch.special.log_ndtr(t) + y) * _mills(t)
    return t + (log_p + y) * _mills(t)


def _mills(t: Tensor) -> Tensor:
    """Φ(t) / φ(t), the inverse of the slope of log Φ."""
    ratio: Tensor = math.sqrt(math.pi / 2) * torch.special.erfcx(t * -math.sqrt(0.5))
    return ratio
