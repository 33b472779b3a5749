"""Curves through latent space as nodes at equal steps of time: cubic splines, quadrature, resampling."""

from __future__ import annotations

import functools

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from vaelid.geometry.manifold import Manifold

GAUSS = 4  # nodes of the quadrature in each segment


def straight(a: Tensor, b: Tensor, segments: int) -> Tensor:
    """Nodes (n, segments + 1, d) of the straight lines from a to b (n, d)."""
    t = torch.linspace(0, 1, segments + 1, dtype=a.dtype, device=a.device)[:, None]
    nodes = a[:, None] + t * (b - a)[:, None]
    nodes[:, -1] = b  # to the last bit
    return nodes


def spline(nodes: Tensor, times: np.ndarray) -> tuple[Tensor, Tensor]:
    """The cubic spline through nodes (n, N + 1, d) at equal steps of t in [0, 1], and its velocity, (n, times, d)."""
    at, slope = _weights(nodes.shape[1] - 1, tuple(times.tolist()))
    apart = nodes - nodes[:, :1]  # a path far from the origin keeps its digits
    return nodes[:, :1] + nodes.new_tensor(at) @ apart, nodes.new_tensor(slope) @ apart


def refined(nodes: Tensor, segments: int) -> Tensor:
    """The same curves with other numbers of segments; the ends stay as they are."""
    if nodes.shape[1] == segments + 1:
        return nodes
    finer, _ = spline(nodes, np.linspace(0, 1, segments + 1))
    finer[:, 0], finer[:, -1] = nodes[:, 0], nodes[:, -1]
    return finer


def quadrature(f: Manifold, nodes: Tensor, points: int = GAUSS) -> tuple[Tensor, Tensor]:
    """Length ∫ |γ̇| dt and energy ½ ∫ |γ̇|² dt of the splines through nodes (n, N + 1, d), by Gauss's rule: (n,) each."""
    n, size, d = nodes.shape
    place, weight = np.polynomial.legendre.leggauss(points)
    times = (np.arange(size - 1)[:, None] + (place + 1) / 2).ravel() / (size - 1)
    z, v = spline(nodes, times)
    squared = f.squared_speed(z.reshape(-1, d), v.reshape(-1, d)).view(n, -1).double()
    weights = torch.from_numpy(np.tile(weight / 2, size - 1) / (size - 1)).to(squared)
    return squared.clamp_min(0).sqrt() @ weights, 0.5 * (squared @ weights)


def by_length(nodes: Tensor, steps: Tensor, segments: int) -> Tensor:
    """Curves (n, N + 1, d), whose segments have lengths ``steps`` (n, N), at equal steps of length on their chords."""
    place = torch.cat((steps.new_zeros(len(steps), 1), steps.cumsum(1)), 1)
    total = place[:, -1:]
    wanted = total * torch.linspace(0, 1, segments + 1, dtype=steps.dtype, device=steps.device)
    right = torch.searchsorted(place, wanted).clamp(1, place.shape[1] - 1)
    low, high = place.gather(1, right - 1), place.gather(1, right)
    share = ((wanted - low) / (high - low).clamp_min(torch.finfo(steps.dtype).tiny)).clamp(0, 1).unsqueeze(-1)
    index = right.unsqueeze(-1).expand(-1, -1, nodes.shape[2])
    found = torch.lerp(nodes.gather(1, index - 1), nodes.gather(1, index), share.to(nodes))
    found[:, 0], found[:, -1] = nodes[:, 0], nodes[:, -1]
    return found


@functools.lru_cache(maxsize=64)
def _weights(segments: int, times: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What each node contributes to a spline's value and velocity, (times, segments + 1) each."""
    knots = np.linspace(0, 1, segments + 1)
    unit = CubicSpline(knots, np.eye(segments + 1)) if segments > 1 else None
    if unit is None:
        t = np.array(times)[:, None]
        return np.hstack((1 - t, t)), np.tile([-1.0, 1.0], (len(times), 1))
    return unit(np.array(times)), unit(np.array(times), 1)
