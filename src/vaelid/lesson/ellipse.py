"""A normal over the plane as an ellipse that can be dragged, and integrals under it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor

from vaelid.errors import InputError


@final
@dataclass(frozen=True)
class Ellipse:
    """q(z) = N(m, R diag(s²) Rᵀ) over two latents, R the rotation by ``angle``.

    Attributes:
        mean: m.
        sd: s, standard deviations along the axes of the ellipse, above 0.
        angle: from the first latent to the first axis, counter-clockwise, radians.
    """

    mean: tuple[float, float]
    sd: tuple[float, float]
    angle: float = 0.0

    @classmethod
    def of(cls, mean: Sequence[float], sd: Sequence[float], angle: float) -> Self:
        """The ellipse of numbers that somebody gave.

        Raises:
            InputError: not two numbers each, a standard deviation that is not above 0, or a number that is not finite.
        """
        if len(mean) != 2 or len(sd) != 2:
            raise InputError(f"an ellipse with {len(mean)} means and {len(sd)} standard deviations", "two of each")
        if not all(map(math.isfinite, (*mean, *sd, angle))) or min(sd) <= 0:
            raise InputError(f"an ellipse with standard deviations {list(sd)}", "finite numbers, above 0 for these")
        return cls((float(mean[0]), float(mean[1])), (float(sd[0]), float(sd[1])), float(angle))

    @classmethod
    def from_moments(cls, mean: np.ndarray, covariance: np.ndarray) -> Self:
        """The ellipse of a mean (2,) and a covariance (2, 2): the long axis first, angle from −π/2 to π/2."""
        values, vectors = np.linalg.eigh(covariance)
        x, y = vectors[:, 1] * (1.0 if vectors[0, 1] >= 0 else -1.0)
        long, short = (math.sqrt(max(float(value), 1e-24)) for value in values[::-1])
        return cls((float(mean[0]), float(mean[1])), (long, short), math.atan2(y, x))

    @property
    def covariance(self) -> np.ndarray:
        """R diag(s²) Rᵀ, (2, 2)."""
        spread = self._spread()
        covariance: np.ndarray = spread @ spread.T
        return covariance

    @property
    def entropy(self) -> float:
        """−∫ q log q dz = 1 + log 2π + log s₁ + log s₂, nats."""
        return 1 + math.log(2 * math.pi) + math.log(self.sd[0]) + math.log(self.sd[1])

    def push(self, u: Tensor) -> Tensor:
        """z = m + R diag(s) u, (..., 2), for u (..., 2)."""
        return u @ torch.from_numpy(self._spread()).T.to(u) + torch.tensor(self.mean, dtype=torch.float64).to(u)

    def log_density(self, z: Tensor) -> Tensor:
        """log q(z), (...), nats, for z (..., 2)."""
        inverse = torch.from_numpy(np.linalg.inv(self._spread())).to(z)
        u = (z - torch.tensor(self.mean, dtype=torch.float64).to(z)) @ inverse.T
        return 1 - self.entropy - 0.5 * u.square().sum(-1)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, under their names."""
        return {"mean": list(self.mean), "sd": list(self.sd), "angle": self.angle}

    def _spread(self) -> np.ndarray:
        """R diag(s), (2, 2)."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        spread: np.ndarray = np.array([[cosine, -sine], [sine, cosine]]) * np.array(self.sd)
        return spread


@functools.cache
def hermite(order: int) -> tuple[Tensor, Tensor]:
    """Nodes u (order², 2) and weights (order²,) with Σ w f(u) = E f(u), u ~ N(0, I): exact to degree 2 · order − 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    x, y = np.meshgrid(nodes, nodes, indexing="ij")
    weight = np.outer(weights, weights).ravel() / (2 * math.pi)
    return torch.from_numpy(np.stack((x.ravel(), y.ravel()), 1)), torch.from_numpy(weight)


def expectation(q: Ellipse, f: Callable[[Tensor], Tensor], orders: Sequence[int]) -> tuple[float, float]:
    """E_q f(z) by the Gauss–Hermite rule of the first order, and by how much the others differ from it, added up.

    Args:
        q: the normal.
        f: z (n, 2), float64 → (n,).
        orders: nodes along each axis of q.
    """
    first, *others = (float(f(q.push(u)).double() @ weight) for u, weight in map(hermite, orders))
    return first, sum(abs(first - other) for other in others)
