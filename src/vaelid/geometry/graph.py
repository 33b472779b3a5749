"""A graph of neighbours over points of latent space: shortest paths that follow the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree
from torch import Tensor

from vaelid import checks
from vaelid.errors import InputError
from vaelid.geometry import curves
from vaelid.geometry.manifold import Embedding, prepare

NEIGHBOURS = 10


@final
@dataclass(frozen=True, eq=False)
class Graph:
    """Points of latent space, each joined to its nearest ones by straight edges of known length.

    An edge's length is that of φ along it by two chords, so an edge that leaps over a gap is a long one.

    Attributes:
        points: (n, d).
        embedded: φ at the points, (n, D).
        edges: symmetric sparse matrix of lengths, (n, n).
        neighbours: how many neighbours each point was joined to.
    """

    f: Embedding
    points: Tensor
    embedded: Tensor
    edges: csr_array
    neighbours: int

    @classmethod
    def build(cls, f: Any, points: Any, neighbours: int = NEIGHBOURS) -> Self:
        """The graph over points (n, d); parts that do not hang together are joined where they are nearest.

        Raises:
            InputError: fewer than two points, or what `vaelid.geometry.manifold.prepare` refuses.
        """
        manifold, z = prepare(f, points=points)
        if not isinstance(manifold, Embedding):
            raise InputError("a graph under a metric alone", "an embedding, whose chords give the edges their lengths")
        if len(z) < 2:
            raise InputError(f"a graph of {len(z)} point", "two points or more")
        neighbours = min(checks.positive_int(neighbours, "the number of neighbours"), len(z) - 1)
        places = z.cpu().double().numpy()
        near = nearest_places(z, z, neighbours + 1)
        # itself comes last, and goes; where points coincide it may not have been among them
        other = np.argsort(near == np.arange(len(z))[:, None], axis=1, kind="stable")[:, :neighbours]
        near = np.take_along_axis(near, other, axis=1)
        start, end = np.repeat(np.arange(len(z)), neighbours), near.ravel()
        start, end = _joined(places, start, end)
        embedded = manifold.values(z)
        length = _edges(manifold, z, embedded, z, embedded, torch.from_numpy(start), torch.from_numpy(end))
        return cls(manifold, z, embedded, _matrix(length, start, end, len(z)), neighbours)

    def check(self, f: Embedding) -> None:
        """Refuse a graph that was made for another geometry than f.

        Raises:
            InputError: sizes or names differ.
        """
        own = self.f
        if (own.latent, own.width, own.name) != (f.latent, f.width, f.name):
            raise InputError(
                f"a graph for {own.name} ({own.latent} latents, {own.width} coordinates)",
                f"one for {f.name} ({f.latent} latents, {f.width} coordinates)",
                "Graph.build(f, points) with the same f",
            )

    def curves(self, a: Tensor, b: Tensor, segments: int) -> Tensor:
        """The shortest paths through the graph from a to b (n, d), as curves (n, segments + 1, d)."""
        ends = torch.cat((a, b))
        unique, where = torch.unique(ends, dim=0, return_inverse=True)
        matrix = self._with(unique)
        count = len(self.points)
        source, goal = where[: len(a)].numpy(force=True) + count, where[len(a) :].numpy(force=True) + count
        points = torch.cat((self.points, unique))
        # the fewer sources
        turned = len(np.unique(goal)) < len(np.unique(source))
        first, last = (goal, source) if turned else (source, goal)
        sources, row = np.unique(first, return_inverse=True)
        distance, before = dijkstra(matrix, directed=False, indices=sources, return_predecessors=True)
        found = []
        for pair, (place, end) in enumerate(zip(row, last, strict=True)):
            path = [end]
            while path[-1] != first[pair] and before[place, path[-1]] >= 0:
                path.append(before[place, path[-1]])
            if len(path) == 1:
                path.append(first[pair])
            along = path if turned else path[::-1]
            steps = torch.as_tensor(np.abs(np.diff(distance[place, along])), dtype=torch.float64, device=points.device)
            found.append(curves.by_length(points[along].unsqueeze(0), steps.unsqueeze(0), segments)[0])
        return torch.stack(found)

    def distances(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Shortest lengths along edges from the points ``rows`` (all by default) to all, (rows, n)."""
        found: np.ndarray = dijkstra(self.edges, directed=False, indices=rows)
        return found

    def _with(self, ends: Tensor) -> csr_array:
        """The edges, and those of further points to their neighbours."""
        count = len(self.points)
        near = nearest_places(self.points, ends, self.neighbours)
        start, end = np.repeat(np.arange(len(ends)), self.neighbours), near.ravel()
        own = self.f.values(ends)
        length = _edges(self.f, ends, own, self.points, self.embedded, torch.from_numpy(start), torch.from_numpy(end))
        size = count + len(ends)
        rows = np.pad(self.edges.indptr, (0, len(ends)), mode="edge")
        grown = csr_array((self.edges.data, self.edges.indices, rows), (size, size))
        return grown + _matrix(length, start + count, end, size)


def nearest_places(points: Tensor, queries: Tensor, count: int) -> np.ndarray:
    """Which of the points (n, d) are nearest to each query (m, d), nearest first: (m, count)."""
    places, wanted = (x.cpu().double().numpy() for x in (points, queries))
    near: np.ndarray = KDTree(places).query(wanted, k=np.arange(1, count + 1))[1]
    return near


def _edges(f: Embedding, z: Tensor, at: Tensor, w: Tensor, there: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Lengths of the straight edges from z[i] to w[j], by two chords: (edges,)."""
    i, j = i.to(z.device), j.to(z.device)
    found = []
    for some, others in zip(torch.split(i, f.rows(1)), torch.split(j, f.rows(1)), strict=True):
        middle = f.values(0.5 * (z[some] + w[others]))
        first, second = f.target.residual(at[some], middle), f.target.residual(middle, there[others])
        found.append(first.norm(dim=-1) + second.norm(dim=-1))
    return torch.cat(found).double().cpu()


def _matrix(length: Tensor, start: np.ndarray, end: np.ndarray, size: int) -> csr_array:
    """Symmetric, each pair once; a length of zero is kept as the smallest number, since sparse zeros are no edges."""
    weight = np.nan_to_num(length.numpy(), nan=np.inf)
    weight = np.maximum(weight, np.finfo(float).tiny)
    low, high = np.minimum(start, end), np.maximum(start, end)
    _, once = np.unique(low.astype(np.int64) * size + high, return_index=True)
    keep = once[np.isfinite(weight[once])]
    low, high, weight = low[keep], high[keep], weight[keep]
    both = (np.concatenate((low, high)), np.concatenate((high, low)))
    return coo_array((np.concatenate((weight, weight)), both), shape=(size, size)).tocsr()


def _joined(places: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges that make the graph one part: each small part is joined to the largest by its shortest edge."""
    size = len(places)
    edges = coo_array((np.ones(len(start)), (start, end)), shape=(size, size))
    parts, label = connected_components(edges, directed=False)
    if parts == 1:
        return start, end
    largest = np.bincount(label).argmax()
    main = np.flatnonzero(label == largest)
    search = KDTree(places[main])
    for part in range(parts):
        if part == largest:
            continue
        rows = np.flatnonzero(label == part)
        gap, near = search.query(places[rows])
        best = gap.argmin()
        start, end = np.append(start, rows[best]), np.append(end, main[near[best]])
    return start, end
