"""Distances between all pairs of many points, and nearest neighbours by them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from vaelid import checks
from vaelid.errors import InputError
from vaelid.geometry import curves
from vaelid.geometry.geodesic import (
    ITERATIONS,
    PER_PAIR,
    SEGMENTS,
    TOLERANCE,
    Geodesics,
    OnProgress,
    geodesic,
    refined_from,
)
from vaelid.geometry.graph import NEIGHBOURS, Graph, nearest_places
from vaelid.geometry.manifold import Embedding, prepare

_ROUNDS = 3  # of new searches from ways over a third point
_SLACK = 1e-3  # of a length, by which such a way has to be shorter


@final
@dataclass(frozen=True, eq=False)
class Distances:
    """Distances between n points, as symmetric matrices (n, n) with zeros on the diagonal, float64.

    ``chord ≤ d ≤ length`` for the distance d of every pair, the second up to ``error``. A local minimum is no shortest
    path: `violations` counts where that shows.

    Attributes:
        length: length of the path found.
        chord: distance in the target space.
        error: what the resolution of the path leaves open.
        converged: whether the search for the path converged.
        metric: what is measured.
    """

    length: Tensor
    chord: Tensor
    error: Tensor
    converged: Tensor
    metric: str

    @property
    def converged_share(self) -> float:
        """Share of the pairs whose search converged."""
        n = len(self.length)
        return 1.0 if n < 2 else float((self.converged.sum() - n) / (n * (n - 1)))

    def violations(self, slack: float = 0.01) -> tuple[int, int]:
        """How many of the pairs are longer, by the share ``slack``, than a way over a third point, and of how many.

        A distance satisfies the triangle inequality, so where it fails a path that was found is not the shortest one.
        """
        d = self.length.numpy(force=True)
        best, _ = _over_third(d)
        upper = np.triu_indices(len(d), 1)
        return int((d[upper] > (1 + slack) * best[upper]).sum()), len(upper[0])


def _over_third(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shortest way between two points over a third one, and that point, (n, n) each."""
    best, via = np.full_like(d, np.inf), np.zeros(d.shape, dtype=int)
    for k in range(len(d)):
        over = d[:, k, None] + d[None, k]
        over[k], over[:, k] = np.inf, np.inf
        via[over < best] = k
        np.minimum(best, over, out=best)
    return best, via


def distances(
    f: Any,
    z: Any,
    *,
    neighbours: int = NEIGHBOURS,
    segments: int = SEGMENTS,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
    on_progress: OnProgress | None = None,
) -> Distances:
    """Geodesic distances between all points z (n, d): a graph of neighbours, Dijkstra's paths, each refined.

    Where a way over a third point turns out shorter than the path found, the search is taken up again from there.

    n points are n (n − 1) / 2 pairs of 10 to 100 ms each; `Graph.distances` alone, lengths along edges, is far cheaper
    and an upper bound.

    Args:
        f: an embedding, a `MetricField` or any function (n, d) → (n, D).
        z: the points (n, d).
        neighbours: of each point in the graph.
        segments: see `geodesic`.
        tolerance: see `geodesic`.
        iterations: see `geodesic`.
        on_progress: called with the pairs done and of how many.

    Raises:
        InputError: see `geodesic`.
    """
    f, z = prepare(f, z=z)
    n = len(z)
    graph = Graph.build(f, z, neighbours) if isinstance(f, Embedding) and n > 2 else None
    first, second = (torch.from_numpy(index) for index in np.triu_indices(n, 1))
    found = None
    if n > 1:
        found = geodesic(
            f,
            z[first],
            z[second],
            graph=graph,
            segments=segments,
            tolerance=tolerance,
            iterations=iterations,
            on_progress=on_progress,
        )
    if found is not None and isinstance(f, Embedding):
        found = _shortened(f, found, n, tolerance, iterations)

    def square(name: str, diagonal: float) -> Tensor:
        matrix = torch.full((n, n), diagonal, dtype=torch.float64)
        if found is not None:
            matrix[first, second] = getattr(found, name).double().cpu()
            matrix[second, first] = matrix[first, second]
        return matrix

    return Distances(
        length=square("length", 0.0),
        chord=square("chord", 0.0),
        error=square("error", 0.0),
        converged=square("converged", 1.0).bool(),
        metric=f.name,
    )


@final
@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest points of each query.

    Attributes:
        index: places in the points that were searched, nearest first, (queries, k).
        length: lengths of the paths to them, (queries, k).
        euclidean: places of the nearest ones by Euclidean distance in latent space, (queries, k).
        converged: whether the paths to all of a query's candidates converged, (queries,).
    """

    index: Tensor
    length: Tensor
    euclidean: Tensor
    converged: Tensor


def nearest(
    f: Any,
    queries: Any,
    z: Any,
    k: int = 1,
    *,
    among: int = 20,
    graph: Graph | None = None,
    segments: int = SEGMENTS,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
    on_progress: OnProgress | None = None,
) -> Neighbours:
    """The k nearest of the points z (n, d) to each query (m, d) by geodesic distance, among its Euclidean-nearest ones.

    Args:
        f: an embedding, a `MetricField` or any function (n, d) → (n, D).
        queries: (m, d).
        z: the points that are searched, (n, d).
        k: how many.
        among: how many candidates of each query are measured, the nearest ones by Euclidean distance in latent space.
        graph: see `geodesic`.
        segments: see `geodesic`.
        tolerance: see `geodesic`.
        iterations: see `geodesic`.
        on_progress: called with the pairs done and of how many.

    Raises:
        InputError: see `geodesic`; more neighbours than candidates, more candidates than points.
    """
    f, queries, z = prepare(f, queries=queries, z=z)
    k, among = checks.positive_int(k, "k"), checks.positive_int(among, "among")
    if not k <= among <= len(z):
        raise InputError(f"k = {k} of among = {among} candidates out of {len(z)} points", "k ≤ among ≤ points")
    near = torch.from_numpy(nearest_places(z, queries, among)).to(z.device)
    found = geodesic(
        f,
        queries.repeat_interleave(among, 0),
        z[near.flatten()],
        graph=graph,
        segments=segments,
        tolerance=tolerance,
        iterations=iterations,
        on_progress=on_progress,
    )
    length, done = (values.view(len(queries), among) for values in (found.length, found.converged))
    order = length.nan_to_num(nan=torch.inf).argsort(dim=1, stable=True)[:, :k]
    return Neighbours(near.gather(1, order), length.gather(1, order), near[:, :k], done.all(1))


def _shortened(f: Embedding, found: Geodesics, n: int, tolerance: float, iterations: int) -> Geodesics:
    """Paths between all pairs of n points, searched for again from the way over a third point where that is shorter."""
    first, second = np.triu_indices(n, 1)
    place = np.zeros((n, n), dtype=int)
    place[first, second] = place[second, first] = np.arange(len(first))
    columns = {name: getattr(found, name).clone() for name in PER_PAIR}
    for _ in range(_ROUNDS):
        d = np.zeros((n, n))
        d[first, second] = d[second, first] = columns["length"].nan_to_num(torch.inf, torch.inf).numpy(force=True)
        best, via = _over_third(d)
        longer = np.flatnonzero(d[first, second] > (1 + _SLACK) * best[first, second])
        if not len(longer):
            break
        i, j = first[longer], second[longer]
        k = via[i, j]
        halves = []
        for start, end in ((i, k), (k, j)):
            path = columns["path"][place[start, end]]
            halves.append(torch.where(torch.from_numpy(start > end).to(path.device)[:, None, None], path.flip(1), path))
        whole = torch.cat((halves[0], halves[1][:, 1:]), 1)
        values = f.values(whole.flatten(0, 1)).view(*whole.shape[:2], -1)
        steps = f.target.residual(values[:, :-1], values[:, 1:]).norm(dim=-1).double()
        again = refined_from(f, curves.by_length(whole, steps, halves[0].shape[1] - 1), tolerance, iterations)
        rows = torch.from_numpy(longer).to(again.length.device)
        better = again.converged & (again.length < columns["length"][rows])
        for name, column in columns.items():
            column[rows[better]] = getattr(again, name)[better]
    return replace(found, **columns)
