"""What q(z|x) says of the rows that are shown: means, KL, and how far a point is from all of them."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor, nn

from vaelid.data.rows import Rows
from vaelid.diagnostics import ACTIVE
from vaelid.fitted import PerDatum
from vaelid.model import VAE, Problem, evaluating
from vaelid.random import Key
from vaelid.runs import SCORING
from vaelid.transports import has_kl, kl_cells
from vaelid.types import Batch

SHOWN = 100_000  # rows, at most
_WORK = 7e10  # multiplications that encoding all of them may take, and
_FEWEST = 2_000  # rows that are shown whatever they take,
_FITTED = 200  # or where q is fitted to each
DRAWS = 16  # from q per row, where its KL has no closed form
_PASS = 4096
_QUERIES = 2_000  # rows whose distances to the nearest other say what is far
_TREE = 8  # latents up to which a tree is the faster way to the nearest row
_KEY = Key(0).fold("studio")


def limit(model: VAE, rows: Rows) -> int:
    """How many rows are shown, at most: a fixed rule from what one row takes to encode."""
    if isinstance(model.posterior, PerDatum):
        return _FITTED
    work = 0

    def count(module: nn.Module, given: Any, out: Any) -> None:
        nonlocal work
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1 and isinstance(out, Tensor):
            work += weight.numel() * out.numel() // out.shape[1]  # a product, or one per place of a convolution

    hooks = [module.register_forward_hook(count) for module in model.posterior.modules()]
    try:
        with torch.no_grad(), evaluating(model):
            model.given(fixed(model, rows, np.arange(1)))
    finally:
        for hook in hooks:
            hook.remove()
    return int(np.clip(_WORK / max(1, work), _FEWEST, SHOWN))


def fixed(model: VAE, rows: Rows, places: np.ndarray) -> Batch:
    """Rows at places, grey levels binarised once, as `vaelid.runs.batch_of` gives them."""
    index = torch.from_numpy(np.asarray(places, dtype=np.int64)).to(rows.batch.x.device)
    return rows.fixed(SCORING.fold("binarise"), model.dtype, index)


def stratified(labels: np.ndarray | None, rows: int, most: int) -> np.ndarray:
    """Places of ``most`` of some rows at most, sorted: of each label as many as its share, always the same ones."""
    if rows <= most:
        return np.arange(rows)
    order = _KEY.fold("sample").permutation(rows).numpy()
    if labels is not None:
        order = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    picked: np.ndarray = np.sort(order[((np.arange(most) + 0.5) * rows / most).astype(np.int64)])
    return picked


@final
@dataclass(frozen=True, eq=False)
class Latents:
    """Rows that are shown, and q of each.

    Attributes:
        index: their places in the data, (n,), sorted.
        z: latent means T(0), (n, d), float64.
        kl: KL(q ‖ p) of each row, (n,), nats: closed form, or else the mean of log q − log p over `DRAWS` draws.
        cells: mean over rows of the KL per dimension and its standard error, (2, d); None without a closed form.
    """

    index: np.ndarray
    z: np.ndarray
    kl: np.ndarray
    cells: np.ndarray | None

    @classmethod
    def none(cls, model: VAE) -> Self:
        """Those of no rows."""
        return cls(np.arange(0), np.empty((0, model.prior.latent)), np.empty(0), None)

    @classmethod
    def of(cls, model: VAE, rows: Rows, index: np.ndarray) -> Self:
        """Those of rows at places; a row whose mean is not finite is left out."""
        means, totals, sums = [], [], []
        for first in range(0, len(index), _PASS):
            batch = fixed(model, rows, index[first : first + _PASS])
            with torch.no_grad(), evaluating(model):
                problem = model.given(batch)
                means.append(problem.centre.double().cpu())
                total, cells = divergence(problem)
            totals.append(total.cpu())
            if cells is not None:
                sums.append(torch.stack((cells.sum(0), cells.square().sum(0))).cpu())
        z, kl = torch.cat(means).numpy(), torch.cat(totals).numpy()
        finite = np.isfinite(z).all(1)
        found = None
        if sums:
            first_moment, second = torch.stack(sums).sum(0).numpy() / len(index)
            spread = np.sqrt(np.clip(second - first_moment**2, 0, None) / max(1, len(index) - 1))
            found = np.stack((first_moment, spread))
        return cls(index[finite], z[finite], kl[finite], found)

    @property
    def size(self) -> int:
        """d."""
        return int(self.z.shape[1])

    @functools.cached_property
    def mean(self) -> np.ndarray:
        """Mean of the latent means, (d,); 0 without rows."""
        found: np.ndarray = self.z.mean(0) if len(self.z) else np.zeros(self.size)
        return found

    def centre(self, model: VAE) -> Tensor:
        """The same as a tensor of the model's."""
        return torch.from_numpy(self.mean).to(model.device, model.dtype)

    @property
    def active(self) -> np.ndarray:
        """Which dimensions are active, (d,): the variance of their means over rows is above `ACTIVE`."""
        found: np.ndarray = self.z.var(0) > ACTIVE if len(self.z) else np.ones(self.size, bool)
        return found

    @functools.cached_property
    def near(self) -> Near:
        """Distances from the rows."""
        return Near.of(self.z)


def divergence(problem: Problem) -> tuple[Tensor, Tensor | None]:
    """KL(q ‖ p) of every row, (n,), float64, and per dimension, (n, d), where there is a closed form."""
    q: Any = problem.start
    p: Any = problem.prior
    if has_kl(q, p):
        cells = kl_cells(q, p).double().expand(problem.batch.rows, -1)
        return cells.sum(1), cells
    z, log_q = q.push(problem.noise(_KEY.fold("kl"), DRAWS))
    return (log_q.double() - p.log_prob(z).double()).mean(0), None


@final
@dataclass(frozen=True, eq=False)
class Near:
    """The nearest of some points (n, d), and what is far from them.

    Attributes:
        z: the points.
        tree: finds them; None in many dimensions, where it would be the slower way.
        flat: the points in float32, and
        squares: half of their squared norms, where there is no tree.
        far: 99th percentile of the distance from a point to the nearest other; NaN for fewer than two points.
    """

    z: np.ndarray
    tree: KDTree | None
    flat: np.ndarray
    squares: np.ndarray
    far: float

    @classmethod
    def of(cls, z: np.ndarray) -> Self:
        """Prepare points."""
        tree = KDTree(z) if z.shape[1] <= _TREE and len(z) else None
        flat = (z - (z.mean(0) if len(z) else 0.0)).astype(np.float32)
        found = cls(z, tree, flat, 0.5 * np.square(flat).sum(1), math.nan)
        if len(z) < 2:
            return found
        some = z[np.sort(_KEY.fold("far").permutation(len(z)).numpy()[:_QUERIES])]
        apart = found.neighbours(some, 2)[0][:, 1]
        far = float(np.percentile(apart, 99)) or float(apart.max()) or 1e-12
        return cls(z, tree, found.flat, found.squares, far)

    def distance(self, z: np.ndarray) -> np.ndarray:
        """Distance from points (m, d) to the nearest row over `far`, (m,), float32; NaN without rows."""
        if not math.isfinite(self.far):
            return np.full(len(z), np.nan, np.float32)
        if self.tree is not None:
            return np.asarray(self.tree.query(z)[0] / self.far, np.float32)
        shifted = (z - self._mean).astype(np.float32)
        lowest = np.concatenate([self._heights(some).min(1) for some in self._split(shifted)])
        squared = 2 * lowest + np.square(shifted).sum(1)
        return np.asarray(np.sqrt(np.clip(squared, 0, None)) / self.far, np.float32)

    def neighbours(self, z: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances to the ``count`` nearest rows and their places among the rows shown, (m, count) each."""
        count = min(count, len(self.z))
        if self.tree is not None:
            distances, places = self.tree.query(z, k=np.arange(1, count + 1))
            return distances, places
        shifted = (z - self._mean).astype(np.float32)
        found = []
        for some in self._split(shifted):
            heights = self._heights(some)
            nearest = np.argpartition(heights, count - 1, axis=1)[:, :count]
            order = np.take_along_axis(heights, nearest, 1).argsort(1)
            found.append(np.take_along_axis(nearest, order, 1))
        places = np.concatenate(found)
        return np.linalg.norm(self.z[places] - z[:, None], axis=2), places

    @functools.cached_property
    def _mean(self) -> np.ndarray:
        found: np.ndarray = self.z.mean(0)
        return found

    def _split(self, z: np.ndarray) -> list[np.ndarray]:
        return np.array_split(z, math.ceil(len(z) / 64))

    def _heights(self, z: np.ndarray) -> np.ndarray:
        """Half of the squared distances, less half of z's own square, (m, n)."""
        found: np.ndarray = self.squares - z @ self.flat.T
        return found
