"""The section on the geometry of the latent space, and what it shares with the commands that draw it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

from vaelid import geometry
from vaelid.errors import command, first_line
from vaelid.geometry import Embedding, Geodesics, Graph
from vaelid.random import Key
from vaelid.report import answers, manifolds
from vaelid.report.charts import TILES, Chart, along, kinds, pairs_of, side_of, straight, work
from vaelid.report.manifolds import Strip
from vaelid.report.material import Look, Material, Section, Shown, Table
from vaelid.report.style import raster, short, vector
from vaelid.report.words import number

TITLE = "Geometry of the latent space"
_KEY = Key(0).fold("report", "geometry")
_ROWS = 1000  # whose latent means are looked at, at most
_STRIPS = 2  # pairs
_FEATURES = 6
_FINE = 41  # steps along a path where features are drawn as lines
_FEWEST = 5  # pairs of a scatter


def latent_geometry(material: Material) -> Section:
    """Map of the metric's volume, what is decoded along shortest paths, their lengths."""
    try:
        return _section(material)
    except Exception as error:  # the report is there without it
        return Section(TITLE, [f"No geometry of this model: {first_line(error)}"])


class Pair(NamedTuple):
    """A path (N + 1, d) between two rows, and what it is called."""

    path: Tensor
    name: str


def compared(
    look: Look, f: Embedding, pairs: Sequence[Pair], lengths: np.ndarray, context: Tensor | None
) -> tuple[Figure, str]:
    """What is decoded along paths and along the straight lines between their ends, at equal steps of length.

    Of images tiles of every pair, else the features that change most of the first; and what the picture shows.
    ``lengths`` (pairs, 2) are those of path and straight line.
    """
    names = manifolds.GEODESIC, manifolds.STRAIGHT
    image, found = look.dataset.kind == "image", []
    for pair, sizes in zip(pairs, lengths, strict=True):
        lines = pair.path, straight(pair.path[:1], pair.path[-1:])[0]
        for name, line, size in zip(names, lines, sizes, strict=True):
            z, at = along(f, line, TILES if image else _FINE)
            values = answers.expected(look.model, z, context)
            found.append(
                Strip(f"{pair.name}{name}, length {number(size)}", look.colours(values) if image else values, at)
            )
    if image:
        return manifolds.strips(found), (
            f"{look.expected} at equal steps of length between the latent means of two rows; below the tiles, the "
            "distance from the start."
        )
    first = [Strip(strip.name, strip.values.reshape(_FINE, -1), strip.lengths) for strip in found[:2]]
    _, spread = look.spread()
    moved = np.ptp(np.concatenate([strip.values for strip in first]), axis=0) / np.where(spread > 0, spread, 1.0)
    most = np.argsort(-np.nan_to_num(moved, nan=-1.0), kind="stable")[:_FEATURES]
    drawn = [Strip(strip.name, strip.values[:, most], strip.lengths) for strip in first]
    said = (
        f"The features that change most between the latent means of two rows: {look.expected} in the data's own units."
    )
    return manifolds.features(drawn, [look.features[cell] for cell in most], look.expected), said


def map_of(chart: Chart, found: Geodesics | None, labels: np.ndarray | None, name: str) -> Figure:
    """The map of the metric's volume on a chart, with paths; points are coloured by labels of that name."""
    side = side_of(work(chart.f, len(chart.names)))
    return manifolds.volume_map(chart, side, found, labels, name, _KEY.fold("map"))


def _section(material: Material) -> Section:
    usable = np.flatnonzero(np.isfinite(material.centre).all(1))[:_ROWS]
    if len(usable) < 3:
        return Section(TITLE, [f"{len(usable)} test rows are too few."])
    model, look = material.model, material.look
    z = material.evaluation.per_row.centre[torch.from_numpy(usable)].to(model.device, model.dtype)
    labels = material.dataset.labels
    labels = None if labels is None else np.asarray(labels)[material.index[usable]]
    context = look.typical()
    f = geometry.embedding(model, context)
    notes = [about(f.name) + (f" The decoder is looked at given {look.held}." if look.held else "")]
    count = pairs_of(work(f, z.shape[1]), z.shape[1])
    if not count:
        further = command("map", material.run.path)
        return Section(
            TITLE, [f"Paths through a decoder as large as this one take too long for a report. See: {further}"]
        )
    unlike, name = kinds(z, labels), material.dataset.label_name or "label"
    chart = Chart.of(f, z)
    found = chart.paths(unlike)
    figure = map_of(chart, found, labels, name)
    alt = "Map of the volume of the metric under the latent means of test rows, with shortest paths and straight lines"
    shown = [Shown(raster(figure, alt), said_of(chart, found))]
    random = _random(len(z), count)
    unlike = unlike[: min(_STRIPS, count)] if len(unlike) else random[:1]
    ends = np.concatenate((unlike, random))
    a, b = z[ends[:, 0]], z[ends[:, 1]]
    paths = geometry.geodesic(f, a, b, graph=Graph.build(f, z))
    lines = geometry.length(f, straight(a, b)).numpy(force=True)
    lengths = np.stack((paths.length.numpy(force=True), lines), 1)
    ids = material.dataset.row_id[material.index[usable]]
    pairs = [Pair(path, _ends(ids, labels, name, pair)) for path, pair in zip(paths.path, unlike, strict=False)]
    figure, said = compared(look, f, pairs, lengths[: len(pairs)], context)
    alt = "What is decoded at equal steps of length along shortest paths and along straight lines"
    picture = raster(figure, alt) if material.dataset.kind == "image" else vector(figure, alt)
    shown.append(Shown(picture, said))
    sample = slice(len(unlike), None)
    converged = paths.converged.numpy(force=True)[sample]
    apart = (a - b).norm(dim=1).double().numpy(force=True)[sample]
    if len(random) >= _FEWEST:
        good = np.isfinite(lengths[sample, 0])
        x, y = apart[good], lengths[sample, 0][good]
        rank = float(spearmanr(x, y).statistic) if min(len(np.unique(x)), len(np.unique(y))) > 1 else float("nan")
        said = f"Each point one of {len(random)} pairs of test rows, chosen at random; rank correlation {number(rank)}."
        figure = manifolds.scatter(x, y, converged[good])
        shown.append(Shown(vector(figure, "Lengths of shortest paths against Euclidean distances"), said))
    values = [paths.chord.numpy(force=True)[sample], *lengths[sample].T, paths.error.numpy(force=True)[sample]]
    return Section(TITLE, notes, shown, [_table(values, converged)])


def about(metric: str) -> str:
    """What lengths mean."""
    means = " They say by how many standard deviations of x what is decoded changes on the way."
    return f"Lengths are those of the {metric}.{means * metric.startswith('Fisher–Rao')}"


def said_of(chart: Chart, found: Geodesics | None) -> str:
    """The line under a map."""
    if chart.points.shape[1] == 1:
        return "log √G: how fast what is decoded changes with z, in logarithms; below, the latent means of test rows."
    what = "Each point a test row"
    if chart.sliced:
        what += f", at its foot on the plane in which latent means vary most: a slice of {chart.size} dimensions"
    paths = ""
    if found is not None:
        within = " within that plane" * chart.sliced
        done = int(found.converged.sum())
        paths = f" Lines: shortest paths found{within} between unlike rows, {done} of {len(found.path)} converged."
    return f"{what}. Dark: a step there changes much of what is decoded.{paths}"


def _random(rows: int, count: int) -> np.ndarray:
    """Different pairs of rows, (pairs, 2): ``count``, or as many as there are."""
    order = _KEY.fold("pairs").permutation(rows).numpy()
    turn = np.arange(min(count, rows * (rows - 1) // 2))
    return np.stack((order[turn % rows], order[(turn + 1 + turn // rows) % rows]), 1)


def _ends(ids: np.ndarray, labels: np.ndarray | None, name: str, pair: np.ndarray) -> str:
    """The two ends of a path in words."""
    ends = [f"row {ids[row]}" + ("" if labels is None else f" ({short(name, 12)} {labels[row]})") for row in pair]
    return f"{' to '.join(ends)}: "


def _table(values: Sequence[np.ndarray], converged: np.ndarray) -> Table:
    names = (
        "chord, below which no path is",
        "length of the path found",
        "length of the straight line",
        "error of the length",
    )
    rows = [["pairs", f"{len(converged):,}"], ["converged", f"{int(converged.sum()):,}"]]
    for what, found in zip(names, values, strict=True):
        rows.append([f"median {what}", _four(float(np.nanmedian(found)))])
    return Table("Paths between pairs of test rows, chosen at random", ["what", "value"], rows)


def _four(value: float) -> str:
    return f"{value:#.4g}".rstrip(".").replace("-", "−")
