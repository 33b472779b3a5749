"""Figures of latent geometry: what is decoded along paths, the volume of the metric under the rows, lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from vaelid.geometry import Geodesics
from vaelid.random import Key
from vaelid.report.charts import Chart
from vaelid.report.figures import colours_of
from vaelid.report.style import ACCENT, CLASSES, INK, MARK, QUIET, SIZE, WIDTH, bare, canvas, legend, short, tidy
from vaelid.report.words import number

GEODESIC, STRAIGHT = "shortest path found", "straight line"
_ACROSS = 3  # panels in a row
_POINTS = 2000  # of a map
_VOLUME = LinearSegmentedColormap.from_list("volume", ["#fdfcfa", "#e0d6c6", "#b09c80"])


@final
@dataclass(frozen=True, eq=False)
class Strip:
    """What is decoded at equal steps of length on a path.

    Attributes:
        name: the path, for people.
        values: tiles (steps, height, width, 3), or features (steps, features).
        lengths: distances from the path's start, (steps,).
    """

    name: str
    values: np.ndarray
    lengths: np.ndarray


def strips(paths: Sequence[Strip]) -> Figure:
    """One row of tiles per path, with the distance from its start below each."""
    count, height, width, _ = paths[0].values.shape
    gap = max(1, width // 12)
    each = WIDTH / (count * (width + gap)) * height + 0.55
    figure, axes = canvas(WIDTH, len(paths) * each, rows=len(paths))
    for axis, path in zip(axes[:, 0], paths, strict=True):
        bare(axis)
        strip = np.ones((height, count * (width + gap) - gap, 3), np.float32)
        for place, tile in enumerate(path.values):
            strip[:, place * (width + gap) : place * (width + gap) + width] = tile
        axis.imshow(strip)
        middle = (width + gap) * np.arange(count) + width / 2 - 0.5
        axis.set_xticks(middle, [_distance(value, path.lengths[-1]) for value in path.lengths])
        axis.set_title(path.name, fontsize=SIZE + 1, color=INK, loc="left", parse_math=False)
    return figure


def features(paths: Sequence[Strip], names: Sequence[str], expected: str) -> Figure:
    """One panel per feature: its expected value against the distance from the start, on each path."""
    across = min(_ACROSS, len(names))
    down = math.ceil(len(names) / across)
    figure, axes = canvas(WIDTH if across > 1 else 5.0, 2.2 * down + 0.5, rows=down, columns=across, sharex=True)
    looks = ({"color": ACCENT, "linewidth": 1.8}, {"color": MARK, "linewidth": 1.4, "linestyle": "--"})
    for place, axis in enumerate(axes.flat):
        if place >= len(names):
            axis.set_visible(False)
            continue
        last = place + across >= len(names)
        left = place % across == 0
        tidy(axis, "distance from the start" if last else "", expected if left else "", short(names[place]))
        axis.tick_params(labelbottom=last)
        for path, look in zip(paths, looks, strict=True):
            axis.plot(path.lengths, path.values[:, place], label=path.name, **look)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend(figure, handles=handles, labels=labels, loc="outside lower center", ncols=2)
    return figure


def volume_map(
    chart: Chart, side: int, found: Geodesics | None, labels: np.ndarray | None, label_name: str, key: Key
) -> Figure:
    """log √det G as shades under the latent means, coloured by label, and paths beside straight lines.

    With one latent it is a line: log √G over z, with the latent means below.
    """
    frame = chart.frame(found)
    values = chart.log_volume(frame, side if chart.points.shape[1] > 1 else 8 * side)
    groups, numbers = colours_of(np.zeros(len(chart.points)) if labels is None else labels)
    points = chart.points.double().numpy(force=True)
    shown = np.sort(key.permutation(len(points)).numpy()[:_POINTS])
    if chart.points.shape[1] == 1:
        return _line(frame, values, points[shown, 0], chart.names[0])
    figure, axes = canvas(6.4, 5.4, compress=True)
    right, up = chart.names
    title = f"Slice of {chart.size} dimensions; paths are shortest within it" if chart.sliced else ""
    axis = tidy(axes[0, 0], right, up, title)
    axis.grid(False)
    low, high = _range(values)
    limits = frame.T.ravel()
    heat = axis.imshow(
        values, origin="lower", extent=tuple(limits), cmap=_VOLUME, vmin=low, vmax=high,
        interpolation="bilinear", aspect="equal",
    )  # fmt: skip
    _bar(figure, axis, heat, "log √det G" + " of the slice" * chart.sliced, 0.0)
    size = float(np.clip(6000 / max(1, len(shown)), 5, 22))
    look = {"s": size, "linewidths": 0.3, "edgecolors": "white"}
    if groups is None:
        dots = axis.scatter(*points[shown].T, c=np.asarray(numbers)[shown], cmap="viridis", **look)
        _bar(figure, axis, dots, short(label_name), 0.58)
    elif len(groups) > 1:
        for place, (name, rows) in enumerate(groups):
            mine = np.intersect1d(rows, shown)
            axis.scatter(*points[mine].T, color=CLASSES[place], label=short(name, 18), **look)
        where = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0, "alignment": "left"}
        heading = {"title": short(label_name, 18), "title_fontsize": SIZE, "markerscale": (30 / size) ** 0.5}
        axis.add_artist(legend(axis, **where, **heading))
    else:
        axis.scatter(*points[shown].T, color=ACCENT, **look)
    if drawn := _paths(axis, found):
        legend(axis, handles=drawn, loc="upper left", bbox_to_anchor=(-0.02, -0.11), borderaxespad=0, ncols=3)
    axis.set_xlim(*limits[:2])
    axis.set_ylim(*limits[2:])
    return figure


def _paths(axis: Any, found: Geodesics | None) -> list[Any]:
    """Paths, straight lines and their ends; what the legend shows of them."""
    if found is None:
        return []
    halo = [Stroke(linewidth=4, foreground="white"), Normal()]
    nodes, done = found.path.double().numpy(force=True), found.converged.numpy(force=True)
    drawn: dict[str, Any] = {}
    for path, good in zip(nodes, done, strict=True):
        ends = path[[0, -1]].T
        drawn[STRAIGHT] = axis.plot(*ends, "--", color=INK, linewidth=1.3, path_effects=halo, label=STRAIGHT)[0]
        name = GEODESIC if good else "path, not converged"
        colour = INK if good else MARK
        drawn[name] = axis.plot(*path.T, color=colour, linewidth=2.0, path_effects=halo, label=name)[0]
        axis.plot(*ends, "o", color=INK, markersize=6, markeredgecolor="white", zorder=5)
    return [drawn[name] for name in sorted(drawn, reverse=True)]


def _line(frame: np.ndarray, values: np.ndarray, points: np.ndarray, name: str) -> Figure:
    figure, axes = canvas(7.2, 3.6)
    axis = tidy(axes[0, 0], name, "log √G")
    step = (frame[1, 0] - frame[0, 0]) / len(values)
    axis.plot(frame[0, 0] + step * (np.arange(len(values)) + 0.5), values, color=ACCENT, linewidth=1.6)
    low, high = _range(values)
    margin = 0.08 * (high - low)
    axis.set_ylim(low - 2 * margin, high + margin)
    axis.plot(points, np.full(len(points), low - 1.4 * margin), "|", color=INK, markersize=9, alpha=0.35,
              label="latent means of rows")  # fmt: skip
    legend(figure, loc="outside lower center")
    return figure


def scatter(euclidean: np.ndarray, length: np.ndarray, converged: np.ndarray) -> Figure:
    """Lengths of paths against the Euclidean distance of their ends in latent space."""
    figure, axes = canvas(6.4, 4.2)
    axis = tidy(axes[0, 0], "Euclidean distance in latent space", "length of the shortest path found")
    axis.plot(euclidean[converged], length[converged], "o", color=ACCENT, markersize=4, label="converged")
    if not converged.all():
        axis.plot(euclidean[~converged], length[~converged], "o", markerfacecolor="white", markeredgecolor=MARK,
                  markersize=5, label="not converged")  # fmt: skip
        legend(figure, loc="outside lower center", ncols=2)
    axis.set_xlim(0, None)
    axis.set_ylim(0, None)
    return figure


def _range(values: np.ndarray) -> tuple[float, float]:
    """What the shades span: all but the outermost hundredths, which may be −∞."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = (float(end) for end in np.percentile(finite, (1, 99)))
    return low, max(high, low + 0.1)


def _bar(figure: Figure, axis: Any, drawn: Any, name: str, bottom: float) -> None:
    """A bar of colours beside the axes, from the height ``bottom`` on."""
    bar = figure.colorbar(drawn, cax=axis.inset_axes((1.03, bottom, 0.03, 0.42)))
    bar.set_label(name, fontsize=SIZE, color=INK, parse_math=False)
    bar.ax.tick_params(labelsize=SIZE, colors=INK, color=QUIET)
    bar.outline.set_visible(False)


def _distance(value: float, whole: float) -> str:
    return number(value, 0 if whole >= 100 else 1 if whole >= 10 else 2)
