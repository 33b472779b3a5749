"""Models as compositions of parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from vaelid import likelihoods, networks, posteriors, priors
from vaelid.data import Choice, choose, load
from vaelid.errors import InputError, nearest
from vaelid.likelihoods import Likelihood
from vaelid.model import VAE
from vaelid.random import Key

Build = Callable[..., Likelihood]

LIKELIHOODS: dict[str, tuple[int, Build]] = {
    # name → heads of its decoder (0: one per class), constructor from (decoder, event shape, **arguments)
    "bernoulli": (1, lambda net, event: likelihoods.Bernoulli(net)),
    "binomial": (1, lambda net, event, trials: likelihoods.Binomial(net, trials)),
    "categorical": (0, lambda net, event, classes: likelihoods.Categorical(net, classes)),
    "continuous-bernoulli": (1, lambda net, event: likelihoods.ContinuousBernoulli(net)),
    "discretized-logistic": (2, lambda net, event, **grid: likelihoods.DiscretizedLogistic(net, **grid)),
    "gaussian": (1, likelihoods.Gaussian),
    "gaussian-fixed": (1, lambda net, event: likelihoods.Gaussian(net, event, likelihoods.FixedScale(1.0))),
    "gaussian-shared": (1, lambda net, event: likelihoods.Gaussian(net, event, likelihoods.LearnedScale())),
    "gaussian-predicted": (2, lambda net, event: likelihoods.Gaussian(net, event, likelihoods.PredictedScale())),
    "negative-binomial": (1, likelihoods.NegativeBinomial),
}


def vae(
    x: Any,
    *,
    latent: int | None = None,
    likelihood: str | Choice | None = None,
    network: str | None = None,
    hidden: tuple[int, ...] | None = None,
    binarise: bool = False,
    train_rows: np.ndarray | None = None,
    seed: int = 0,
) -> VAE:
    """The plain VAE for a data set: standard normal prior, diagonal normal posterior, the likelihood that suits it.

    Args:
        x: a data set or whatever `vaelid.data.load` reads.
        latent: latent size; by default √cells, between 2 and 32.
        likelihood: a name of `LIKELIHOODS`, or what `vaelid.data.choose` chose; by default it chooses.
        network: ``"mlp"`` or ``"conv"``; by default conv for images from 16 × 16 on.
        hidden: widths of the mlp; by default two layers of 256, or of 500 from 256 cells on.
        binarise: the grey levels will be drawn as 0 or 1.
        train_rows: rows from which means and scales are taken; all by default.
        seed: names the initial weights.

    Raises:
        InputError: the data do not suit the likelihood, or a name is unknown.
    """
    dataset = load(x)
    choice = likelihood if isinstance(likelihood, Choice) else choose(dataset, likelihood, binarise=binarise)
    event = tuple(dataset.x.shape[1:])
    cells = math.prod(event)
    latent = default_latent(event) if latent is None else latent
    hidden = ((500, 500) if cells >= 256 else (256, 256)) if hidden is None else tuple(hidden)
    network = ("conv" if len(event) == 3 and min(event[1:]) >= 16 else "mlp") if network is None else network
    heads, build = LIKELIHOODS[choice.likelihood]
    heads = heads or int(choice.arguments["classes"])
    with Key(seed).fold("init").seeding():
        features = (heads * event[0], *event[1:]) if choice.likelihood == "categorical" else event
        match network:
            case "conv":
                decoder: nn.Module = networks.ConvDecoder(latent, event, heads=heads)
                encoder: nn.Module = networks.ConvEncoder(features, latent)
            case "mlp":
                decoder = networks.MLP(latent, event, hidden[::-1], heads=heads)
                encoder = networks.MLP(features, latent, hidden, heads=2)
            case _:
                raise InputError(f"network {network!r}", "mlp or conv", nearest(network, ["mlp", "conv"]))
        model = VAE(
            priors.StandardNormal(latent),
            build(decoder, event, **choice.arguments),
            posteriors.DiagonalNormal(encoder),
        )
    if not choice.binarise:
        model.likelihood.adapt(dataset.x if train_rows is None else dataset.x[train_rows])
    return model


def default_latent(event: tuple[int, ...]) -> int:
    """√cells, between 2 and 32, and no more than there are cells."""
    cells = math.prod(event)
    return max(1, min(cells, 32, max(2, round(math.sqrt(cells)))))
