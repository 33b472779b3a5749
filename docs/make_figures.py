"""Make the README's picture from a run on the digits: ``python docs/make_figures.py [RUN]``.

RUN has two latents, as ``vaelid train digits --latent 2`` makes it; without RUN one is trained.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

import vaelid as vd
from vaelid.runs import Run

TARGET = Path(__file__).parent / "images" / "digits.png"
REACH = 3.0  # the plane is drawn from −REACH to REACH, in standard deviations of the prior


def main(path: Path) -> None:
    """Three panels: map of the latent means, the plane decoded, reconstructions of test images."""
    run = Run.open(path)
    data, model, test = run.dataset(), run.model(), run.split().test
    labels = np.asarray(data.labels)
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained")
    draw_map(axes[0], model.encode(data.x).numpy(), labels)
    draw_plane(axes[1], model)
    pairs = [test[np.flatnonzero(labels[test] == digit)[:5]] for digit in range(10)]
    draw_reconstructions(axes[2], model, data.x[np.concatenate(pairs)])
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, dpi=110, facecolor="white")
    print(f"{TARGET}: {TARGET.stat().st_size // 1000} kB")


def draw_map(axes: Axes, z: np.ndarray, labels: np.ndarray) -> None:
    """The latent means, coloured by digit."""
    colours = mpl.colormaps["tab10"]
    for digit in range(10):
        points = z[labels == digit]
        axes.scatter(*points.T, s=6, color=colours(digit), alpha=0.6, linewidths=0)
        box = {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": colours(digit), "alpha": 0.9}
        place = np.median(points, axis=0)
        axes.text(*place, str(digit), fontsize=12, weight="bold", ha="center", va="center", bbox=box)
    axes.set_title("posterior means of the digits, two latents", fontsize=10)
    edge = REACH * 14 / 13
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_color("0.8")


def draw_plane(axes: Axes, model: vd.VAE) -> None:
    """E[x|z] on a grid of the same plane."""
    steps = torch.linspace(-REACH, REACH, 13)
    down, right = torch.meshgrid(steps.flip(0), steps, indexing="ij")
    with torch.no_grad():
        images = model.decode(torch.stack((right, down), dim=-1)).mean
    axes.imshow(tiles(images.flatten(0, 1).numpy(), len(steps), gap=4), cmap="gray_r", vmin=0, vmax=16)
    axes.set_title("the same plane, decoded", fontsize=10)
    axes.axis("off")


def draw_reconstructions(axes: Axes, model: vd.VAE, x: np.ndarray) -> None:
    """Test images, each with its reconstruction to the right."""
    pairs = np.stack((x.astype(np.float32), model.reconstruct(x).numpy()), axis=1)
    axes.imshow(tiles(pairs.reshape(-1, *x.shape[1:]), 10, group=2), cmap="gray_r", vmin=0, vmax=16)
    axes.set_title("test images, each with its reconstruction", fontsize=10)
    axes.axis("off")


def tiles(images: np.ndarray, across: int, group: int = 0, gap: int = 6) -> np.ndarray:
    """Images (n, 1, height, width) as one picture, ``across`` to a line, with gaps between lines and groups."""
    zoom = 4
    images = images[:, 0].repeat(zoom, axis=1).repeat(zoom, axis=2)
    count, height, width = images.shape
    lines, gaps = count // across, (across - 1) // group if group else 0
    picture = np.zeros((lines * (height + gap) - gap, across * width + gaps * 2 * gap), np.float32)
    for index, image in enumerate(images):
        line, place = divmod(index, across)
        top, left = line * (height + gap), place * width + (place // group * 2 * gap if group else 0)
        picture[top : top + height, left : left + width] = image
    return picture


if __name__ == "__main__":
    mpl.use("Agg")
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            digits = vd.data.load("digits")
            vd.fit(vd.recipes.vae(digits, latent=2), digits, out=Path(folder) / "digits")
            main(Path(folder) / "digits")
