"""Figures of a run's numbers: terms over time, rate–distortion, KL per dimension, map of the latents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from vaelid.random import Key
from vaelid.report.curves import TERMS, Curves
from vaelid.report.style import (
    ACCENT,
    CLASSES,
    INK,
    MARK,
    QUIET,
    SIZE,
    WIDTH,
    Picture,
    canvas,
    legend,
    raster,
    short,
    tidy,
    vector,
)

_TIME = LinearSegmentedColormap.from_list("time", ["#d5dfec", ACCENT])
_POINTS = 400  # of a path
_MAP_POINTS = 5000
_LEAST = 0.1  # nats: no axis is stretched further than this
SHOWN_DIMENSIONS = 64


def terms(curves: Curves, *, mark_drops: bool) -> Picture:
    """Bound, reconstruction and rate over epochs, validation and train."""
    figure, axes = canvas(WIDTH, 3.3, columns=3)
    names = {"bound": "bound", "reconstruction": "reconstruction E log p(x|z)", "rate": "rate KL(q ‖ p)"}
    drops = curves.drops() if mark_drops else curves.epoch[:0]
    for axis, term in zip(axes[0], TERMS, strict=True):
        tidy(axis, "epoch", "nats per row", names[term])
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for number, epoch in enumerate(drops):
            axis.axvline(
                epoch, color=QUIET, linewidth=0.8, linestyle=":", label=None if number else "learning rate lowered"
            )
        axis.plot(curves.epoch, curves.train[term], color=QUIET, linewidth=1.4, label="train")
        axis.plot(curves.epoch, curves.validation[term], color=ACCENT, linewidth=1.6, label="validation")
        if curves.best >= 0:
            axis.plot(
                curves.epoch[curves.best],
                curves.validation[term][curves.best],
                "o",
                color=MARK,
                markersize=5,
                label="best epoch",
            )
        if (limits := _view(curves.train[term], curves.validation[term])) is not None:
            axis.set_ylim(*limits)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    shift = 1 if len(drops) else 0  # the mark of lowered rates comes last
    legend(
        figure,
        handles=handles[shift:] + handles[:shift],
        labels=labels[shift:] + labels[:shift],
        loc="outside lower center",
        ncols=4,
    )
    return vector(figure, "Lines over epochs: bound, reconstruction term and rate, on training and validation rows")


def plane(curves: Curves, rate: float, distortion: float) -> Picture:
    """The path of the validation rows in the rate–distortion plane, with lines of equal ELBO."""
    figure, axes = canvas(7.2, 4.6)
    axis = tidy(axes[0, 0], "rate KL(q ‖ p), nats per row", "distortion −E log p(x|z), nats per row")
    x, y = curves.validation["rate"], -curves.validation["reconstruction"]
    xlim, ylim = _view(np.append(x, rate)), _view(np.append(y, distortion))
    if xlim is not None and ylim is not None:
        _equal_elbo(axis, xlim, ylim)
    if len(x):
        axis.plot(x, y, color=_TIME(0.3), linewidth=1)
        chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).astype(int))
        axis.scatter(x[chosen], y[chosen], c=curves.epoch[chosen], cmap=_TIME, s=12, zorder=3)
        axis.scatter([], [], color=ACCENT, s=20, label="validation rows, from the first epoch (pale) to the last")
    axis.plot(rate, distortion, "D", color=MARK, markersize=7, zorder=4, label="test rows, trained model")
    legend(figure, loc="outside lower center", ncols=2)
    return vector(figure, "Path over epochs in the plane of rate and distortion, with lines of equal ELBO")


def _equal_elbo(axis: Any, xlim: tuple[float, float], ylim: tuple[float, float]) -> None:
    """Dashed lines rate + distortion = −ELBO, labelled at the right, or at the left if they end at the floor."""
    axis.grid(False)
    axis.set_xlim(*xlim)
    axis.set_ylim(*ylim)
    for level in MaxNLocator(8).tick_values(xlim[0] + ylim[0], xlim[1] + ylim[1]):
        axis.plot(xlim, [level - xlim[0], level - xlim[1]], "--", color=QUIET, linewidth=0.7)
        style = {"va": "center", "textcoords": "offset points", "fontsize": SIZE - 1, "color": INK}
        name = f"ELBO {-level:g}".replace("-", "−")
        if ylim[0] <= level - xlim[1] <= ylim[1]:
            axis.annotate(name, (xlim[1], level - xlim[1]), (4, 0), annotation_clip=False, **style)
        elif ylim[0] < level - xlim[0] <= ylim[1]:
            axis.annotate(
                name,
                (xlim[0], level - xlim[0]),
                (4, 0),
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                **style,
            )


def kl_bars(kl: np.ndarray, active: np.ndarray) -> Picture:
    """Mean KL of each latent dimension, sorted; inactive ones hatched."""
    order = np.argsort(np.where(np.isfinite(kl), -kl, np.inf), kind="stable")[:SHOWN_DIMENSIONS]
    count = len(order)
    figure, axes = canvas(min(WIDTH, 2.6 + 0.42 * count), 3.0)
    axis = tidy(axes[0, 0], "latent dimension, by KL", "KL(q ‖ p), nats per row")
    axis.grid(False, axis="x")
    for used, style, label in (
        (True, {"color": ACCENT}, "active"),
        (False, {"facecolor": "white", "edgecolor": QUIET, "hatch": "////"}, "inactive"),
    ):
        here = np.flatnonzero(active[order] == used)
        if len(here):
            axis.bar(here, kl[order][here], width=0.72, label=f"{label} ({int((active == used).sum())})", **style)
    if count <= 16:
        for position, value in enumerate(kl[order]):
            if math.isfinite(value):
                axis.annotate(
                    f"{value:.2f}" if value >= 0.01 else "<.01",
                    (position, value),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=SIZE - 1,
                    color=INK,
                )
    every = math.ceil(count / 32)
    axis.set_xticks(range(0, count, every), [f"{order[position]}" for position in range(0, count, every)])
    axis.set_xlim(-0.7, count - 0.3)
    largest = np.nanmax(kl, initial=0.0, where=np.isfinite(kl))
    axis.set_ylim(0, 1.12 * max(float(largest), _LEAST))
    legend(figure, loc="outside lower center", ncols=2)
    return vector(figure, "Bars: the KL of each latent dimension in nats, sorted, inactive dimensions hatched")


def latent_map(
    points: np.ndarray,
    names: tuple[str, ...],
    labels: np.ndarray | None,
    label_name: str,
    prior: tuple[float, float] | None,
    key: Key,
) -> Picture:
    """Points (rows, 2) coloured by label; one latent (rows, 1) against its label, or as a histogram without one.

    ``prior`` is where the circle of two prior standard deviations has its centre; None for none.
    """
    if points.shape[1] == 1 and labels is None:
        return _histogram(points[:, 0], names[0])
    groups, values = colours_of(np.zeros(len(points)) if labels is None else labels)
    figure, axes = canvas(7.2, 5.6 if points.shape[1] == 2 else 4.2)
    axis = tidy(axes[0, 0], *names) if len(names) == 2 else tidy(axes[0, 0], names[0], short(label_name))
    if points.shape[1] == 1:
        if groups is not None:
            height = np.zeros(len(points))
            for level, (_, rows) in enumerate(groups):
                height[rows] = level + 0.6 * (key.fold(level).uniform((len(rows),)).numpy() - 0.5)
            axis.set_yticks(range(len(groups)), [short(name, 16) for name, _ in groups])
        else:
            height = np.asarray(values)
        points = np.column_stack([points[:, 0], height])
    elif prior is not None:
        angle = np.linspace(0, 2 * math.pi, 200)
        axis.plot(prior[0] + 2 * np.cos(angle), prior[1] + 2 * np.sin(angle), "--", color=QUIET, linewidth=0.9)
        axis.set_aspect("equal", adjustable="datalim")
    shown = np.sort(key.permutation(len(points)).numpy()[:_MAP_POINTS])
    size = float(np.clip(6000 / max(1, len(shown)), 4, 22))
    if groups is not None:
        for number, (name, rows) in enumerate(groups):
            mine = np.intersect1d(rows, shown)
            colour = CLASSES[number] if len(groups) > 1 else ACCENT
            axis.scatter(*points[mine].T, s=size, color=colour, alpha=0.8, linewidths=0, label=short(name, 18))
        if len(groups) > 1 and len(names) == 2:
            legend(figure, loc="outside right upper", title=short(label_name, 18), title_fontsize=SIZE, markerscale=1.6)
    else:
        dots = axis.scatter(
            *points[shown].T, s=size, c=np.asarray(values)[shown], cmap="viridis", alpha=0.85, linewidths=0
        )
        bar = figure.colorbar(dots, ax=axis, aspect=30)
        bar.set_label(short(label_name), fontsize=SIZE, color=INK, parse_math=False)
        bar.ax.tick_params(labelsize=SIZE, colors=INK)
        bar.outline.set_visible(False)
    return raster(figure, f"Map of the latent means of test rows{'' if labels is None else ', coloured by label'}")


def _histogram(values: np.ndarray, name: str) -> Picture:
    figure, axes = canvas(7.2, 3.4)
    axis = tidy(axes[0, 0], name, "density")
    axis.hist(
        values, bins=min(60, max(10, len(values) // 20)), density=True, color=ACCENT, alpha=0.85, label="test rows"
    )
    z = np.linspace(min(-3.0, values.min()), max(3.0, values.max()), 200)
    axis.plot(z, np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi), color=MARK, linewidth=1.4, label="N(0, 1)")
    legend(figure, loc="outside right upper")
    return vector(figure, "Histogram of the latent means of test rows")


def colours_of(labels: np.ndarray) -> tuple[list[tuple[str, np.ndarray]] | None, np.ndarray | None]:
    """Labels as classes (name, rows), or as numbers where there are more than the legend holds."""
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) <= len(CLASSES):
        return [(_name(name), np.flatnonzero(codes == code)) for code, name in enumerate(names)], None
    if labels.dtype.kind in "biuf":
        return None, labels.astype(float)
    most = np.sort(np.argsort(-counts, kind="stable")[: len(CLASSES) - 1])
    groups = [(_name(names[code]), np.flatnonzero(codes == code)) for code in most]
    return [*groups, ("other", np.flatnonzero(~np.isin(codes, most)))], None


def _name(label: Any) -> str:
    return f"{label:g}" if isinstance(label, float | np.floating) else str(label)


def _view(*series: np.ndarray) -> tuple[float, float] | None:
    """Limits for an axis: all values, or those after the first tenth where the start would squash the rest."""
    whole = np.concatenate(series)
    later = np.concatenate([values[math.ceil(len(values) / 10) :] for values in series])
    whole, later = whole[np.isfinite(whole)], later[np.isfinite(later)]
    if not len(whole):
        return None
    low, high = float(whole.min()), float(whole.max())
    if len(later) and np.ptp(later) > 0 and high - low > 2 * np.ptp(later):
        low, high = float(later.min()), float(later.max())
    margin = max(0.06 * (high - low), (_LEAST - (high - low)) / 2)
    return low - margin, high + margin
