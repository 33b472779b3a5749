"""What is drawn under the points: the decoded datum at the pointer, a lattice of them, the metric's volume."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch

from vaelid import geometry
from vaelid.errors import InputError
from vaelid.geometry import Embedding
from vaelid.serving import Progress
from vaelid.studio.planes import Plane
from vaelid.studio.subject import Subject

_EACH = 256  # points of a map between two partial results


@final
class Pointer:
    """The decoder along a plane, for one point at a time and no time to lose."""

    def __init__(self, subject: Subject, plane: Plane) -> None:
        self.subject, self.plane = subject, plane
        origin, axes = plane.origin, plane.axes
        second = axes[1] if len(axes) == 2 else np.zeros_like(origin)
        self._rows = np.stack((axes[0], second)), origin[None]
        parts = (origin[None], axes[0][None], second[None])
        self._origin, self._x, self._y = (torch.from_numpy(part).to(subject.model.device, subject.model.dtype)
                                          for part in parts)  # fmt: skip

    def __call__(self, x: float, y: float) -> tuple[float, np.ndarray]:
        """How far off the data a point is, and E[x|z] there: bytes (h, w, c) of a picture, else float32 cells."""
        axes, origin = self._rows
        far = self.subject.latents.near.distance(origin + np.array([[x, y]]) @ axes)
        with torch.inference_mode():
            decoded = self.subject.model.decode(self._origin + x * self._x + y * self._y, self.subject.context).point
            if self.subject.picture:
                return float(far[0]), self.subject.pictures(decoded)[0]
            return float(far[0]), decoded.flatten().float().numpy(force=True)


def cell(subject: Subject, plane: Plane, x: float, y: float) -> dict[str, Any]:
    """E[x|z] at a point in the data's own units, z, and how far off the data it is."""
    z = plane.latent(np.array([[x, y]]))
    values = subject.expected(_tensor(subject, z))[0].flatten().float().numpy(force=True)
    names = [] if subject.picture else subject.features
    return {"values": values, "names": names, "far": float(subject.latents.near.distance(z)[0]), "z": z[0].tolist()}


def lattice(subject: Subject, plane: Plane, frame: list[float], across: int, down: int) -> dict[str, Any]:
    """E[x|z] at the middles of a frame's cells, the first row of cells at the frame's y0; and how far each is."""
    if not subject.picture:
        raise InputError("a lattice of rows of a table", "images")
    z = plane.latent(middles(frame, across, down))
    tiles = subject.pictures(subject.expected(_tensor(subject, z)))
    far = subject.latents.near.distance(z).reshape(down, across)
    return {"tiles": tiles.reshape(down, across, *tiles.shape[1:]), "far": far}


def volume(
    subject: Subject, plane: Plane, f: Embedding, frame: list[float], side: int, progress: Progress
) -> dict[str, Any]:
    """log √det G of the plane at the middles of a frame's cells, the first row at the frame's y0; one row on a line.

    Partial results hold the rows that are done: ``first``, the number of the first of them, and their ``values``.
    """
    line = len(plane.axes) == 1
    down = 1 if line else side
    points = middles(frame, side, down)[:, : len(plane.axes)]
    values, each = np.empty((down, side), np.float32), max(1, _EACH // side)
    for first in range(0, down, each):
        some = points[first * side : (first + each) * side]
        found = geometry.log_volume(f, torch.from_numpy(some).to(subject.model.device, subject.model.dtype))
        values[first : first + each] = found.float().numpy(force=True).reshape(-1, side)
        progress.send({"first": first, "values": values[first : first + each], "side": side})
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (2, 98)).tolist() if len(finite) else (float("nan"), float("nan"))
    of = " of the slice" * plane.sliced
    what = "√G" if line else "√det G"
    return {"values": values, "low": low, "high": high, "said": f"log {what}{of}: {f.name}"}


def middles(frame: list[float], across: int, down: int) -> np.ndarray:
    """Middles of the cells of a frame x0, y0, x1, y1, row by row from y0, (down · across, 2).

    Raises:
        InputError: the frame has no extent.
    """
    x0, y0, x1, y1 = frame
    if not (x0 < x1 and y0 < y1):
        raise InputError(f"the frame {frame}", "x0 < x1 and y0 < y1")
    x = x0 + (x1 - x0) * (np.arange(across) + 0.5) / across
    y = y0 + (y1 - y0) * (np.arange(down) + 0.5) / down
    return np.stack([part.ravel() for part in np.meshgrid(x, y)], 1)


def _tensor(subject: Subject, z: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(z).to(subject.model.device, subject.model.dtype)
