"""How figures look, and how they become part of a page. Matplotlib's objects only: no pyplot, no global state."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from vaelid.files import atomic

ACCENT = "#1f5fa8"
QUIET = "#9aa4b1"
MARK = "#c2541b"
INK = "#24292f"
GRID = "#e7eaee"
CLASSES = (
    "#1f77b4",
    "#e6842a",
    "#2f9e44",
    "#d43a3a",
    "#8758b8",
    "#8a5a44",
    "#e377c2",
    "#6f7681",
    "#b5b021",
    "#17becf",
    "#12355b",
    "#f2a9a0",
)

WIDTH = 9.2  # inches: what the page shows at its full width
SIZE = 9  # points
_DPI = 130
_LARGE = 600_000  # bytes of PNG from which a picture becomes a JPEG


class Picture(NamedTuple):
    """A figure as an ``<img>`` takes it: data URI, text in its place, width in CSS pixels."""

    src: str
    alt: str
    width: int


def canvas(
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    *,
    wspace: float = 0.02,
    compress: bool = False,
    **options: Any,
) -> tuple[Figure, np.ndarray]:
    """A figure with ``rows × columns`` axes, (rows, columns), that make room for their labels.

    ``compress`` is for axes whose shape is fixed.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.08, wspace=wspace, compress=compress)
    figure = Figure(figsize=(width, height), dpi=_DPI, layout=layout, facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def tidy(axes: Any, xlabel: str = "", ylabel: str = "", title: str = "") -> Any:
    """Light grid, two spines, legible labels."""
    axes.set_facecolor("white")
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=INK, labelsize=SIZE, length=3, color=QUIET)
    axes.set_xlabel(xlabel, fontsize=SIZE, color=INK, parse_math=False)
    axes.set_ylabel(ylabel, fontsize=SIZE, color=INK, parse_math=False)
    if title:
        axes.set_title(title, fontsize=SIZE + 1, color=INK, loc="left", parse_math=False)
    return axes


def bare(axes: Any) -> Any:
    """No frame and no ticks: for pictures."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=SIZE, colors=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def legend(owner: Any, **options: Any) -> Any:
    """A legend without a frame; names are text, never mathematics."""
    drawn = owner.legend(frameon=False, fontsize=SIZE, labelcolor=INK, **options)
    for text in drawn.get_texts():
        text.set_parse_math(False)
    return drawn


def short(name: str, length: int = 24) -> str:
    """The name, cut to ``length`` characters."""
    return name if len(name) <= length else name[: length - 1] + "…"


def vector(figure: Figure, alt: str) -> Picture:
    """The figure as SVG: for lines and bars."""
    return _picture(figure, alt, "svg", "image/svg+xml")


def raster(figure: Figure, alt: str) -> Picture:
    """The figure as PNG, or as JPEG where that would be large: for images and clouds of points."""
    picture = _picture(figure, alt, "png", "image/png")
    if len(picture.src) <= _LARGE:
        return picture
    return _picture(figure, alt, "jpeg", "image/jpeg", pil_kwargs={"quality": 85})


def save(figures: Sequence[Figure], path: Path) -> None:
    """Write figures to one PNG, each below the one before."""
    drawn = [Image.open(io.BytesIO(_drawn(figure, "png"))).convert("RGB") for figure in figures]
    whole = Image.new("RGB", (max(one.width for one in drawn), sum(one.height for one in drawn)), "white")
    top = 0
    for one in drawn:
        whole.paste(one, ((whole.width - one.width) // 2, top))
        top += one.height
    with atomic(path) as temporary:
        whole.save(temporary, format="PNG")


def _drawn(figure: Figure, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # names in scripts that the font lacks are drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()


def _picture(figure: Figure, alt: str, form: str, mime: str, **options: Any) -> Picture:
    text = base64.b64encode(_drawn(figure, form, **options)).decode("ascii")
    return Picture(f"data:{mime};base64,{text}", alt, round(100 * figure.get_size_inches()[0]))
