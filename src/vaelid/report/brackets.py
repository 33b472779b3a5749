"""Figures of brackets on log p(x): side by side over rows, the way from the ELBO to log p(x), the widest rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from vaelid.report.style import (
    ACCENT,
    INK,
    MARK,
    QUIET,
    SIZE,
    WIDTH,
    Picture,
    bare,
    canvas,
    legend,
    raster,
    tidy,
    vector,
)
from vaelid.report.words import number

SHOWN = 400  # rows of a figure, at most
ACROSS = 6  # pairs of pictures in a row
_PALE = "#8fb3dc"
_TONES = {True: ACCENT, False: _PALE}  # of upper sides: bounds in expectation, or approximate
_STEPS = (ACCENT, "#5c93cf", _PALE, "#c3d7ee")  # of the way from the ELBO upwards
_ROOM = 0.04  # of a bar: what a number needs
OPEN = "between lower and upper side"
_LINEAR = 0.1  # nats: widths up to here are drawn to scale


@final
@dataclass(frozen=True, eq=False)
class Rows:
    """Brackets of single rows, (rows,) each; NaN where there is no finite value.

    Attributes:
        number: the rows' numbers in their source.
        lower: lower side, nats.
        upper: upper side.
        elbo: the ELBO.
        exact: whether the upper side is a bound in expectation.
        warned: whether there is a warning.
    """

    number: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    elbo: np.ndarray
    exact: np.ndarray
    warned: np.ndarray

    def take(self, index: np.ndarray) -> Rows:
        """The rows at ``index``."""
        columns = (self.number, self.lower, self.upper, self.elbo, self.exact, self.warned)
        return Rows(*(column[index] for column in columns))


class Part(NamedTuple):
    """A part of the way from the ELBO upwards: its name and its length in nats."""

    name: str
    nats: float


def intervals(rows: Rows) -> Picture:
    """Lower to upper side of each row, by lower side, with the ELBO; below how wide the bracket is."""
    order = np.argsort(rows.lower, kind="stable")
    order = order[np.isfinite(rows.lower[order])]
    if len(order) > SHOWN:
        order = order[np.linspace(0, len(order) - 1, SHOWN).round().astype(int)]
    figure, axes = canvas(WIDTH, 5.2, rows=2, sharex=True, height_ratios=(3, 2))
    _sides(axes[0, 0], rows.take(order))
    _widths(axes[1, 0], rows.take(order))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend(figure, handles=handles, labels=labels, loc="outside lower center", ncols=3)
    return vector(figure, "Vertical bars over rows: log p(x) between its lower and upper side, with the ELBO below")


def _sides(axis: Any, rows: Rows) -> None:
    tidy(axis, "", "log p(x), nats")
    x, closed = np.arange(len(rows.lower)), np.isfinite(rows.upper)
    axis.plot(x, rows.elbo, "o", color=QUIET, markersize=2.6, label="ELBO")
    low, high = np.fmin(rows.lower, rows.upper), np.fmax(rows.lower, rows.upper)
    for exact, name in ((True, "bound in expectation"), (False, "approximate")):
        here = (rows.exact == exact) & closed
        if here.any():
            axis.vlines(
                x[here],
                low[here],
                high[here],
                color=_TONES[exact],
                linewidth=2.2,
                label=f"lower to upper side, {name}",
            )
    axis.plot(x[closed], rows.lower[closed], "_", color=ACCENT, markersize=4, markeredgewidth=1.2)
    if not closed.all():
        axis.plot(x[~closed], rows.lower[~closed], "^", color=INK, markersize=4, label="lower side, no upper side")
    if rows.warned.any():
        axis.plot(x[rows.warned], rows.lower[rows.warned], "o", color=MARK, markersize=3.4, label="with a warning")
    bottom = np.nanpercentile(rows.elbo, 5) if np.isfinite(rows.elbo).any() else np.inf
    bottom, margin = min(bottom, low.min()), max(0.05 * (high.max() - low.min()), _LINEAR)
    axis.set_ylim(bottom - margin, high.max() + margin)


def _widths(axis: Any, rows: Rows) -> None:
    tidy(axis, "rows, by lower side", "upper − lower, nats")
    x, width = np.arange(len(rows.lower)), np.nan_to_num(rows.upper - rows.lower)
    axis.vlines(x, 0, width, color=[_TONES[bool(exact)] for exact in rows.exact], linewidth=1.6)
    axis.plot(x[rows.warned], width[rows.warned], "o", color=MARK, markersize=3)
    axis.set_yscale("symlog", linthresh=_LINEAR)
    axis.axhline(0, color=QUIET, linewidth=0.8)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axis.set_ylim(2 * min(width.min(), -_LINEAR / 2), 2 * max(width.max(), _LINEAR / 2))


def way_up(ways: Sequence[tuple[str, Sequence[Part]]]) -> Picture:
    """One bar per kind of rows: the parts of the way from the ELBO (0) to the upper side of log p(x)."""
    figure, axes = canvas(WIDTH, 1.5 + 0.7 * len(ways))
    axis = tidy(axes[0, 0], "nats above the ELBO, mean over rows")
    axis.grid(False, axis="y")
    whole = max(sum(part.nats for part in parts) for _, parts in ways)
    tones: dict[str, str] = {}
    for place, (_, parts) in enumerate(ways):
        left = 0.0
        for part in parts:
            label = None if part.name in tones else part.name
            known = len(tones) - (OPEN in tones)
            colour = tones.setdefault(part.name, MARK if part.name == OPEN else _STEPS[min(known, len(_STEPS) - 1)])
            axis.barh(place, part.nats, left=left, height=0.46, color=colour, label=label)
            if part.nats > _ROOM * whole or part.name == OPEN:
                name = number(part.nats, 2 if whole >= 1 else 3)
                beside = part.name == OPEN and part.nats < _ROOM * whole
                axis.annotate(
                    f"+ {name}" if beside else name,
                    (left + part.nats, place) if beside else (left + part.nats / 2, place - 0.23),
                    (5, 0) if beside else (0, 3),
                    textcoords="offset points",
                    ha="left" if beside else "center",
                    va="center" if beside else "bottom",
                    fontsize=SIZE,
                    color=MARK if beside else INK,
                )
            left += part.nats
    axis.set_yticks(range(len(ways)), [name for name, _ in ways])
    axis.set_xlim(0, 1.08 * whole)
    axis.set_ylim(len(ways) - 0.5, -0.62)
    legend(figure, loc="outside lower center", ncols=3)
    return vector(figure, "Bars: how many nats lie between the ELBO and the two sides of log p(x), and why")


def pairs(x: np.ndarray, again: np.ndarray, names: Sequence[tuple[str, str]]) -> Picture:
    """Rows beside their reconstructions as tiles (rows, height, width, 3), two lines of text above each pair."""
    down = -(-len(x) // ACROSS)
    height, width = x.shape[1:3]
    each = (WIDTH / ACROSS - 0.25) * height / (2 * width) + 0.55
    figure, axes = canvas(WIDTH, down * each, rows=down, columns=ACROSS)
    for place, axis in enumerate(axes.flat):
        bare(axis)
        if place < len(x):
            _pair(axis, x[place], again[place], names[place])
        else:
            axis.set_visible(False)
    return raster(figure, "The rows whose brackets are widest, each beside its reconstruction")


def _pair(axis: Any, x: np.ndarray, again: np.ndarray, name: tuple[str, str]) -> None:
    axis.imshow(np.concatenate((x, again), 1))
    axis.axvline(x.shape[1] - 0.5, color="white", linewidth=1)
    axis.set_title("\n".join(name), fontsize=SIZE - 1, color=INK, parse_math=False)
