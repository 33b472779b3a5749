"""Figure 5: estimates of one gradient from the same noise, through z and by the score function."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelid.lesson.datum import KEY, ORDERS, Datum
from vaelid.lesson.ellipse import Ellipse, expectation

AWAY = 1.0  # standard deviations by which q is moved, so that there is a gradient to estimate
PARAMETER = (
    "the derivative of the ELBO by the first coordinate of q's mean, with q the encoder's moved by one standard "
    "deviation along it; the baseline is the mean over the other draws"
)


def moved(datum: Datum) -> tuple[np.ndarray, np.ndarray]:
    """Mean (2,) and standard deviations (2,) of the diagonal normal at which the gradient is taken."""
    sd = np.sqrt(np.diag(datum.q.covariance))
    return np.array(datum.q.mean) + AWAY * np.array([sd[0], 0.0]), sd


def noise(datum: Datum, samples: int) -> Tensor:
    """ε ~ N(0, I), (samples, 2), float64: the same whenever it is asked for, and other noise for another row."""
    ids = datum.problem.batch.ids().cpu()
    return KEY.fold("gradients").normal_rows(ids, samples, 2, dtype=torch.float64)[:, 0]


def gradients(datum: Datum, eps: list[float], samples: int) -> dict[str, Any]:
    """Single-draw estimates of ∂ ELBO / ∂ m₁ at q = N(m, diag s²), z = m + s ⊙ ε, nats per unit of z.

    Through z: ∂ log p(x, z) / ∂ z₁, the derivative of log q at fixed ε being 0. By the score function: f · ε₁ / s₁ with
    f = log p(x, z) − log q(z) and ε₁ / s₁ = ∂ log q / ∂ m₁. With a baseline: (f − mean of the others' f) · ε₁ / s₁
    (`vaelid.objectives.ScoreFunction`, draw by draw). All have the mean ``exact``, here by Gauss–Hermite nodes.

    Args:
        datum: the row.
        eps: the noise (2,) whose z is looked at.
        samples: draws, 2 or more.
    """
    mean, sd = moved(datum)
    q = Ellipse((float(mean[0]), float(mean[1])), (float(sd[0]), float(sd[1])))
    u = noise(datum, samples)
    value, slope = datum.slope(q.push(u))
    pathwise = slope[:, 0]
    reward = value - q.log_density(q.push(u))
    score = reward * u[:, 0] / sd[0]
    baseline = (reward - reward.mean()) * (samples / (samples - 1)) * u[:, 0] / sd[0]
    exact, exact_error = expectation(q, lambda z: datum.slope(z)[1][:, 0], ORDERS)
    return {
        "mean": mean.tolist(),
        "sd": sd.tolist(),
        "z": (mean + sd * np.array(eps)).tolist(),
        "samples": samples,
        "pathwise": _summary(pathwise),
        "score": _summary(score),
        "baseline": _summary(baseline),
        "exact": exact,
        "exact_error": exact_error,
        "ratio": float(score.var() / pathwise.var()),
        "parameter": PARAMETER,
    }


def _summary(estimates: Tensor) -> dict[str, Any]:
    return {
        "estimates": estimates.float().numpy(),
        "mean": float(estimates.mean()),
        "se": float(estimates.std()) / len(estimates) ** 0.5,
        "variance": float(estimates.var()),
    }
