"""ELBO, importance-weighted bound, rate and distortion, active units: one pass over rows not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from vaelid.evidence import Importance, importance
from vaelid.model import VAE
from vaelid.random import Key

ACTIVE = 0.01  # variance of a posterior mean over rows above which a unit counts as active (Burda et al. 2016)


class Estimate(NamedTuple):
    """A mean over rows and its standard error, standard deviation over rows / √rows."""

    value: float
    se: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.se:.2f}"


@final
@dataclass(frozen=True, eq=False)
class Evaluation:
    """Means over rows, in nats per row, with their standard errors over rows.

    Attributes:
        elbo: E_q log p(x|z) − KL(q ‖ p).
        iwae: L_K, the importance-weighted bound with K = ``samples``.
        iwae_mc_se: Monte Carlo standard error of ``iwae`` alone, the rows held fixed.
        distortion: −E_q log p(x|z).
        rate: KL(q ‖ p).
        active_units: latent dimensions whose posterior mean varies over rows by more than `ACTIVE`; a lower limit
            with few rows.
        kl_per_dimension: mean KL of each latent dimension, (latent,); None where there is no closed form.
        rows: number of rows.
        samples: K.
        per_row: the estimates per row.
    """

    elbo: Estimate
    iwae: Estimate
    iwae_mc_se: float
    distortion: Estimate
    rate: Estimate
    active_units: int
    kl_per_dimension: list[float] | None
    rows: int
    samples: int
    per_row: Importance

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, every estimate ``x`` with ``x_se`` beside it: the keys of metrics.json."""
        table: dict[str, Any] = {}
        for name in ("elbo", "iwae", "rate", "distortion"):
            estimate: Estimate = getattr(self, name)
            table |= {name: estimate.value, f"{name}_se": estimate.se}
        return table | {
            "iwae_mc_se": self.iwae_mc_se,
            "samples": self.samples,
            "active_units": self.active_units,
            "kl_per_dimension": self.kl_per_dimension,
            "rows": self.rows,
        }


def evaluate(
    model: VAE, x: Any, *, samples: int = 1000, key: Key | None = None, on_rows: Callable[[int], None] | None = None
) -> Evaluation:
    """Evaluate a model on rows; report numbers only for rows it was not trained on.

    ELBO and L_K use the same ``samples`` draws per row.

    Args:
        model: a trained model.
        x: rows, an array or a `vaelid.types.Batch`.
        samples: K, draws from q per row.
        key: names the noise; ``Key(0)`` by default.
        on_rows: called with the number of rows done, for a progress bar.
    """
    per_row = importance(model, x, samples, Key(0) if key is None else key, on_rows=on_rows)
    rows = per_row.elbo.shape[0]
    spread = per_row.centre.double().var(dim=0, correction=0)
    return Evaluation(
        elbo=_estimate(per_row.elbo),
        iwae=_estimate(per_row.log_evidence),
        iwae_mc_se=float(per_row.mc_se.square().sum().sqrt() / rows),
        distortion=_estimate(-per_row.reconstruction),
        rate=_estimate(per_row.rate),
        active_units=int((spread > ACTIVE).sum()),
        kl_per_dimension=None if per_row.kl is None else per_row.kl.mean(0).tolist(),
        rows=rows,
        samples=samples,
        per_row=per_row,
    )


def _estimate(values: Tensor) -> Estimate:
    rows = values.shape[0]
    se = float(torch.std(values)) / math.sqrt(rows) if rows > 1 else math.nan
    return Estimate(float(values.mean()), se)
