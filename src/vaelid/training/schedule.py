"""The learning rate as a function of the step, and the steps that a run plans with."""

from __future__ import annotations

import math

from vaelid.errors import InputError
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


def planned_steps(settings: Settings, steps_per_epoch: int | None, settled_at: int) -> int:
    """Steps of a whole run, at most; 0 where nobody knows.

    Args:
        settings: the schedule and the epochs asked for.
        steps_per_epoch: steps in an epoch; None where nobody knows.
        settled_at: the first step at which the objective no longer changes.

    Raises:
        InputError: the objective would not settle, or its warm-up or the schedule have to know the steps.
    """
    if steps_per_epoch is None:
        for what, asked in (("a cosine schedule", settings.schedule == "cosine"), ("a warm-up", settled_at > 0)):
            if asked:
                given = f"{what} with a DataLoader whose length nobody knows"
                raise InputError(given, "batches that can be counted", "give its data set a __len__, or do without")
        return 0
    planned = settings.epochs * steps_per_epoch
    if settled_at >= planned:
        raise InputError(
            f"a warm-up of {settled_at + 1} steps in a run of {planned}",
            "the objective to reach its end value before training ends",
            "train for more epochs or shorten the warm-up",
        )
    return planned
