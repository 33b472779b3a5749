"""A mixture of normals as a transport of noise: the Knothe–Rosenblatt map, coordinate by coordinate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from vaelid.distributions import Normal
from vaelid.distributions.special import HALF_LOG_2PI, ndtr
from vaelid.transports.full import FullNormal
from vaelid.transports.tails import log_ndtr, ndtri_exp


@final
@dataclass(frozen=True, eq=False)
class MixtureOfNormals:
    """q(z) = Σ_k w_k N(z; μ_k, Σ_k), with Φ(u_j) = F_j(z_j | z_<j) for every coordinate j (Rosenblatt 1952).

    F_j is the conditional distribution function, Σ_k r_k Φ((z_j − m_kj) / s_kj), with the responsibilities r_k of the
    components given z_<j and their conditional means m and scales s. `pull` evaluates it, in the tail that keeps the
    digits; `push` solves for z_j by Newton's method inside a bracket and takes the gradient from the implicit function
    theorem, so that gradients through z are unbiased in every parameter, the weights included. They exist once, not
    twice, and have a large variance where components are many scales apart. Exact where Φ(−|u|) does not underflow:
    |u| < 12 in float32.

    Attributes:
        logits: log w_k up to a constant, (batch, K).
        components: normals with parameters (batch, K, d), or (batch, K, d, d) for a full scale.
    """

    logits: Tensor
    components: Normal | FullNormal

    @property
    def size(self) -> int:
        """d, the number of latents."""
        return self.components.size

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z = T(u), (sample, batch, d), and log q(z), (sample, batch), nats."""
        log_joint = self.logits.log_softmax(-1)  # log w_k + log q_k(z_<j), (sample, batch, K) from j = 1 on
        columns: list[Tensor] = []
        noise: list[Tensor] = []  # (z_j − m_kj) / s_kj, (sample, batch, K)
        for j, scale in enumerate(self.components.scale.unbind(-1)):
            loc = self._conditional_loc(noise)
            z = _quantile(log_joint.log_softmax(-1), loc, scale, u[..., j])
            v = (z.unsqueeze(-1) - loc) / scale
            log_joint = log_joint - 0.5 * v.square() - scale.log() - HALF_LOG_2PI
            columns.append(z)
            noise.append(v)
        return torch.stack(columns, -1), log_joint.logsumexp(-1)

    def pull(self, z: Tensor) -> Tensor:
        """u = Φ⁻¹(F(z)), (sample, batch, d)."""
        v = self.components.pull(z.unsqueeze(-2))
        cells = -0.5 * v.square() - self.components.scale.log()
        before = functional.pad(cells[..., :-1], (1, 0)).cumsum(-1)  # Σ over the coordinates before
        log_r = (self.logits.unsqueeze(-1) + before).log_softmax(-2)
        side = _side((log_r.exp() * ndtr(v)).sum(-2) - 0.5)
        return side * ndtri_exp((log_r + log_ndtr(side.unsqueeze(-2) * v)).logsumexp(-2))

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(z) = logsumexp_k (log w_k + log q_k(z)), (sample, batch), nats."""
        return (self.logits.log_softmax(-1) + self.components.log_prob(x.unsqueeze(-2))).logsumexp(-1)

    def detach(self) -> MixtureOfNormals:
        """The same mixture with weights, means and scales cut from the graph."""
        return MixtureOfNormals(self.logits.detach(), self.components.detach())

    def _conditional_loc(self, noise: list[Tensor]) -> Tensor:
        """Mean of the next coordinate within each component, given the noise of those before it, (…, K)."""
        j = len(noise)
        loc = self.components.loc[..., j]
        if j == 0 or isinstance(self.components, Normal):
            return loc
        return loc + (self.components.scale_tril[..., j, :j] * torch.stack(noise, -1)).sum(-1)


def _quantile(log_r: Tensor, loc: Tensor, scale: Tensor, u: Tensor) -> Tensor:
    """z with Σ_k r_k Φ((z − loc_k) / scale_k) = Φ(u), shape that of u; differentiable once in everything.

    Both sides are mirrored where u > 0, so that small probabilities are compared with small ones.
    """
    side = _side(u)
    loc, target = side.unsqueeze(-1) * loc, side * u
    y = _solve(log_r.detach(), loc.detach(), scale.detach(), target.detach())
    t = (y.unsqueeze(-1) - loc) / scale
    log_cdf = (log_r + log_ndtr(t)).logsumexp(-1)
    with torch.no_grad():
        log_pdf = (log_r - 0.5 * t.square() - scale.log() - HALF_LOG_2PI).logsumexp(-1)
        floor = 2 * math.log(torch.finfo(u.dtype).eps)  # a slope that cannot be told from 0 next to F
        slope = (log_pdf - log_cdf).clamp(min=floor).exp()
    error = (log_cdf - log_ndtr(target)) / slope
    return side * (y - (error - error.detach()))


@torch.no_grad()
def _solve(log_r: Tensor, loc: Tensor, scale: Tensor, target: Tensor) -> Tensor:
    """The root y of Φ⁻¹(Σ_k r_k Φ((y − loc_k) / scale_k)) = target ≤ 0, by Newton steps that a bracket guards.

    The components' own quantiles bracket the root; for one component the function is a straight line. On a CPU the
    steps end when every root is found, elsewhere their number is fixed: looking at them would wait for the device.
    """
    eps, weight = torch.finfo(target.dtype).eps, log_r.exp()
    quantiles = loc + scale * target.unsqueeze(-1)
    low, high = quantiles.amin(-1), quantiles.amax(-1)
    y = (weight * quantiles).sum(-1)
    for _ in range(16 if eps > 1e-8 else 32):
        t = (y.unsqueeze(-1) - loc) / scale
        score = torch.special.ndtri((weight * ndtr(t)).sum(-1))
        error = score - target
        if error.device.type == "cpu" and bool((error.abs() <= 4 * eps * (1 - target)).all()):
            break
        density = (weight * (-0.5 * t.square()).exp() / scale).sum(-1)
        step = -error * (-0.5 * score.square()).exp() / density
        low, high = torch.where(error < 0, y, low), torch.where(error < 0, high, y)
        newton = y + step
        good = (newton >= low) & (newton <= high) & (2 * step.abs() <= high - low)
        y = torch.where(good, newton, (low + high) / 2)
    return y


def _side(x: Tensor) -> Tensor:
    """−1 where x > 0, else 1."""
    return 1 - 2 * (x > 0).to(x.dtype)
