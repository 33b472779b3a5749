"""Planes in latent space: where a point of the screen is, and where a latent is on the screen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from vaelid.errors import InputError
from vaelid.geometry import Embedding
from vaelid.report.charts import Principal
from vaelid.studio.latents import Latents

Kind = Literal["dims", "pca"]
OFFERED = 6  # dimensions whose pairs are offered
_MARGIN = 0.08
_PRIOR = 3.5  # half of a frame around no points


@final
@dataclass(frozen=True, eq=False)
class Plane:
    """All of a latent space of one or two dimensions, or a plane in a larger one: z = origin + x axis₀ + y axis₁.

    Attributes:
        kind: two dimensions of z, or the two axes along which latent means vary most.
        i, j: the dimensions.
        origin: z at (0, 0), (d,).
        axes: unit vectors, (2, d), or (1, d) of a line, where y is not used.
        names: of the axes.
        share: their shares of the variance of the latent means; None but for principal components.
    """

    kind: Kind
    i: int
    j: int
    origin: np.ndarray
    axes: np.ndarray
    names: tuple[str, str]
    share: tuple[float, float] | None = None

    @classmethod
    def of(cls, latents: Latents, kind: Kind, i: int = 0, j: int = 1) -> Self:
        """The plane of that kind.

        Raises:
            InputError: there are no such dimensions, or principal components of fewer than three dimensions or rows.
        """
        size = latents.size
        if kind == "pca":
            if size < 3 or len(latents.z) < 3:
                given = f"a plane of principal components of {size} dimensions and {len(latents.z)} rows"
                raise InputError(given, "three or more of both", "choose two dimensions")
            found = Principal.of(latents.z)
            first, second = found.shares.tolist()
            names = f"principal component 1 ({first:.0%} of variance)", f"principal component 2 ({second:.0%})"
            return cls("pca", 0, 1, latents.mean, found.axes, names, (first, second))
        if size == 1:
            i = j = 0
        if not (0 <= i < size and 0 <= j < size) or (i == j and size > 1):
            raise InputError(f"the plane of dimensions {i} and {j}", f"two different ones from 0 to {size - 1}")
        origin, unit = latents.mean.copy(), np.eye(size)
        origin[[i, j]] = 0
        axes = unit[[i]] if size == 1 else unit[[i, j]]
        return cls("dims", i, j, origin, axes, (f"z{i}", "" if size == 1 else f"z{j}"))

    @property
    def size(self) -> int:
        """Dimensions of the whole space."""
        return len(self.origin)

    @property
    def sliced(self) -> bool:
        """Whether it is a plane in a larger space."""
        return self.size > 2

    @property
    def name(self) -> str:
        """The plane in a few words."""
        if self.size == 1:
            return "the line of z0"
        return "the plane of largest variance" if self.kind == "pca" else f"z{self.i} and z{self.j}"

    @property
    def said(self) -> str:
        """What a slice leaves out; empty where nothing is."""
        if not self.sliced:
            return ""
        begin = f"A slice of {self.size} dimensions: "
        if self.share is not None:
            share = f"{sum(self.share):.0%} of their variance"
            return begin + f"the plane in which latent means vary most ({share}), through their mean."
        rest = self.size - 2
        others = f"the other {rest} are" if rest > 1 else "the other one is"
        return begin + f"z{self.i} and z{self.j}; {others} held at the mean of the latent means."

    def latent(self, points: np.ndarray) -> np.ndarray:
        """z of points (n, 2), (n, d), float64."""
        found: np.ndarray = self.origin + points[:, : len(self.axes)] @ self.axes
        return found

    def feet(self, z: np.ndarray) -> np.ndarray:
        """Where latents (n, d) are, (n, 2): their feet on a slice; y = 0 on a line."""
        at = (z - self.origin) @ self.axes.T
        return at if len(self.axes) == 2 else np.column_stack((at, np.zeros(len(at))))

    def frame(self, points: np.ndarray) -> list[float]:
        """Ends x0, y0, x1, y1 of what shows all points (n, 2), or the prior where there are none."""
        if not len(points):
            low, high = np.full(2, -_PRIOR), np.full(2, _PRIOR)
        else:
            low, high = points.min(0), points.max(0)
            half = np.maximum((0.5 + _MARGIN) * (high - low), 1e-3)
            low, high = 0.5 * (low + high) - half, 0.5 * (low + high) + half
        if len(self.axes) == 1:
            low[1], high[1] = -1.0, 1.0
        return [float(value) for value in (*low, *high)]

    def within(self, f: Embedding, like: Tensor) -> Embedding:
        """An embedding of latent space as a function of plane coordinates (n, 2), or (n, 1) on a line."""
        origin, axes = (torch.from_numpy(part).to(like) for part in (self.origin, self.axes))
        inner = replace(f, function=lambda w: f(linear(w, axes.mT, origin)), latent=len(self.axes), width=0)
        return inner.looked_at(torch.zeros(2, len(self.axes)).to(like))

    def about(self) -> dict[str, object]:
        """The plane as it is offered."""
        return {
            "kind": self.kind,
            "i": self.i,
            "j": self.j,
            "name": self.name,
            "axes": list(self.names),
            "share": None if self.share is None else list(self.share),
            "slice": self.sliced,
        }


def offered(latents: Latents) -> list[Plane]:
    """Planes to choose from, the one to begin with first: pairs of the dimensions that are used most."""
    size = latents.size
    if size < 3:
        return [Plane.of(latents, "dims")]
    use = np.nan_to_num(latents.z.var(0)) if latents.cells is None else latents.cells[0]
    most = np.sort(np.argsort(-use, kind="stable")[:OFFERED])
    pairs = [Plane.of(latents, "dims", int(i), int(j)) for i in most for j in most if i < j]
    return ([Plane.of(latents, "pca")] if len(latents.z) > 2 else []) + pairs
