"""Figures 2 and 3: a normal against the true posterior, and the bar log p(x) = KL + ELBO."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from vaelid.evidence.quadrature import Quadrature
from vaelid.lesson.datum import DRAWS, Datum
from vaelid.lesson.ellipse import Ellipse, hermite

SIDE = 60  # nodes along an axis of q, for its KL
REACH = 7.0  # standard deviations at which they end
ROUGH, FINE = 10, 20  # orders of the rules under which the best normal is sought, and found
STARTS = 3  # maxima of the posterior that the search starts from, at most
APART = 2.0  # standard deviations of the posterior between two of them


def divergence(datum: Datum, q: Ellipse) -> tuple[float, float]:
    """KL(q ‖ p(z|x)) = ∫ q (log q − log p(x, z) + log p(x)) dz and its error, nats.

    The integral is taken on `SIDE` × `SIDE` nodes that follow the axes of q, wherever it is and however narrow;
    log p(x) is that of the datum's own grid, and its error counts.
    """
    cell = 2 * REACH / SIDE
    ticks = cell * (torch.arange(SIDE, dtype=torch.float64) + 0.5) - REACH
    nodes = q.push(torch.cartesian_prod(ticks, ticks))
    weight = torch.full((1, len(nodes)), math.log(cell**2 * q.sd[0] * q.sd[1]), dtype=torch.float64)
    frame, known = torch.stack((nodes.amin(0), nodes.amax(0))), datum.evidence
    log_joint = datum.log_joint(nodes)
    grid = Quadrature(
        frame[None], nodes[None], weight, log_joint[None], known.log_evidence, known.error, SIDE, known.like
    )
    value, error = grid.kl(q.log_density)
    return float(value[0]), float(error[0])


def encoder(datum: Datum) -> dict[str, Any]:
    """The model's own q(z|x) as an ellipse, with KL(q ‖ p(z|x)).

    A q that is no normal is drawn as the normal with its mean and covariance; its KL is its own, the mean of
    log q − log p(z|x) over draws, with the standard error of that mean.
    """
    shown = datum.q.as_dict()
    if datum.normal:
        value, error = divergence(datum, datum.q)
        return shown | {"kl": value, "kl_error": error, "said": "q(z|x) of the model"}
    z, log_q = datum.draws
    log_evidence, off = datum.log_evidence
    terms = log_q - datum.log_joint(z) + log_evidence
    error = float(terms.std()) / math.sqrt(len(terms)) + off
    said = f"q(z|x) of the model is no normal: the ellipse has its mean and covariance, from {DRAWS:,} draws"
    return shown | {"kl": float(terms.mean()), "kl_error": error, "said": said}


def best(datum: Datum) -> tuple[Ellipse, float, float]:
    """The normal nearest the true posterior: it minimises KL(q ‖ p(z|x)) over mean and covariance; the KL, its error.

    −ELBO by a Gauss–Hermite rule is minimised by L-BFGS over (m, log L₁₁, L₂₁, log L₂₂) with its exact gradient, from
    several starts: the model's own q, the posterior's mean and covariance, and normals as wide as that q at the
    posterior's highest maxima. Where the lowest of them ended, a finer rule goes on.
    """
    ends = [_descend(datum, _parameters(start), ROUGH, 1e-6) for start in _starts(datum)]
    at, _ = _descend(datum, min(ends, key=lambda end: end[1])[0], FINE, 1e-9)
    root = np.array([[math.exp(at[2]), 0.0], [at[3], math.exp(at[4])]])
    q = Ellipse.from_moments(at[:2], root @ root.T)
    return q, *divergence(datum, q)


def approximation(datum: Datum, q: Ellipse) -> dict[str, Any]:
    """KL(q ‖ p(z|x)) of an ellipse."""
    kl, kl_error = divergence(datum, q)
    return {"kl": kl, "kl_error": kl_error}


def bar(datum: Datum, q: Ellipse) -> dict[str, Any]:
    """The bar log p(x) = KL(q ‖ p(z|x)) + ELBO(q): three numbers, each by nodes of its own, with their errors.

    log p(x) is by the datum's grid, the KL by the grid along the axes of q, and the ELBO by Gauss–Hermite nodes and
    the entropy in closed form; ``sum`` is KL + ELBO, and ``within`` says whether it is log p(x) within the errors.
    """
    log_evidence, off = datum.log_evidence
    kl, kl_error = divergence(datum, q)
    elbo, elbo_error = datum.elbo(q)
    return {
        "log_evidence": log_evidence,
        "log_evidence_error": off,
        "kl": kl,
        "kl_error": kl_error,
        "elbo": elbo,
        "elbo_error": elbo_error,
        "sum": kl + elbo,
        "within": abs(kl + elbo - log_evidence) <= kl_error + elbo_error + off,
    }


def _parameters(q: Ellipse) -> np.ndarray:
    """(m, log L₁₁, L₂₁, log L₂₂), (5,)."""
    root = np.linalg.cholesky(q.covariance)
    return np.array([*q.mean, math.log(root[0, 0]), root[1, 0], math.log(root[1, 1])])


def _descend(datum: Datum, first: np.ndarray, order: int, tolerance: float) -> tuple[np.ndarray, float]:
    """The parameters (5,) at which −ELBO is least, from some on, and its value there.

    It ends where a step changes less than a share ``tolerance`` of the value.
    """
    u, weight = hermite(order)

    def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
        return _negative_elbo(datum, at, u, weight)

    options = {"maxiter": 100, "ftol": tolerance}
    found = optimize.minimize(objective, first, jac=True, method="L-BFGS-B", options=options)
    return found.x, float(found.fun)


def _negative_elbo(datum: Datum, at: np.ndarray, u: Tensor, weight: Tensor) -> tuple[float, np.ndarray]:
    """−E_q[log p(x, z)] − entropy at (m, log L₁₁, L₂₁, log L₂₂), and its gradient."""
    first, below, second = math.exp(at[2]), at[3], math.exp(at[4])
    z = torch.stack((at[0] + first * u[:, 0], at[1] + below * u[:, 0] + second * u[:, 1]), 1)
    value, slope = datum.slope(z)
    by = weight.unsqueeze(1) * slope
    gradient = [
        float(by[:, 0].sum()),
        float(by[:, 1].sum()),
        float(by[:, 0] @ u[:, 0]) * first + 1,
        float(by[:, 1] @ u[:, 0]),
        float(by[:, 1] @ u[:, 1]) * second + 1,
    ]
    return -float(weight @ value) - at[2] - at[4], -np.array(gradient)


def _starts(datum: Datum) -> list[Ellipse]:
    """Where the search for the best normal begins."""
    grid = datum.evidence
    nodes, mass = grid.nodes[0], (grid.log_posterior + grid.log_weight)[0].exp()
    mean = mass @ nodes
    spread = nodes - mean
    whole = Ellipse.from_moments(mean.numpy(), ((mass.unsqueeze(1) * spread).T @ spread).numpy())
    height = grid.log_joint[0].view(1, 1, grid.side, grid.side)
    peaks = (torch.nn.functional.max_pool2d(height, 5, stride=1, padding=2) == height).flatten().nonzero()[:, 0]
    peaks = peaks[grid.log_joint[0, peaks].argsort(descending=True)]
    inverse = torch.from_numpy(np.linalg.inv(whole.covariance))
    kept: list[Tensor] = []
    for node in nodes[peaks[:64]]:
        if len(kept) < STARTS and all(float((node - other) @ inverse @ (node - other)) > APART**2 for other in kept):
            kept.append(node)
    narrow = datum.q.covariance
    return [datum.q, whole, *(Ellipse.from_moments(node.numpy(), narrow) for node in kept)]
