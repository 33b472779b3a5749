"""A normal with correlated dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class FullNormal:
    """N(μ, L Lᵀ), z = μ + L u: log q = −½ |u|² − Σ log L_jj − ½ d log 2π.

    Attributes:
        loc: μ, (batch, d).
        scale_tril: L, (batch, d, d), lower triangular with a positive diagonal.
    """

    loc: Tensor
    scale_tril: Tensor

    @property
    def size(self) -> int:
        """d, the number of latents."""
        return self.loc.shape[-1]

    @property
    def scale(self) -> Tensor:
        """L_jj, the standard deviation of z_j given the dimensions before it, (batch, d)."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1)

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z = μ + L u, (sample, batch, d), and log q(z), (sample, batch), nats, computed from u."""
        return self.loc + _apply(self.scale_tril, u), self._log_density(u)

    def pull(self, z: Tensor) -> Tensor:
        """u = L⁻¹ (z − μ), (sample, batch, d)."""
        unit = torch.eye(self.size, dtype=z.dtype, device=z.device)
        inverse = torch.linalg.solve_triangular(self.scale_tril, unit, upper=False)
        return _apply(inverse, z - self.loc)

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(z), (sample, batch), nats."""
        return self._log_density(self.pull(x))

    def detach(self) -> FullNormal:
        """The same normal with μ and L cut from the graph."""
        return FullNormal(self.loc.detach(), self.scale_tril.detach())

    def _log_density(self, u: Tensor) -> Tensor:
        constant = 0.5 * self.size * math.log(2 * math.pi)
        return -0.5 * u.square().sum(-1) - self.scale.log().sum(-1) - constant


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """(batch, d, d) on (sample, batch, d); the samples of a row share one matrix product."""
    with torch.autocast(vector.device.type, enabled=False):
        return torch.einsum("...ij,...j->...i", matrix, vector)
