"""`geodesic`: shortest paths between pairs of points, each with a status and its length between two bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from vaelid import checks
from vaelid.errors import InputError
from vaelid.geometry import curves
from vaelid.geometry.georce import georce
from vaelid.geometry.graph import Graph
from vaelid.geometry.manifold import Embedding, Manifold, MetricField, pairs, prepare
from vaelid.geometry.minima import bent, choose
from vaelid.geometry.newton import Minimum, Status, minimise
from vaelid.random import Key

SEGMENTS = 32
TOLERANCE = 1e-3
ITERATIONS = 100
TOGETHER = 512  # pairs that are solved at once
OnProgress = Callable[[int, int], None]
_COARSE = (3e-3, 1e-2)  # tolerances at a quarter and at half of the segments, where most of the way is gone cheaply


@final
@dataclass(frozen=True, eq=False)
class Geodesics:
    """Paths between n pairs of points, and what is known of their lengths.

    ``chord ≤ d ≤ length`` holds for the distance d, the first exactly, the second up to ``error``; the two can be far
    apart. Lengths have no unit but that of the metric.

    Attributes:
        path: nodes at equal steps of time, (n, N + 1, d); ends are the given points.
        status: a `Status` each, (n,).
        iterations: Gauss–Newton steps, all levels together, (n,).
        decrement: squared undamped Newton decrement by energy, (n,): what one more step would still gain, twice.
        energy: chord energy N/2 Σ |Δφ|² of the path, (n,); ½ d² for a geodesic in the limit of many segments.
        length: length of the spline through the nodes, by quadrature, (n,).
        chord: distance of the endpoints in the target space, (n,); 0 where there is only a metric.
        error: how far lengths by chords, extrapolated, and by quadrature are apart, and half of length · decrement,
            (n,): what the resolution and the tolerance leave open. Where a path is nearly no minimum, as between
            nearly conjugate points, the second part is too small: ask for a smaller tolerance.
        straight_energy: chord energy of the straight line, (n,).
        by_graph: whether the search began with a path through the graph, (n,).
        minima: how many different local minima were seen, (n,); 1 where one start was asked for, which may then have
            ended at a saddle.
        tie: whether another minimum is within a hundredth of the length, (n,).
        metric: what is measured.
    """

    path: Tensor
    status: Tensor
    iterations: Tensor
    decrement: Tensor
    energy: Tensor
    length: Tensor
    chord: Tensor
    error: Tensor
    straight_energy: Tensor
    by_graph: Tensor
    minima: Tensor
    tie: Tensor
    metric: str

    @property
    def converged(self) -> Tensor:
        """Whether each search converged, (n,)."""
        return self.status == int(Status.CONVERGED)

    @property
    def distance(self) -> Tensor:
        """√(2 · energy), (n,), off the length of the path by a term of order N⁻²: below it in a flat target."""
        return (2 * self.energy).sqrt()

    def points(self, times: Any) -> Tensor:
        """The paths at times t in [0, 1], (n, times, d)."""
        return curves.spline(self.path, np.atleast_1d(np.asarray(times, dtype=float)))[0]

    def reasons(self) -> list[str]:
        """Why each search ended, in words."""
        return [Status(int(status)).reason for status in self.status]

    def __str__(self) -> str:
        count, done = len(self.status), int(self.converged.sum())
        lines = [f"{count:,} geodesics, {done:,} converged; {self.metric}"]
        if count:
            middle = [f"{name} {float(getattr(self, name).median()):.4g}" for name in ("chord", "length", "error")]
            lines.append(f"medians: {', '.join(middle)}")
        if done < count:
            words, times = np.unique([why for why in self.reasons() if why != "converged"], return_counts=True)
            lines += [f"{many:,}: {why}" for why, many in zip(words, times, strict=True)]
        return "\n".join(lines)


PER_PAIR = [field.name for field in fields(Geodesics) if field.name != "metric"]


def geodesic(
    f: Any,
    a: Any,
    b: Any,
    *,
    graph: Graph | None = None,
    segments: int = SEGMENTS,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
    starts: int = 1,
    key: Key = Key(0),  # noqa: B008  # a frozen value
    on_progress: OnProgress | None = None,
) -> Geodesics:
    """Shortest paths from a to b, by damped Gauss–Newton on the chord energy of whole curves.

    A search begins with the path through ``graph`` or with the straight line, whichever has less energy; from the
    straight line it goes by way of N/4 and N/2 segments. What is found is a local minimum; ``starts`` above 1 tries
    more curves for every pair and keeps the best.

    Args:
        f: an embedding, a `MetricField`, a module or any function (n, d) → (n, D).
        a: points (n, d), or one for all of b.
        b: points (n, d), or one for all of a.
        graph: a `Graph` over points where data are, for instance latent means of training rows.
        segments: N, a multiple of 4.
        tolerance: a search has converged when decrement² ≤ tolerance · energy.
        iterations: at most, on every level.
        starts: how many curves to begin with for every pair.
        key: names the random bends of further starts.
        on_progress: called with the pairs done and of how many, some hundreds apart.

    Returns:
        `Geodesics`. Pairs do not disturb one another: one that fails says why in its status.

    Raises:
        InputError: points that are not (n, d), not finite or in half precision; a function that cannot take them, or
            depends on chance or on the rows beside; segments that are no multiple of 4; a graph of another function.
    """
    f, a, b = prepare(f, a=a, b=b)
    a, b = pairs(a, b)
    segments, tolerance = checks.positive_int(segments, "segments", minimum=4), checks.positive(tolerance, "tolerance")
    if segments % 4:
        raise InputError(f"{segments} segments", "a multiple of 4")
    starts = checks.positive_int(starts, "starts")
    iterations = checks.positive_int(iterations, "iterations", minimum=0)
    if isinstance(f, MetricField) and (graph is not None or starts > 1):
        raise InputError("a graph or several starts under a metric alone", "neither; or an embedding")
    if graph is not None:
        graph.check(f)
    found = []
    for rows in torch.split(torch.arange(len(a), device=a.device), TOGETHER):
        found.append(_solved(f, a[rows], b[rows], graph, segments, tolerance, iterations, starts, key))
        if on_progress is not None:
            on_progress(min(len(found) * TOGETHER, len(a)), len(a))
    tensors = {name: torch.cat([getattr(part, name) for part in found]) for name in PER_PAIR}
    return Geodesics(**tensors, metric=f.name)


def _solved(
    f: Embedding | MetricField,
    a: Tensor,
    b: Tensor,
    graph: Graph | None,
    segments: int,
    tolerance: float,
    iterations: int,
    starts: int,
    key: Key,
) -> Geodesics:
    """Paths between some hundreds of pairs."""
    line = curves.straight(a, b, segments)
    by_graph = torch.zeros(len(a), dtype=torch.bool, device=a.device)
    if isinstance(f, MetricField):
        found = georce(f, line, tolerance, 10 * iterations)
        return _described(f, found, line, by_graph, torch.ones_like(found.iterations), by_graph)
    begin = line
    if graph is not None:
        paths = graph.curves(a, b, segments)
        by_graph = f.path_energy(paths) < f.path_energy(line)
        begin = torch.where(by_graph[:, None, None], paths, line)
    # bent curves take no way over fewer segments
    tries = bent(begin, starts, key)
    direct = torch.cat([by_graph] + [torch.ones_like(by_graph)] * (starts - 1))
    best = choose(f, _search(f, torch.cat(tries), direct, tolerance, iterations), starts)
    return _described(f, best.minimum, line, by_graph & best.first, best.count, best.tie)


def refined_from(f: Embedding, start: Tensor, tolerance: float, iterations: int) -> Geodesics:
    """Paths from given curves (n, N + 1, d)."""
    line = curves.straight(start[:, 0], start[:, -1], start.shape[1] - 1)
    found = minimise(f, start, tolerance, iterations)
    one = torch.ones_like(found.iterations)
    return _described(f, found, line, one.bool(), one, ~one.bool())


def _search(f: Embedding, begin: Tensor, direct: Tensor, tolerance: float, iterations: int) -> Minimum:
    """Minima from the curves to begin with; those that are not direct by way of fewer segments."""
    segments, line = begin.shape[1] - 1, ~direct
    spent = torch.zeros(len(begin), dtype=torch.int64, device=begin.device)
    if line.any():
        nodes = begin[line]
        coarse = nodes
        for count, enough in zip((segments // 4, segments // 2), _COARSE, strict=True):
            if count < 2:  # nothing would be free
                continue
            found = minimise(f, curves.refined(coarse, count), max(tolerance, enough), iterations)
            coarse, spent[line] = found.nodes, spent[line] + found.iterations
        fine = curves.refined(coarse, segments)
        better = f.path_energy(fine) < f.path_energy(nodes)  # few segments may have leapt over what many cannot
        begin = begin.clone()
        begin[line] = torch.where(better[:, None, None], fine, nodes)
    found = minimise(f, begin, tolerance, iterations)
    return replace(found, iterations=found.iterations + spent)


def _described(f: Manifold, found: Minimum, line: Tensor, by_graph: Tensor, seen: Tensor, tie: Tensor) -> Geodesics:
    """What is known of the paths that were found."""
    nodes = found.nodes
    length, _ = curves.quadrature(f, nodes)
    chords, half = (2 * found.energy).sqrt(), (2 * f.path_energy(nodes[:, ::2])).sqrt()
    chord = torch.zeros_like(length)
    if isinstance(f, Embedding):
        chord = f.target.squared(f.values(nodes[:, 0]), f.values(nodes[:, -1])).sqrt().double()
    return Geodesics(
        path=nodes,
        status=found.status,
        iterations=found.iterations,
        decrement=found.decrement,
        energy=found.energy,
        length=length,
        chord=chord,
        error=((4 * chords - half) / 3 - length).abs() + 0.5 * length * found.decrement.nan_to_num(posinf=0),
        straight_energy=f.path_energy(line),
        by_graph=by_graph,
        minima=seen,
        tie=tie,
        metric=f.name,
    )
