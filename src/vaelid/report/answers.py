"""What the model is asked for the report: reconstructions, draws from the prior, traversals, any latents."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelid.model import VAE
from vaelid.random import Key
from vaelid.types import Batch

TRAVERSED = 10  # dimensions, at most
STEPS = np.linspace(-2.5, 2.5, 11)
_CHUNK = 64  # decoder rows per pass: events may be large


class Reconstructions(NamedTuple):
    """Test rows, what the decoder expects in their place, and the standard deviation of p(x|z); (rows, *event)."""

    x: np.ndarray
    expected: np.ndarray
    deviation: np.ndarray


@torch.no_grad()
def reconstruct(model: VAE, batch: Batch, z: Tensor) -> Reconstructions:
    """The rows of a batch beside p(x|z) at ``z`` (rows, latent); cells that were not observed are NaN."""
    x = batch.x.float()
    if batch.mask is not None:
        x = torch.where(batch.mask, x, math.nan)
    decoded = _decode(model, z, batch.context)
    return Reconstructions(_array(x), decoded[0], decoded[1])


@torch.no_grad()
def prior_samples(model: VAE, numbers: Tensor, key: Key, context: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """E[x|z] and x ~ p(x|z) for the same draws z ~ p(z), (rows, *event) each.

    ``numbers`` (rows,) name the draws' noise: rows of one number differ by their context (rows, c) alone.
    """
    u = key.fold("z").normal_rows(numbers, 1, model.prior.latent, dtype=model.dtype)
    z, _ = model.prior(context, model.posterior).push(u)
    means, _, draws = _decode(model, z[0], context, key.fold("x"), numbers)
    return means, draws


@torch.no_grad()
def traverse(model: VAE, dimensions: np.ndarray, context: Tensor | None) -> np.ndarray:
    """E[x|z] where one dimension goes through `STEPS` standard deviations of the prior and the others stay at its mean.

    ``context`` (c,) stands for all; the result has shape (dimensions, steps, *event).
    """
    u = torch.zeros(len(dimensions), len(STEPS), model.prior.latent, dtype=model.dtype, device=model.device)
    for row, dimension in enumerate(dimensions):
        u[row, :, dimension] = torch.from_numpy(STEPS).to(u)
    u = u.flatten(0, 1)
    given = None if context is None else context.expand(len(u), -1)
    z, _ = model.prior(given, model.posterior).push(u.unsqueeze(0))
    means = expected(model, z[0], context)
    return means.reshape(len(dimensions), len(STEPS), *means.shape[1:])


@torch.no_grad()
def expected(model: VAE, z: Tensor, context: Tensor | None) -> np.ndarray:
    """E[x|z] at latents (rows, latent), ``context`` (c,) standing for all: (rows, *event)."""
    return _decode(model, z, None if context is None else context.expand(len(z), -1))[0]


def _decode(
    model: VAE, z: Tensor, context: Tensor | None, key: Key | None = None, numbers: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected x, its standard deviation and, with a key, a draw, for z (rows, latent); (rows, *event) each."""
    expected, deviation, draws = [], [], []
    rows = torch.arange(len(z), device=z.device)
    numbers = rows if numbers is None else numbers
    for chunk, ids in zip(torch.split(rows, _CHUNK), torch.split(numbers, _CHUNK), strict=True):
        p = model.decode(z[chunk], None if context is None else context[chunk])
        mean = p.mean
        expected.append(_array(p.point))
        deviation.append(_array(p.variance.sqrt().expand_as(mean)))
        if key is not None:
            uniform = key.uniform_rows(ids, 1, mean[0].numel(), dtype=mean.dtype)
            draws.append(_array(p.icdf(uniform[0].view_as(mean))))
    return np.concatenate(expected), np.concatenate(deviation), np.concatenate(draws) if draws else np.empty(0)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
