"""Latent dimensions one by one, and new data from the prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vaelid.errors import InputError
from vaelid.model import evaluating
from vaelid.random import Key
from vaelid.studio.planes import Plane
from vaelid.studio.subject import Subject

REACH = 2.5  # standard deviations of the prior that a traversal goes to either side


def dimensions(subject: Subject) -> dict[str, Any]:
    """How much each dimension is used by the rows that are shown; KL is None where it has no closed form."""
    latents = subject.latents
    kl, kl_se = (None, None) if latents.cells is None else (part.tolist() for part in latents.cells)
    sd = latents.z.std(0) if len(latents.z) else np.full(latents.size, np.nan)
    return {"kl": kl, "kl_se": kl_se, "active": latents.active.tolist(), "sd_of_mean": sd.tolist()}


def traversal(subject: Subject, dim: int, row: int | None, steps: int) -> dict[str, Any]:
    """E[x|z] while one dimension goes through `REACH` standard deviations of the prior, the others at a row's means.

    Without a row they are at the mean of the latent means.
    """
    model, latents = subject.model, subject.latents
    if not 0 <= dim < latents.size:
        raise InputError(f"dimension {dim}", f"one from 0 to {latents.size - 1}")
    context, base = subject.context, latents.mean
    if row is not None:
        places = subject.places([row])
        base, context = subject.means(places)[0], subject.batch(places).context
    u = torch.zeros(steps, 1, latents.size, dtype=model.dtype, device=model.device)
    u[:, 0, dim] = torch.linspace(-REACH, REACH, steps)
    with torch.no_grad(), evaluating(model):
        values = model.prior_given(context).push(u)[0][:, 0, dim]
    z = torch.from_numpy(base).to(u).repeat(steps, 1)
    z[:, dim] = values
    names = [] if subject.picture else subject.features
    cells = subject.shown(subject.expected(z, context))
    form = {"tiles": cells["tiles"]} if subject.picture else {"cells": cells["values"]}
    return {"values": values.tolist(), **form, "names": names, "base": np.asarray(base).tolist()}


def sample(subject: Subject, plane: Plane, n: int, seed: int) -> dict[str, Any]:
    """z ~ p(z), the same z as `vaelid.VAE.sample` draws by ``Key(seed)``, and E[x|z] of each."""
    context = None if subject.context is None else subject.context.expand(n, -1)
    z = subject.model.draw(n, Key(seed), context)[1]
    at = z.double().numpy(force=True)
    names = [] if subject.picture else subject.features
    shown = subject.shown(subject.expected(z))
    return {"z": at, "points": plane.feet(at).astype(np.float32), "names": names, **shown}
