"""Shortest paths between two points of the plane, beside straight lines, and what is decoded along both."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelid import geometry
from vaelid.geometry import Embedding, Graph
from vaelid.report.charts import TILES, along, straight
from vaelid.runs import SCORING
from vaelid.studio.planes import Plane
from vaelid.studio.subject import Subject

GRAPH = 1000  # rows that the graph is built over, at most
End = list[float] | int  # a point of the plane, or the number of a row


def graph_within(subject: Subject, plane: Plane, f: Embedding) -> Graph | None:
    """A graph over the places in the plane of `GRAPH` of the rows that are shown; None where they are few."""
    z = subject.latents.z
    some = z[np.sort(SCORING.fold("graph").permutation(len(z)).numpy()[:GRAPH])]
    points = np.unique(plane.feet(some)[:, : len(plane.axes)].astype(np.float32), axis=0)
    if len(points) < 3 or len(plane.axes) == 1:  # on a line there is one way
        return None
    return Graph.build(f, _tensor(subject, points))


def point_of(subject: Subject, plane: Plane, end: End) -> np.ndarray:
    """A point of the plane, or the foot of a row on it, (2,)."""
    if isinstance(end, int):
        foot: np.ndarray = plane.feet(subject.means(subject.places([end])))[0]
        return foot
    return np.array(end, dtype=np.float64)


def geodesic(subject: Subject, plane: Plane, f: Embedding, graph: Graph | None, a: End, b: End) -> dict[str, Any]:
    """The path that `vaelid.geometry.geodesic` finds within the plane; see `vaelid.studio.Desk.geodesic`."""
    size = len(plane.axes)
    start, stop = (_tensor(subject, point_of(subject, plane, end)[None, :size]) for end in (a, b))
    found = geometry.geodesic(f, start, stop, graph=graph)
    line = straight(start, stop)
    straight_length = float(geometry.length(f, line))
    strips, lengths = {}, {}
    for name, path in (("geodesic", found.path[0]), ("straight", line[0])):
        at, distances = along(f, path)
        z = _tensor(subject, plane.latent(_plane_points(at)))
        strips[name] = next(iter(subject.shown(subject.expected(z)).values()))
        lengths[name] = distances.tolist()
    return {
        "path": _plane_points(found.path[0]).astype(np.float32),
        "straight": _plane_points(line[0]).astype(np.float32),
        "length": float(found.length),
        "error": float(found.error),
        "chord": float(found.chord),
        "energy": float(found.energy),
        "straight_length": straight_length,
        "straight_energy": float(found.straight_energy),
        "converged": bool(found.converged),
        "status": found.reasons()[0],
        "strips": strips,
        "names": [] if subject.picture else subject.features,
        "lengths": lengths,
        "steps": TILES,
        "said": found.metric + (", within the slice" if plane.sliced else ""),
    }


def _plane_points(at: Tensor) -> np.ndarray:
    """Coordinates (n, 1 or 2) as points of the plane, (n, 2), float64."""
    points = at.double().numpy(force=True)
    return points if points.shape[1] == 2 else np.column_stack((points, np.zeros(len(points))))


def _tensor(subject: Subject, values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(subject.model.device, subject.model.dtype)
