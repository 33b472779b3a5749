"""Figure 1: prior, likelihood and posterior of a row as maps over the plane, with log p(x) by quadrature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy import optimize

from vaelid.evidence.quadrature import Quadrature
from vaelid.lesson.datum import Datum
from vaelid.studio.maps import middles

WIDE = 4.0  # standard deviations that frames show
STEP = 0.5  # to which the ends of frames are rounded outwards


def belief(datum: Datum, side: int, frame: list[float] | None = None) -> dict[str, Any]:
    """Log densities over a frame at the midpoints of cells, (side, side) each, from y₀ up and from x₀ on.

    log p(z) and log p(z|x) are densities of z, log p(x|z) is that of x; all in nats.

    Args:
        datum: the row.
        side: cells along an axis.
        frame: x₀, y₀, x₁, y₁; by default a square that shows the prior and the posterior.
    """
    ends = whole(datum) if frame is None else frame
    z = torch.from_numpy(middles(ends, side, side))
    prior, likelihood = datum.log_prior(z), datum.log_likelihood(z)
    log_evidence, error = datum.log_evidence
    maps = {"log_prior": prior, "log_likelihood": likelihood, "log_posterior": prior + likelihood - log_evidence}
    elbo, elbo_error = datum.elbo(datum.q)
    return {
        "frame": ends,
        "near": near(datum),
        **{name: values.view(side, side).float().numpy() for name, values in maps.items()},
        "log_evidence": log_evidence,
        "error": error,
        "quadrature": words(datum.evidence),
        "mode": mode(datum),
        "encoder": datum.q.as_dict(),
        "elbo": elbo,
        "elbo_error": elbo_error,
    }


def whole(datum: Datum) -> list[float]:
    """The square that shows the prior out to 4 standard deviations, and the posterior wherever it is."""
    reach = max(WIDE, float(datum.evidence.frame.abs().max()))
    half = math.ceil(reach / STEP) * STEP
    return [-half, -half, half, half]


def near(datum: Datum) -> list[float]:
    """A square around the posterior and q, out to 4 standard deviations of each."""
    grid = datum.evidence
    mass = (grid.log_posterior + grid.log_weight)[0].exp()
    mean = mass @ grid.nodes[0]
    shapes = [(mean, (mass @ (grid.nodes[0] - mean).square()).sqrt())]
    shapes.append((torch.tensor(datum.q.mean), torch.from_numpy(np.sqrt(np.diag(datum.q.covariance)))))
    low = torch.stack([mean - WIDE * sd for mean, sd in shapes]).amin(0)
    high = torch.stack([mean + WIDE * sd for mean, sd in shapes]).amax(0)
    middle, half = (low + high) / 2, float((high - low).max()) / 2
    return [*(middle - half).tolist(), *(middle + half).tolist()]


def words(grid: Quadrature) -> str:
    """How log p(x) was integrated."""
    (left, low), (right, high) = grid.frame[0].tolist()
    box = f"[{left:.3g}, {right:.3g}] × [{low:.3g}, {high:.3g}]".replace("-", "−")
    return f"{grid.side} × {grid.side} nodes on {box}"


def mode(datum: Datum) -> list[float]:
    """Where log p(z|x) is largest, from the best node of the grid on by L-BFGS, (2,)."""
    grid = datum.evidence
    node = grid.nodes[0, int(grid.log_joint[0].argmax())].numpy()

    def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = datum.slope(torch.from_numpy(at).view(1, 2))
        return -float(value), -slope[0].numpy()

    found: list[float] = optimize.minimize(objective, node, jac=True, method="L-BFGS-B").x.tolist()
    return found
