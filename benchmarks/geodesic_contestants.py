"""Contestants of ``python -m benchmarks.geometry``: geodesics between many pairs of latents at once.

Each is given φ, which embeds latents (n, d) as rows (n, D), and the ends a and b of its curves, (pair, d). It answers
with `POINTS` points along every curve, (pair, point, d), the ends among them, at equal steps of the curve's parameter.
Let it solve once before it is timed, so that no import is. The parameters behind φ should require no gradient:
every contestant calls ``backward()``, which would also compute theirs, and leave them there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Embedding = Callable[[Tensor], Tensor]
Contestant = Callable[[Embedding, Tensor, Tensor], Tensor]
POINTS = 129  # along an answer, with both ends
SEGMENTS, ITERATIONS, RATE = 32, 300, 1e-2  # of `adam`


def embed(phi: Embedding, curves: Tensor) -> Tensor:
    """φ of points in an array of any leading shape, (*lead, d) to (*lead, D)."""
    rows = phi(curves.reshape(-1, curves.shape[-1]))
    return rows.reshape(*curves.shape[:-1], -1)


def stochman_manifold(phi: Embedding) -> Any:
    """The image of φ as stochman's users define it: energies and lengths need the embedding alone."""
    from stochman.manifold import EmbeddedManifold

    class Image(EmbeddedManifold):
        def embed(self, points: Tensor, jacobian: bool = False) -> Tensor:
            if jacobian:
                raise NotImplementedError("curves are found without Jacobians")
            return embed(phi, points)

    return Image()


def evaluate(curve: Any, a: Tensor, b: Tensor) -> Tensor:
    """`POINTS` points of a stochman curve, whose ends are a and b but for rounding, and here without."""
    with torch.no_grad():
        points: Tensor = curve(torch.linspace(0, 1, POINTS)).reshape(len(a), POINTS, -1)
        points[:, 0], points[:, -1] = a, b
    return points


def stochman_spline(phi: Embedding, a: Tensor, b: Tensor) -> Tensor:
    """stochman's own ``connecting_geodesic`` with nothing changed, all pairs in one batch.

    A cubic spline of 5 nodes, 4 pieces, which has 5 free coefficients per coordinate, starts as the straight line.
    Adam at rate 0.1 lowers its energy on 20 points, and stops after 150 iterations or once every entry of the batch's
    gradient is below 1e-4 (0.3.0 runs as it is on torch 2.13).
    """
    curve, _ = stochman_manifold(phi).connecting_geodesic(a, b)
    return evaluate(curve, a, b)


def stochman_discrete(phi: Embedding, a: Tensor, b: Tensor) -> Tensor:
    """The same with stochman's ``DiscreteCurve`` as it comes: 5 nodes, 3 of them free, with straight lines between."""
    from stochman import DiscreteCurve

    curve, _ = stochman_manifold(phi).connecting_geodesic(a, b, DiscreteCurve(a, b))
    return evaluate(curve, a, b)


def adam(phi: Embedding, a: Tensor, b: Tensor) -> Tensor:
    """What one writes by hand: Adam on the chord energy (N/2) Σ|φ(z_{i+1}) − φ(z_i)|² of N segments, ends fixed.

    The curve starts straight. Segments, iterations and rate are those of a public course script for a VAE on MNIST,
    and petzkahe/GAN-geodesics takes the same rate; others take 0.001 to 0.1. On a VAE of MNIST with 2 latents, 0.03
    did about as well and 0.1 left curves longer than the straight ones that they started from.
    """
    line = torch.lerp(a[:, None], b[:, None], torch.linspace(0, 1, SEGMENTS + 1)[:, None])
    inner = line[:, 1:-1].clone().requires_grad_()
    optimizer = torch.optim.Adam([inner], RATE)
    for _ in range(ITERATIONS):
        nodes = torch.cat((a[:, None], inner, b[:, None]), 1)
        energy = SEGMENTS / 2 * embed(phi, nodes).diff(dim=1).square().sum()
        optimizer.zero_grad()
        energy.backward()
        optimizer.step()
    nodes = torch.cat((a[:, None], inner.detach(), b[:, None]), 1)
    return functional.interpolate(nodes.mT, POINTS, mode="linear", align_corners=True).mT


CONTESTANTS: dict[str, Contestant] = {
    "stochman, spline": stochman_spline,
    "stochman, discrete": stochman_discrete,
    "Adam, 32 segments": adam,
}
