"""Planar flows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn, final

import torch
from torch import Tensor
from torch.nn import functional

from vaelid.distributions import Normal
from vaelid.errors import InputTypeError

_SHIFT = math.log(math.e - 1)  # softplus(_SHIFT) = 1


@final
@dataclass(frozen=True, eq=False)
class Planar:
    """z = f(μ + σ ⊙ u), f a chain of f_l(h) = h + û_l tanh(w_lᵀ h + b_l) (Rezende and Mohamed 2015, equation 10).

    û = u + (m(wᵀu) − wᵀu) w / |w|² has wᵀû > −1, which makes f_l invertible (their appendix A); here
    m(x) = −1 + softplus(x + log(e − 1)), so that m(0) = 0 and small u and w give nearly the identity. The inverse, and
    with it log q at z that were not pushed, has no closed form.

    Attributes:
        base: N(μ, diag σ²), parameters (batch, d).
        u, w: directions, (batch, layers, d).
        b: offsets, (batch, layers).
    """

    base: Normal
    u: Tensor
    w: Tensor
    b: Tensor

    @property
    def size(self) -> int:
        """d, the number of latents."""
        return self.base.size

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z, (sample, batch, d), and log q(z) = log N(u) − Σ log σ − Σ_l log |∂f_l|, (sample, batch), nats.

        |∂f_l| = 1 + (1 − t²) wᵀû with t = tanh(wᵀh + b), written as t² + (1 − t²) (1 + wᵀû), a sum of positive terms.
        """
        inner = (self.w * self.u).sum(-1)
        excess = functional.softplus(inner + _SHIFT)  # 1 + wᵀû
        tiny = torch.finfo(inner.dtype).eps ** 2
        ratio = (excess - 1 - inner) / self.w.square().sum(-1).clamp(min=tiny)
        direction = self.u + ratio.unsqueeze(-1) * self.w
        h, log_q = self.base.push(u)
        for layer in range(self.b.shape[-1]):
            t = torch.tanh((self.w[..., layer, :] * h).sum(-1) + self.b[..., layer])
            h = h + direction[..., layer, :] * t.unsqueeze(-1)
            log_q = log_q - (t.square() + (1 - t.square()) * excess[..., layer]).log()
        return h, log_q

    def pull(self, z: Tensor) -> NoReturn:
        """Refused: there is no closed form.

        Raises:
            InputTypeError: always.
        """
        raise InputTypeError(
            "the noise of given z under a planar posterior",
            "a posterior whose inverse has a closed form",
            "take posteriors.Flow or posteriors.FullNormal",
        )

    def log_prob(self, x: Tensor) -> NoReturn:
        """Refused: there is no closed form at z that were not pushed.

        Raises:
            InputTypeError: always.
        """
        raise InputTypeError(
            "log q of given z under a planar posterior, which knows it only at z that it pushed itself",
            "a posterior whose inverse has a closed form",
            "take posteriors.Flow or posteriors.FullNormal",
        )

    def detach(self) -> Planar:
        """The same flow with its parameters cut from the graph."""
        return Planar(self.base.detach(), self.u.detach(), self.w.detach(), self.b.detach())
