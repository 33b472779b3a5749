"""Fréchet means: the point whose squared distances to given points are least, solved together with its paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from vaelid import checks
from vaelid.errors import InputError
from vaelid.geometry.blocks import System, assemble, solve
from vaelid.geometry.geodesic import ITERATIONS, SEGMENTS, TOLERANCE, geodesic
from vaelid.geometry.graph import Graph
from vaelid.geometry.manifold import Embedding, prepare, tensor
from vaelid.geometry.newton import Status, damped


@final
@dataclass(frozen=True, eq=False)
class FrechetMean:
    """A mean, and the paths to it.

    Attributes:
        mean: (d,).
        variance: Σ w d² at the mean.
        path: paths from the points to the mean, (n, N + 1, d).
        distance: √(2 · energy) of each path, (n,).
        status: a `Status`.
        iterations: steps tried, the mean and all paths together.
        decrement: squared undamped Newton decrement by the energy.
        metric: what is measured.
    """

    mean: Tensor
    variance: float
    path: Tensor
    distance: Tensor
    status: Status
    iterations: int
    decrement: float
    metric: str


@torch.no_grad()
def frechet_mean(
    f: Any,
    points: Any,
    weights: Any = None,
    *,
    start: Any = None,
    graph: Graph | None = None,
    segments: int = SEGMENTS,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
) -> FrechetMean:
    """argmin over m of Σ wₖ d²(m, xₖ), by Gauss–Newton on m and the paths to it as one star.

    Each path's inner nodes are eliminated towards m, which leaves d equations for m; so a step costs no more than one
    of the paths alone. The minimum is a local one, near the start.

    Args:
        f: an embedding or any function (n, d) → (n, D).
        points: xₖ, (n, d).
        weights: wₖ ≥ 0, (n,); they are divided by their sum; equal by default.
        start: where to begin, (d,); by default the point among xₖ nearest to their mean in the target space.
        graph: see `geodesic`, for the paths at the beginning.
        segments: N of each path.
        tolerance: done when decrement² ≤ tolerance · energy.
        iterations: at most.

    Raises:
        InputError: see `geodesic`; weights below 0, or all 0; a metric without an embedding.
    """
    f, x = prepare(f, points=points)
    if not isinstance(f, Embedding):
        raise InputError("a mean under a metric alone", "an embedding")
    share = _weights(weights, x)
    if start is None:
        values = f.values(x)
        centre = (share.to(values) @ values).expand_as(values)
        start = x[f.target.squared(values, centre).nan_to_num(nan=torch.inf).argmin()]
    begin = f.points(torch.as_tensor(start).reshape(1, -1), "start").to(x)
    first = geodesic(f, x, begin, graph=graph, segments=segments, tolerance=0.1, iterations=iterations)
    nodes, damping, taken = first.path, 0.0, 0
    system = assemble(f, nodes, free_end=True)
    status = Status.MORE
    while True:
        total = float(share @ system.energy)
        step, decrement = _star(system, share, damping)
        relative = (decrement if damping == 0 else _star(system, share, 0.0)[1]) / max(total, 1e-300)
        if not (total < float("inf")):
            status = Status.BROKEN
        elif relative <= tolerance or decrement <= float(share @ system.floor):
            status = Status.CONVERGED
        elif damping > 1e6:
            status = Status.STALLED
        if status != Status.MORE or taken == iterations:
            break
        trial = nodes.clone()
        trial[:, 1:] += step
        found = assemble(f, trial, free_end=True)
        taken += 1
        if float(share @ found.energy) < total:
            nodes, system, damping = trial, found, damping / 5 if damping > 0.02 else 0.0
        else:
            damping = max(8 * damping, 0.1)
    distance = (2 * system.energy).sqrt()
    return FrechetMean(nodes[0, -1], 2 * float(share @ system.energy), nodes, distance, status, taken, relative, f.name)


def _star(system: System, share: Tensor, damping: float) -> tuple[Tensor, float]:
    """A step of all inner nodes and the common end, (n, N, d), and the squared decrement of the weighted energy."""
    diagonal = damped(system, torch.full_like(system.energy, damping))
    inner = system.gradient[:, :-1]
    eye = torch.eye(diagonal.shape[-1], dtype=diagonal.dtype, device=diagonal.device)
    # the inner nodes' answer to the gradient, and to a unit step of the end along each axis
    load = torch.zeros(*inner.shape, len(eye), dtype=inner.dtype, device=inner.device)
    load[:, -1] = system.upper[:, -1]
    solution = solve(diagonal[:, :-1], system.upper[:, :-1], torch.cat((inner.unsqueeze(-1), load), -1))
    answer, across = solution.step[..., 0], solution.step[..., 1:]
    weight = share.to(diagonal)
    left = diagonal[:, -1] + system.upper[:, -1].mT @ across[:, -1]
    right = system.gradient[:, -1] + (system.upper[:, -1].mT @ answer[:, -1].unsqueeze(-1)).squeeze(-1)
    matrix, force = torch.einsum("n,nij->ij", weight, left), weight @ right
    end = -torch.linalg.solve(matrix, force)
    step = torch.cat((answer + across @ end, end.expand(len(weight), 1, -1)), 1)
    decrement = float(share @ solution.decrement[:, 0]) + float(-(force @ end))
    return step, decrement


def _weights(weights: Any, x: Tensor) -> Tensor:
    if weights is None:
        return torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device)
    checks.weights(weights, len(x))
    share = tensor(weights, "weights").to(x.device, torch.float64)
    return share / share.sum()
