"""Exponential and logarithmic map, parallel transport, the gradient of squared distances.

Geodesics solve Euler and Lagrange's equation of L(z, v) = ½ vᵀ G(z) v:  G a = ∂L/∂z − (∂²L/∂v∂z) v, which needs no
Christoffel symbols and holds for embeddings and plain metrics alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from vaelid import checks
from vaelid.errors import InputError
from vaelid.geometry import curves
from vaelid.geometry.curvature import refuse_kinks
from vaelid.geometry.forward import derivative
from vaelid.geometry.geodesic import ITERATIONS, SEGMENTS, Geodesics, geodesic
from vaelid.geometry.graph import Graph
from vaelid.geometry.manifold import Embedding, Manifold, pairs, prepare, tensor
from vaelid.geometry.metrics import checked_path
from vaelid.geometry.newton import minimise

STEPS = 64


@final
@dataclass(frozen=True, eq=False)
class Shot:
    """Geodesics that start at given points with given velocities.

    Attributes:
        path: (n, steps + 1, d), at equal steps of t in [0, 1].
        velocity: the velocity at the end, (n, d).
        drift: how far the speed, constant along a geodesic, has drifted from its first value, at most, relative: (n,);
            NaN where the path left what the function can do.
    """

    path: Tensor
    velocity: Tensor
    drift: Tensor

    @property
    def end(self) -> Tensor:
        """exp_z(v), (n, d)."""
        return self.path[:, -1]


def exp_map(f: Any, z: Any, v: Any, *, steps: int = STEPS) -> Shot:
    """The geodesics γ with γ(0) = z and γ̇(0) = v, to t = 1, by the classical Runge–Kutta rule.

    The error is of order steps⁻⁴; `Shot.drift` shows it.

    Args:
        f: an embedding, a `MetricField`, a module or any smooth function.
        z: points (n, d), or one.
        v: velocities (n, d), or one.
        steps: of the integration.

    Raises:
        InputError: see `vaelid.geometry.manifold.prepare`; a piecewise linear function, whose Jacobian jumps.
    """
    f, z, v = prepare(f, z=z, v=v)
    z, v = (x.contiguous() for x in pairs(z, v, ("z", "v")))
    steps = checks.positive_int(steps, "steps")
    refuse_kinks(f, z, v)
    path, first = [z], f.squared_speed(z, v).sqrt()
    drift = torch.zeros_like(first)
    h = 1 / steps

    def slope(state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return state[1], acceleration(f, *state)

    for _ in range(steps):
        z, v = _runge_kutta(slope, (z, v), h)
        path.append(z)
        speed = f.squared_speed(z, v).sqrt()
        drift = torch.maximum(drift, (speed - first).abs())  # NaN stays NaN
    scale = first.clamp_min(torch.finfo(first.dtype).tiny)
    return Shot(torch.stack(path, 1), v, drift / scale)


def log_map(
    f: Any, z: Any, w: Any, *, graph: Graph | None = None, segments: int = SEGMENTS
) -> tuple[Tensor, Geodesics]:
    """The velocity v (n, d) at z with exp_z(v) = w along the shortest path found, and that path.

    v = G⁻¹ p with p = N J₀ᵀ(φ₁ − φ₀), the momentum with which a path leaves z, has an error of order N⁻²; two
    resolutions are extrapolated, (4 v_N − v_N/2) / 3, which leaves order N⁻⁴.

    Args:
        f: an embedding or any function (n, d) → (n, D).
        z: points (n, d), or one.
        w: points (n, d), or one.
        graph: see `geodesic`.
        segments: N, a multiple of 8.

    Raises:
        InputError: see `geodesic`; a metric without an embedding.
    """
    f, z, w = prepare(f, z=z, w=w)
    f = _embedding(f)
    if checks.positive_int(segments, "segments") % 8:
        raise InputError(f"{segments} segments", "a multiple of 8")
    tolerance = 1e-16 if z.dtype == torch.float64 else 1e-9  # an error of √tolerance is left in v
    fine = geodesic(f, z, w, graph=graph, segments=segments, tolerance=tolerance)
    coarse = minimise(f, fine.path[:, ::2], tolerance, ITERATIONS)
    velocity = (4 * _leaving(f, fine.path) - _leaving(f, coarse.nodes)) / 3
    return velocity, fine


def distance_gradient(f: Any, found: Geodesics) -> tuple[Tensor, Tensor]:
    """∂/∂a and ∂/∂b of the squared distances 2 · energy of paths that were found, (n, d) each.

    They are 2 ∂E/∂a and 2 ∂E/∂b with the path held, since it is a minimum: one Jacobian at each end.

    Raises:
        InputError: a metric without an embedding.
    """
    f, _ = prepare(f, path=found.path[:, 0])
    return -2 * _momentum(_embedding(f), found.path), -2 * _momentum(_embedding(f), found.path.flip(1))


def parallel_transport(f: Any, path: Any, w: Any) -> Tensor:
    """Tangents w (n, d) or (n, k, d) at the first node carried along paths (n, N + 1, d) to the last, in parallel.

    ẇ = −Γ(γ̇, w) along the cubic spline through the nodes, by the classical Runge–Kutta rule with two nodes to a step;
    Γ(v, w) = ¼ (a(v − w) − a(v + w)) by the acceleration a of geodesics, which is quadratic. Lengths and angles are
    kept up to order N⁻⁴.

    Raises:
        InputError: see `length`; a piecewise linear function.
    """
    f, nodes = checked_path(f, path)
    n, d = len(nodes), nodes.shape[-1]
    carried = tensor(w, "w").to(nodes)
    shape = carried.shape
    if shape not in {(d,), (n, d)} and not (carried.ndim == 3 and shape[::2] == (n, d)):
        raise InputError(f"w has shape {tuple(shape)}", f"({n}, {d}), ({n}, k, {d}) or ({d},) for {n} paths")
    carried = (
        carried.reshape(len(nodes), -1, nodes.shape[-1]) if carried.ndim > 1 else carried.expand(len(nodes), 1, -1)
    )
    count = nodes.shape[1] - 1
    times = np.linspace(0, 1, 2 * count + 1)
    points, velocity = curves.spline(nodes, times)
    refuse_kinks(f, points[:, 0], velocity[:, 0])
    many = carried.shape[1]

    def turn(at: int, w: Tensor) -> Tensor:
        z, v = (x[:, at].repeat_interleave(many, 0) for x in (points, velocity))
        flat = w.flatten(0, 1)
        # Γ is bilinear: w as long as v keeps the two accelerations of one size
        scale = v.norm(dim=1, keepdim=True) / flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
        bent = acceleration(f, z, v + scale * flat) - acceleration(f, z, v - scale * flat)
        change: Tensor = 0.25 * bent / scale.clamp_min(torch.finfo(w.dtype).tiny)
        return change.view_as(w)

    h = 1 / count
    for step in range(count):
        at = 2 * step
        first = turn(at, carried)
        second = turn(at + 1, carried + 0.5 * h * first)
        third = turn(at + 1, carried + 0.5 * h * second)
        last = turn(at + 2, carried + h * third)
        carried = carried + h / 6 * (first + 2 * second + 2 * third + last)
    found: Tensor = carried.reshape(shape) if len(shape) > 1 else carried[:, 0]
    return found


@torch.no_grad()
def acceleration(f: Manifold, z: Tensor, v: Tensor) -> Tensor:
    """γ̈ of the geodesic through z (n, d) with velocity v (n, d): (n, d)."""
    found = []
    for rows, directions in zip(*(torch.split(x, _together(f, z)) for x in (z, v)), strict=True):
        found.append(_acceleration(f, rows, directions))
    return torch.cat(found)


def _acceleration(f: Manifold, z: Tensor, v: Tensor) -> Tensor:
    force = torch.func.grad(lambda z: f.lagrangian(z, v).sum())(z)

    def momentum(z: Tensor) -> Tensor:
        found: Tensor = torch.func.grad(lambda v: f.lagrangian(z, v).sum())(v)
        return found

    _, change = derivative(momentum, z, v)
    return _solve(f.metric(z), force - change)


def _together(f: Manifold, z: Tensor) -> int:
    return f.rows(z.shape[1] + 8) if isinstance(f, Embedding) else len(z)


def _runge_kutta(
    slope: Callable[[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]], state: tuple[Tensor, Tensor], h: float
) -> tuple[Tensor, Tensor]:
    def moved(by: float, change: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return state[0] + by * change[0], state[1] + by * change[1]

    first = slope(state)
    second = slope(moved(h / 2, first))
    third = slope(moved(h / 2, second))
    last = slope(moved(h, third))
    total = [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(first, second, third, last, strict=True)]
    return moved(h, (total[0], total[1]))


def _momentum(f: Embedding, path: Tensor) -> Tensor:
    """−∂E/∂z₀ of the chord energy, (n, d): the momentum G v with which a path leaves its first node."""
    value, jacobian = f.jacobian(path[:, 0])
    after = f.values(path[:, 1])
    pulled, _ = f.target.pull(value, after, jacobian, jacobian)
    residual = f.target.residual(value, after)
    return -(path.shape[1] - 1) * (pulled @ residual.unsqueeze(-1)).squeeze(-1)


def _leaving(f: Embedding, path: Tensor) -> Tensor:
    """The velocity with which a path leaves its first node, (n, d)."""
    return _solve(f.metric(path[:, 0]), _momentum(f, path))


def _solve(metric: Tensor, right: Tensor) -> Tensor:
    """G⁻¹ right, NaN where G is not finite or has no inverse."""
    found, info = torch.linalg.solve_ex(metric.nan_to_num(), right)
    good = (info == 0) & metric.flatten(1).isfinite().all(1)
    return torch.where(good.unsqueeze(1), found, torch.nan)


def _embedding(f: Manifold) -> Embedding:
    if not isinstance(f, Embedding):
        raise InputError("a metric without an embedding", "an embedding", "geodesic() works for a metric alone")
    return f
