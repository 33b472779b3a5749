"""Figures of what a model makes: reconstructions, samples and traversals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vaelid.report.style import (
    ACCENT,
    CLASSES,
    INK,
    QUIET,
    SIZE,
    WIDTH,
    Picture,
    bare,
    canvas,
    legend,
    raster,
    short,
    tidy,
    vector,
)

ACROSS = 6  # samples in a row
_LARGEST_SIDE = 256  # pixels of an image that a figure can show
_TALLEST = 14.0  # inches


def tiles(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Images (rows, channels, height, width) as colours, 0 to 1, (rows, height, width, 3); no value: light red."""
    stride = math.ceil(max(x.shape[2:]) / _LARGEST_SIDE)
    x = x[:, :3, ::stride, ::stride].astype(np.float32).transpose(0, 2, 3, 1)
    colours = np.clip((x - low) / max(high - low, 1e-12), 0, 1)
    colours = np.broadcast_to(colours, (*colours.shape[:3], 3))
    return np.where(np.isfinite(colours), colours, np.array([1.0, 0.85, 0.85], np.float32))


def reconstructions(groups: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> Picture:
    """Pairs of tiles, a test row and its reconstruction, per group (name, rows, reconstructions, ELBO per row)."""
    count = max(len(rows) for _, rows, _, _ in groups)
    height, width = groups[0][1].shape[1:3]
    gap = max(1, round(width / 3))
    each = WIDTH / (count * (2 * width + gap)) * height
    figure, axes = canvas(WIDTH, min(_TALLEST, len(groups) * (each + 0.3)), rows=len(groups))
    for axis, (name, rows, reconstructed, elbo) in zip(axes[:, 0], groups, strict=True):
        bare(axis)
        strip = np.ones((height, count * (2 * width + gap) - gap, 3), np.float32)
        for place, (row, again, bound) in enumerate(zip(rows, reconstructed, elbo, strict=True)):
            left = place * (2 * width + gap)
            strip[:, left : left + width] = row
            strip[:, left + width : left + 2 * width] = again
            axis.text(
                left + width - 0.5,
                -0.5 - 0.04 * height,
                f"{bound:.1f}".replace("-", "−"),
                ha="center",
                va="bottom",
                fontsize=SIZE - 1,
                color=INK,
            )
            axis.plot([left + width - 0.5] * 2, [-0.5, height - 0.5], color="white", linewidth=1)
        axis.imshow(strip)
        axis.set_ylabel(name, fontsize=SIZE + 1, color=INK)
    return raster(figure, "Test rows beside their reconstructions: those with the best, median and worst ELBO")


def samples(means: np.ndarray, draws: np.ndarray, names: Sequence[str] | None = None) -> Picture:
    """Two grids of tiles, E[x|z] and x ~ p(x|z), for the same z ~ p(z); ``names`` stand beside their rows."""
    gap = max(1, means.shape[2] // 12)
    grids = [_grid(picture, ACROSS, gap) for picture in (means, draws)]
    height = 0.47 * WIDTH * grids[0].shape[0] / grids[0].shape[1] + 0.3
    figure, axes = canvas(WIDTH, min(_TALLEST, height), columns=2, wspace=0.06)
    for axis, grid, title in zip(axes[0], grids, ("means E[x|z]", "draws x ~ p(x|z), same z"), strict=True):
        bare(axis).imshow(grid)
        axis.set_title(title, fontsize=SIZE + 1, color=INK, loc="left")
    if names is not None:
        middle = (means.shape[1] + gap) * np.arange(len(names)) + means.shape[1] / 2 - 0.5
        axes[0, 0].set_yticks(middle, [short(name, 12) for name in names])
    return raster(figure, "Two grids of new images from the prior: means of p(x|z), and draws from it")


def traversal_images(pictures: np.ndarray, values: np.ndarray, names: Sequence[str]) -> Picture:
    """One row of tiles per dimension, (dimensions, values, height, width, 3), one column per value of z_j."""
    count, across, height, width, _ = pictures.shape
    gap = max(1, width // 12)
    grid = _grid(pictures.reshape(-1, *pictures.shape[2:]), across, gap)
    tall = (WIDTH - 1.2) * grid.shape[0] / grid.shape[1] + 0.4
    figure, axes = canvas(WIDTH, min(_TALLEST, tall))
    axis = bare(axes[0, 0])
    axis.imshow(grid)
    axis.set_xticks(
        (width + gap) * np.arange(across) + width / 2 - 0.5, [f"{value:g}".replace("-", "−") for value in values]
    )
    axis.set_yticks((height + gap) * np.arange(count) + height / 2 - 0.5, names)
    axis.xaxis.tick_top()
    return raster(figure, "Decoded images while one latent dimension at a time goes through the prior's range")


def traversal_lines(curves: np.ndarray, values: np.ndarray, names: Sequence[str], features: Sequence[str]) -> Picture:
    """One panel per dimension, (dimensions, values, features): E[x|z] of some features against z_j."""
    across = min(4, len(names))
    down = math.ceil(len(names) / across)
    figure, axes = canvas(
        WIDTH if across > 2 else 3.2 * across + 0.8,
        2.3 * down + 0.5,
        rows=down,
        columns=across,
        sharey=True,
        sharex=True,
    )
    for place, axis in enumerate(axes.flat):
        if place >= len(names):
            axis.set_visible(False)
            continue
        tidy(
            axis,
            "z" if place + across >= len(names) else "",
            "sd from mean" if place % across == 0 else "",
            names[place],
        )
        axis.axhline(0, color=QUIET, linewidth=0.8)
        axis.tick_params(labelbottom=place + across >= len(names))
        for number, feature in enumerate(features):
            colour = ACCENT if len(features) == 1 else CLASSES[number]
            axis.plot(values, curves[place, :, number], color=colour, linewidth=1.5, label=short(feature))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend(figure, handles=handles, labels=labels, loc="outside lower center", ncols=3)
    return vector(figure, "Lines: the decoder's mean of some features while one latent dimension at a time changes")


def _grid(pictures: np.ndarray, columns: int, gap: int) -> np.ndarray:
    """Tiles (n, height, width, 3) row by row on white."""
    count, height, width, _ = pictures.shape
    rows = math.ceil(count / columns)
    grid = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), np.float32)
    for place, picture in enumerate(pictures):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        grid[top : top + height, left : left + width] = picture
    return grid
