"""What the pictures of latent geometry show: a plane and its metric, unlike rows, equal steps of length."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vaelid import geometry
from vaelid.errors import InputError
from vaelid.geometry import Embedding, Geodesics, Graph
from vaelid.geometry.curves import by_length, spline

TILES = 11  # steps along a path
PAIRS = 4  # of rows of different kinds, at most
_KINDS = 12  # classes, at most, for labels to say which rows are of different kinds
_FINE = 8  # points in each segment of a path, for its lengths
_MARGIN = 0.12
_SIDES = 16, 64  # of the grid under a map
_EACH = 50  # multiplications that take as long as a number does that is made otherwise
_OPERATIONS = 500
_MAP = 3e10  # what a map may cost, in multiplications
_SECTION = 3e8  # what all pairs together may cost at a point
_SCATTERED = 100  # pairs


class Principal(NamedTuple):
    """Mean (d,), first two axes (2, d) and their shares of the variance (2,) of points."""

    mean: np.ndarray
    axes: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, z: np.ndarray) -> Principal:
        """Those of points (n, d), with n and d two or more. The largest entry of each axis is positive."""
        values, vectors = np.linalg.eigh(np.cov(z.T))
        axes = vectors[:, :-3:-1].T
        axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.nan_to_num(values[:-3:-1] / values.sum())
        return cls(z.mean(0), axes, shares)

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Where points (n, d) lie in the plane, (n, 2)."""
        where: np.ndarray = (z - self.mean) @ self.axes.T
        return where

    @property
    def names(self) -> tuple[str, ...]:
        """What the axes are called."""
        return tuple(f"principal component {i + 1} ({share:.0%} of variance)" for i, share in enumerate(self.shares))


@final
@dataclass(frozen=True, eq=False)
class Chart:
    """All of a latent space of one or two dimensions, or the plane in which latent means vary most.

    Attributes:
        f: the embedding, a function of coordinates (n, k), k = 1 or 2: its metric in a plane is that of the plane.
        points: latent means, or their feet on the plane, (n, k).
        names: of the axes.
        size: dimensions of the whole latent space.
        shares: the axes' shares of the variance, where it is a plane in a larger space.
    """

    f: Embedding
    points: Tensor
    names: tuple[str, ...]
    size: int
    shares: tuple[float, ...] = ()

    @classmethod
    def of(cls, f: Embedding, z: Tensor) -> Chart:
        """The chart of latent means (n, d), three or more.

        Raises:
            InputError: they are fewer.
        """
        if len(z) < 3:
            raise InputError(f"{len(z)} rows for a map", "three or more")
        size = z.shape[1]
        if size < 3:
            return cls(f, z, tuple(f"z{axis}" for axis in range(size)), size)
        plane = Principal.of(z.double().numpy(force=True))
        mean, axes = z.new_tensor(plane.mean), z.new_tensor(plane.axes)
        flat = replace(f, function=lambda w: f(linear(w, axes.mT, mean)), latent=2, width=0)
        return cls(flat, (z - mean) @ axes.mT, plane.names, size, tuple(plane.shares.tolist()))

    @property
    def sliced(self) -> bool:
        """Whether it is a plane in a larger space."""
        return bool(self.shares)

    def paths(self, pairs: np.ndarray) -> Geodesics | None:
        """Shortest paths within the chart between points at places (pairs, 2); None on a line, or for no pairs."""
        if self.size == 1 or not len(pairs):
            return None
        a, b = self.points[pairs[:, 0]], self.points[pairs[:, 1]]
        return geometry.geodesic(self.f, a, b, graph=Graph.build(self.f, self.points))

    def frame(self, found: Geodesics | None) -> np.ndarray:
        """Low and high ends of a square, or of an interval, that holds points and paths, (2, k)."""
        seen = self.points if found is None else torch.cat((self.points, found.path.flatten(0, 1)))
        low, high = (end.double().numpy(force=True) for end in (seen.amin(0), seen.amax(0)))
        half = (0.5 + _MARGIN) * max(float((high - low).max()), 1e-3)
        return np.stack((0.5 * (low + high) - half, 0.5 * (low + high) + half))

    def log_volume(self, frame: np.ndarray, side: int) -> np.ndarray:
        """log √det G at the middles of a grid's cells, (side,) or (side, side): the second axis upwards."""
        ticks = [low + (high - low) * (np.arange(side) + 0.5) / side for low, high in frame.T]
        at = np.stack([axis.ravel() for axis in np.meshgrid(*ticks)], 1)
        values: np.ndarray = geometry.log_volume(self.f, self.points.new_tensor(at)).numpy(force=True)
        return values.reshape((side,) * len(ticks))


def kinds(z: Tensor, labels: np.ndarray | None) -> np.ndarray:
    """Pairs of rows that are unlike each other, the furthest apart first: places (pairs, 2), `PAIRS` at most.

    They are rows in the middle of their class, or without classes 1.5 standard deviations from the mean in eight
    directions of the plane in which points z (n, d) vary most; each row stands in one pair.
    """
    points = z.double().numpy(force=True)
    classes = None if labels is None else np.unique(labels, return_inverse=True)
    if classes is not None and 2 <= len(classes[0]) <= _KINDS:
        groups = [np.flatnonzero(classes[1] == code) for code in range(len(classes[0]))]
        middles = [points[group].mean(0) for group in groups]
    else:
        angle = np.arange(8) * (np.pi / 4) if points.shape[1] > 1 else np.array([0, np.pi])
        mean, axes = Principal.of(points)[:2] if len(points) > 2 and len(points.T) > 1 else (points.mean(0), np.eye(1))
        reach = 1.5 * ((points - mean) @ axes.T).std(0)
        around = np.column_stack((np.cos(angle), np.sin(angle)))[:, : len(axes)] * reach
        middles, groups = list(mean + around @ axes), [np.arange(len(points))] * len(around)
    rows = [group[((points[group] - at) ** 2).sum(1).argmin()] for group, at in zip(groups, middles, strict=True)]
    rows = list(dict.fromkeys(int(row) for row in rows))
    apart = sorted(
        ((i, j) for place, i in enumerate(rows) for j in rows[place + 1 :]),
        key=lambda pair: -float(((points[pair[0]] - points[pair[1]]) ** 2).sum()),
    )
    found: list[tuple[int, int]] = []
    for i, j in apart:
        if len(found) < PAIRS and not {i, j} & {row for pair in found for row in pair}:
            found.append((i, j))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def along(f: Embedding, path: Tensor, count: int = TILES) -> tuple[Tensor, np.ndarray]:
    """Points at equal steps of length on a path (N + 1, d): latents (count, d), and their distances from its start."""
    times = np.linspace(0, 1, _FINE * (len(path) - 1) + 1)
    z, velocity = (part[0] for part in spline(path.unsqueeze(0), times))
    speed = geometry.speed(f, z, velocity).double()
    steps = 0.5 * (speed[1:] + speed[:-1]) / (len(times) - 1)
    found = by_length(z.unsqueeze(0), steps.unsqueeze(0), count - 1)[0]
    return found, np.linspace(0, float(steps.sum()), count)


def straight(a: Tensor, b: Tensor, segments: int = 32) -> Tensor:
    """Straight lines from a to b (n, d) as paths, (n, segments + 1, d)."""
    t = torch.linspace(0, 1, segments + 1, dtype=a.dtype, device=a.device)[:, None]
    return torch.lerp(a[:, None], b[:, None], t)


@final
class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations and the numbers that they make."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operations += 1
            self.numbers += sum(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out


@torch.no_grad()
def work(f: Embedding, latent: int) -> float:
    """What a point costs: multiplications of products and convolutions, and `_EACH` for every number made on the way.

    Infinite where there are more than `_OPERATIONS` operations, which take their time however small they are.
    """
    z = torch.zeros(1, latent) if f.like is None else f.like.new_zeros(1, latent)
    with FlopCounterMode(display=False) as products, _Counted() as counted:
        f(z)
    if counted.operations > _OPERATIONS:
        return math.inf
    cost: float = products.get_total_flops() / 2 + _EACH * counted.numbers
    return cost


def side_of(one: float) -> int:
    """How fine the grid under a map is where a point costs ``one``: a fixed rule."""
    return int(np.clip((_MAP / (3 * one)) ** 0.5, *_SIDES))


def pairs_of(one: float, latent: int) -> int:
    """How many geodesics a report holds where a point costs ``one``: a fixed rule; 0 where that is too much."""
    return min(_SCATTERED, int(_SECTION / (one * (1 + latent))))
