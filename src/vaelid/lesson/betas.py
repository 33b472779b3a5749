"""Figure 4: rate against distortion, one companion for each β."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelid.diagnostics import evaluate
from vaelid.lesson.companion import Companion, companion
from vaelid.lesson.datum import KEY
from vaelid.model import evaluating
from vaelid.runs import SCORING, Run
from vaelid.serving import Progress

BETAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
SAMPLES = 100  # draws from q per row
SHOWN = 8  # rows whose reconstructions are shown, and draws from the prior

Show = Callable[[Tensor], dict[str, np.ndarray]]  # rows (n, *event) → as a browser takes them


def betas(run: Run, progress: Progress, show: Show, values: Sequence[float] = BETAS) -> dict[str, Any]:
    """Train a companion of the run for each β and say where it lies; each point is sent as soon as it is known.

    Args:
        run: the run.
        progress: is sent every epoch (see `companion`) and every point.
        show: rows as a browser takes them.
        values: the β.

    Raises:
        InputError, Cancelled: see `companion`.
    """
    points = []
    for beta in values:
        trained = companion(run, beta, progress)
        found = point(trained, show)
        progress.send({"point": found})
        points.append(found)
    sample = trained.sample
    index = sample.parts.test[:SHOWN]
    rows = len(sample.parts.test)
    said = (
        f"{len(values)} companions with two latents, one for each β, trained on {len(sample.parts.train):,} rows of "
        f"the same data; rate and distortion on {rows:,} rows held out, mean ± standard error"
    )
    originals = show(sample.batch(trained.model, index).x)
    return {"points": points, "originals": originals, "rows": sample.dataset.row_id[index].tolist(), "said": said}


def point(trained: Companion, show: Show) -> dict[str, Any]:
    """Where a companion lies: the numbers of `vaelid.evaluate` on its test rows, and pictures of what it makes."""
    model, sample = trained.model, trained.sample
    found = evaluate(model, sample.batch(model, sample.parts.test), samples=SAMPLES, key=SCORING.fold("evaluate"))
    with torch.no_grad(), evaluating(model):
        u = KEY.fold("prior").normal_rows(torch.arange(SHOWN), 1, 2, dtype=model.dtype).to(model.device)
        drawn = model.decode(model.prior_given().push(u)[0][0]).point
    again = model.reconstruct(sample.batch(model, sample.parts.test[:SHOWN]))
    return {
        "beta": trained.beta,
        "rate": found.rate.value,
        "rate_se": found.rate.se,
        "distortion": found.distortion.value,
        "distortion_se": found.distortion.se,
        "elbo": found.elbo.value,
        "elbo_se": found.elbo.se,
        "active": found.active_units,
        "seconds": trained.seconds,
        "reconstructions": show(again),
        "samples": show(drawn),
    }
