"""The networks that every contestant trains, their data, and the settings that all share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BATCH = 128
RATE = 1e-3


@dataclass(frozen=True)
class Shape:
    """A VAE: the event, hidden widths (none for the convolutional one), latents, and steps in one timed epoch."""

    event: tuple[int, ...]
    hidden: tuple[int, ...]
    latent: int
    steps: int

    @property
    def convolutional(self) -> bool:
        return not self.hidden

    def rows(self) -> np.ndarray:
        """Binary rows, (steps · BATCH, *event), float32."""
        generator = np.random.default_rng(0)
        return (generator.random((self.steps * BATCH, *self.event)) < 0.3).astype(np.float32)


SHAPES = {
    "64-128-128-8": Shape((64,), (128, 128), 8, 400),
    "784-500-500-50": Shape((784,), (500, 500), 50, 200),
    "conv 28x28": Shape((1, 28, 28), (), 32, 12),
}
