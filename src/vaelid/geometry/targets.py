"""Target spaces: where an embedding φ of latent space lands, and how far apart points are there.

Flat for all families that move one parameter per cell; a hyperbolic plane per cell where location and scale both move;
products of these for columns of several kinds; and a flat or hyperbolic space whose lengths are stretched by a
potential. All tensors end in the target's coordinates, (*lead, D).
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from vaelid.errors import InputError


class Target(abc.ABC):
    """A space with a metric, in coordinates.

    A curve's energy is N/2 Σ |r(φᵢ, φᵢ₊₁)|² over its N segments, with a residual r whose length is the distance of its
    two points up to the third order.
    """

    @abc.abstractmethod
    def residual(self, p: Tensor, q: Tensor) -> Tensor:
        """r(p, q), (*lead, R)."""

    @abc.abstractmethod
    def pull(self, p: Tensor, q: Tensor, dp: Tensor, dq: Tensor) -> tuple[Tensor, Tensor]:
        """∂r along dp and along dq (*lead, d, D), tangents at p and at q: (*lead, d, R) each."""

    @abc.abstractmethod
    def whiten(self, p: Tensor, v: Tensor) -> Tensor:
        """Tangents v at p in orthonormal coordinates, in which their length is the plain one, (*lead, R)."""

    @abc.abstractmethod
    def squared(self, p: Tensor, q: Tensor) -> Tensor:
        """The squared distance in the target space, or a lower bound of it, (*lead)."""

    def connection(self, p: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
        """Γ(u, v) at p in coordinates, (*lead, D); None where it vanishes.

        Raises:
            InputError: the metric is degenerate in these coordinates.
        """
        return None

    def ambient(self, p: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """⟨R(u, v) v, u⟩ of the target at p, (*lead): 0 where it is flat."""
        return u.new_zeros(u.shape[:-1])


@final
@dataclass(frozen=True)
class Flat(Target):
    """ℝᴰ."""

    def residual(self, p: Tensor, q: Tensor) -> Tensor:
        """q − p."""
        return q - p

    def pull(self, p: Tensor, q: Tensor, dp: Tensor, dq: Tensor) -> tuple[Tensor, Tensor]:
        """−dp and dq."""
        return -dp, dq

    def whiten(self, p: Tensor, v: Tensor) -> Tensor:
        """v."""
        return v

    def squared(self, p: Tensor, q: Tensor) -> Tensor:
        """|q − p|²."""
        return (q - p).square().sum(-1)


@final
@dataclass(frozen=True, eq=False)
class Hyperbolic(Target):
    """K hyperbolic planes, ds² = Σ dx²/σ² + β (d log σ)², with coordinates (x₁ … x_K, log σ₁ … log σ_K).

    The Fisher–Rao metric of a location-scale family is (α dm² + β dσ²) / σ² with constants α and β: x is √α m, and each
    plane has curvature −1/β (Gaussian: α = 1, β = 2).

    The residual of a plane is (Δx / √(σσ′), 2 √β sinh(½ Δ log σ)); its length is 2 √β sinh(s / 2√β) for points at
    distance s, exactly.

    Args:
        beta: β, (K,) or a number.
    """

    beta: Tensor | float

    def _root(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.beta, dtype=like.dtype, device=like.device).sqrt()

    def residual(self, p: Tensor, q: Tensor) -> Tensor:
        """(Δx / √(σσ′), 2 √β sinh(½ Δ log σ))."""
        (x, r), (y, s) = p.chunk(2, -1), q.chunk(2, -1)
        return torch.cat(((y - x) * torch.exp(-0.5 * (r + s)), 2 * self._root(p) * torch.sinh(0.5 * (s - r))), -1)

    def pull(self, p: Tensor, q: Tensor, dp: Tensor, dq: Tensor) -> tuple[Tensor, Tensor]:
        """The residual's derivatives."""
        (x, r), (y, s) = p.unsqueeze(-2).chunk(2, -1), q.unsqueeze(-2).chunk(2, -1)
        shrink, stretch = torch.exp(-0.5 * (r + s)), self._root(p) * torch.cosh(0.5 * (s - r))
        turn = -0.5 * (y - x) * shrink
        (dx, dr), (dy, ds) = dp.chunk(2, -1), dq.chunk(2, -1)
        at_p = torch.cat((-shrink * dx + turn * dr, -stretch * dr), -1)
        return at_p, torch.cat((shrink * dy + turn * ds, stretch * ds), -1)

    def whiten(self, p: Tensor, v: Tensor) -> Tensor:
        """(dx / σ, √β d log σ)."""
        (_, r), (dx, dr) = p.chunk(2, -1), v.chunk(2, -1)
        return torch.cat((dx * torch.exp(-r), self._root(p) * dr), -1)

    def squared(self, p: Tensor, q: Tensor) -> Tensor:
        """Σ over planes of s², s = 2 √β asinh(|r| / 2√β)."""
        along, across = self.residual(p, q).chunk(2, -1)
        root = self._root(p)
        return (2 * root * torch.asinh(torch.hypot(along, across) / (2 * root))).square().sum(-1)

    def connection(self, p: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """(−(u_x v_ρ + u_ρ v_x), u_x v_x / (β σ²)) with ρ = log σ."""
        (_, rho), (ux, ur), (vx, vr) = p.chunk(2, -1), u.chunk(2, -1), v.chunk(2, -1)
        return torch.cat((-(ux * vr + ur * vx), ux * vx * torch.exp(-2 * rho) / self._root(p).square()), -1)

    def ambient(self, p: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """−Σ (|u|²|v|² − ⟨u, v⟩²) / β over planes, which is the squared area between u and v."""
        (ux, ur), (vx, vr) = self.whiten(p, u).chunk(2, -1), self.whiten(p, v).chunk(2, -1)
        return -((ux * vr - ur * vx) / self._root(p)).square().sum(-1)


@final
@dataclass(frozen=True, eq=False)
class Product(Target):
    """Several targets side by side: squared lengths add, each with its weight.

    Args:
        parts: the targets.
        widths: how many coordinates each has.
        weights: by what each squared length is multiplied; above 0.
    """

    parts: Sequence[Target]
    widths: Sequence[int]
    weights: Sequence[float]

    def _split(self, x: Tensor) -> Sequence[Tensor]:
        return torch.split(x, list(self.widths), -1)

    def residual(self, p: Tensor, q: Tensor) -> Tensor:
        """The parts' residuals side by side."""
        pairs = zip(self.parts, self.weights, self._split(p), self._split(q), strict=True)
        return torch.cat([weight**0.5 * part.residual(a, b) for part, weight, a, b in pairs], -1)

    def pull(self, p: Tensor, q: Tensor, dp: Tensor, dq: Tensor) -> tuple[Tensor, Tensor]:
        """The parts' derivatives side by side."""
        split = (self._split(x) for x in (p, q, dp, dq))
        pulled = [
            (part.pull(*xs), weight**0.5) for part, weight, *xs in zip(self.parts, self.weights, *split, strict=True)
        ]
        return torch.cat([w * a for (a, _), w in pulled], -1), torch.cat([w * b for (_, b), w in pulled], -1)

    def whiten(self, p: Tensor, v: Tensor) -> Tensor:
        """The parts' orthonormal coordinates side by side."""
        pairs = zip(self.parts, self.weights, self._split(p), self._split(v), strict=True)
        return torch.cat([weight**0.5 * part.whiten(a, b) for part, weight, a, b in pairs], -1)

    def squared(self, p: Tensor, q: Tensor) -> Tensor:
        """The sum of the parts'."""
        pairs = zip(self.parts, self.weights, self._split(p), self._split(q), strict=True)
        return torch.stack([weight * part.squared(a, b) for part, weight, a, b in pairs]).sum(0)

    def connection(self, p: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
        """The parts' side by side; constant weights change nothing."""
        split = zip(self.parts, self._split(p), self._split(u), self._split(v), strict=True)
        found = [(part.connection(a, b, c), b) for part, a, b, c in split]
        if all(gamma is None for gamma, _ in found):
            return None
        return torch.cat([torch.zeros_like(b) if gamma is None else gamma for gamma, b in found], -1)

    def ambient(self, p: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The weighted sum of the parts'."""
        split = zip(self.parts, self.weights, self._split(p), self._split(u), self._split(v), strict=True)
        return torch.stack([weight * part.ambient(a, b, c) for part, weight, a, b, c in split]).sum(0)


@final
@dataclass(frozen=True, eq=False)
class Stretched(Target):
    """A target whose squared lengths are multiplied by 1 + λV ≥ 1, with V(z) ≥ 0 as the last coordinate.

    Distances are at least those of the target itself, and remain distances: symmetric, with the triangle inequality,
    the same whatever the coordinates of latent space.

    Args:
        base: the target.
        strength: λ.
    """

    base: Target
    strength: float

    def residual(self, p: Tensor, q: Tensor) -> Tensor:
        """√(1 + ½λ(V + V′)) times the base's residual."""
        return self._stretch(p, q).unsqueeze(-1) * self.base.residual(p[..., :-1], q[..., :-1])

    def pull(self, p: Tensor, q: Tensor, dp: Tensor, dq: Tensor) -> tuple[Tensor, Tensor]:
        """The residual's derivatives, the stretch's included."""
        inner = (p[..., :-1], q[..., :-1])
        stretch = self._stretch(p, q)[..., None, None]
        a, b = self.base.pull(*inner, dp[..., :-1], dq[..., :-1])
        turn = self.base.residual(*inner).unsqueeze(-2) * (self.strength / (4 * stretch))
        return stretch * a + turn * dp[..., -1:], stretch * b + turn * dq[..., -1:]

    def whiten(self, p: Tensor, v: Tensor) -> Tensor:
        """√(1 + λV) times the base's."""
        return (1 + self.strength * p[..., -1:]).sqrt() * self.base.whiten(p[..., :-1], v[..., :-1])

    def squared(self, p: Tensor, q: Tensor) -> Tensor:
        """The base's, a lower bound."""
        return self.base.squared(p[..., :-1], q[..., :-1])

    def connection(self, p: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
        """Refused."""
        raise InputError("curvature under a potential", "an embedding without one", "leave out potential=…")

    def _stretch(self, p: Tensor, q: Tensor) -> Tensor:
        return (1 + 0.5 * self.strength * (p[..., -1] + q[..., -1])).sqrt()
