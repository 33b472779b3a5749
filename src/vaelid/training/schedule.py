"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from vaelid.training.settings import Settings

END = 0.01  # where the cosine ends, as a share of the full rate


def learning_rate(settings: Settings, step: int, steps_per_epoch: int, scale: float = 1.0) -> float:
    """The rate of the step that comes after ``step`` others.

    With r the full rate, W the steps of warm-up and H the steps up to the horizon it is

        r · scale · min(1, (step + 1) / W) · c,  c = 1 (plateau), ε + (1 − ε) ½ (1 + cos(π min(1, step / H))) (cosine),

    ε = `END`, and the cosine stays at its end after the horizon (Loshchilov and Hutter 2017, equation 5).

    Args:
        settings: rate, warm-up, schedule and horizon (in epochs; by default those asked for).
        step: steps done so far.
        steps_per_epoch: steps in an epoch.
        scale: product of what plateaus and failures multiplied the rate by.
    """
    rate = settings.learning_rate * scale * min(1.0, (step + 1) / max(1, settings.warmup_steps))
    if settings.schedule == "cosine":
        share = min(1.0, step / ((settings.horizon or settings.epochs) * steps_per_epoch))
        rate *= END + (1 - END) * 0.5 * (1 + math.cos(math.pi * share))
    return rate
