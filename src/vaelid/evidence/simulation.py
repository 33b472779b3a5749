"""Data simulated from a model, with the latents behind them: exact draws from p(z|x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from vaelid.model import VAE
from vaelid.random import Key
from vaelid.types import Batch


@final
@dataclass(frozen=True, eq=False)
class Simulated:
    """Rows x ~ p(x|z), and the z ~ p(z) that they came from.

    Attributes:
        batch: the rows.
        z: their latents, (row, d); given x, one exact draw from p(z|x).
    """

    batch: Batch
    z: Tensor

    def take(self, index: Tensor) -> Simulated:
        """The rows at ``index``."""
        return Simulated(self.batch.take(index), self.z[index])


@torch.no_grad()
def simulate(model: VAE, rows: int, key: Key, context: Any = None) -> Simulated:
    """Draw ``rows`` pairs (z, x) from p(z) p(x|z), as `VAE.sample` draws x.

    Args:
        model: any model with a density.
        rows: how many.
        key: names the noise.
        context: observed covariates, (rows, c), for a conditional model.

    Raises:
        InputError: as `VAE.sample`.
    """
    x, z = model.draw(rows, key, context)
    return Simulated(model.batch(x, context=context), z)
