"""Models as compositions of parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from vaelid import likelihoods, networks, posteriors, priors
from vaelid.data import Choice, choose, grey_scale, load
from vaelid.errors import InputError, nearest
from vaelid.likelihoods import Likelihood
from vaelid.model import VAE
from vaelid.posteriors import Posterior
from vaelid.priors import Prior
from vaelid.random import Key

Build = Callable[..., Likelihood]

LIKELIHOODS: dict[str, tuple[int, Build]] = {
    # name → heads of its decoder (0: one per class), constructor from (decoder, event shape, **arguments)
    "bernoulli": (1, lambda net, event: likelihoods.Bernoulli(net)),
    "binomial": (1, lambda net, event, trials: likelihoods.Binomial(net, trials)),
    "categorical": (0, lambda net, event, classes: likelihoods.Categorical(net, classes)),
    "continuous-bernoulli": (1, lambda net, event: likelihoods.ContinuousBernoulli(net)),
    "discretized-logistic": (2, lambda net, event, **grid: likelihoods.DiscretizedLogistic(net, **grid)),
    "discretized-logistic-mixture": (
        15,
        lambda net, event, **grid: likelihoods.DiscretizedLogisticMixture(net, 5, **grid),
    ),
    "gaussian": (1, likelihoods.Gaussian),
    "gaussian-fixed": (1, lambda net, event: likelihoods.Gaussian(net, event, likelihoods.FixedScale(1.0))),
    "gaussian-shared": (1, lambda net, event: likelihoods.Gaussian(net, event, likelihoods.LearnedScale())),
    "gaussian-predicted": (2, lambda net, event: likelihoods.Gaussian(net, event, likelihoods.PredictedScale())),
    "laplace": (1, likelihoods.Laplace),
    "log-normal": (1, likelihoods.LogNormal),
    "negative-binomial": (1, likelihoods.NegativeBinomial),
    "ordinal": (1, lambda net, event, levels: likelihoods.Ordinal(net, levels, event)),
    "poisson": (1, likelihoods.Poisson),
    "student-t": (1, likelihoods.StudentT),
    "zero-inflated-negative-binomial": (2, likelihoods.ZeroInflatedNegativeBinomial),
}


PRIORS: dict[str, Callable[..., Prior]] = {
    # name → constructor from (latent size, shape of one row of features, covariates, components)
    "standard-normal": lambda latent, features, context, components: priors.StandardNormal(latent),
    "mixture": lambda latent, features, context, components: priors.Mixture(latent, components),
    "vamp": lambda latent, features, context, components: priors.VampPrior(latent, features, components),
    "flow": lambda latent, features, context, components: priors.Flow(latent, context=context),
}
POSTERIORS: dict[str, tuple[Callable[[int], int], Callable[[nn.Module, int], Posterior]]] = {
    # name → outputs of its encoder, constructor from (encoder, latent size)
    "diagonal-normal": (lambda d: 2 * d, lambda net, d: posteriors.DiagonalNormal(net)),
    "full-normal": (lambda d: d + d * (d + 1) // 2, posteriors.FullNormal),
    "mixture": (lambda d: 5 * (2 * d + 1), posteriors.Mixture),
    "planar": (lambda d: 2 * d + 8 * (2 * d + 1), posteriors.Planar),
    "iaf": (lambda d: 2 * d + 16, posteriors.Flow),
    "spline-flow": (lambda d: 2 * d + 16, lambda net, d: posteriors.Flow(net, d, bins=8)),
}
NETWORKS = ("mlp", "residual", "conv")


def vae(
    x: Any,
    *,
    latent: int | None = None,
    likelihood: str | Choice | None = None,
    prior: str = "standard-normal",
    posterior: str = "diagonal-normal",
    components: int = 32,
    network: str | None = None,
    hidden: tuple[int, ...] | None = None,
    depth: int | None = None,
    context: int | None = None,
    binarise: bool = False,
    train_rows: np.ndarray | None = None,
    seed: int = 0,
) -> VAE:
    """The VAE for a data set; by default with a standard normal prior, a diagonal normal posterior, and what suits.

    Args:
        x: a data set or whatever `vaelid.data.load` reads.
        latent: latent size; by default √cells, between 2 and 32.
        likelihood: a name of `LIKELIHOODS`, or what `vaelid.data.choose` chose; by default it chooses.
        prior: a name of `PRIORS`.
        posterior: a name of `POSTERIORS`.
        components: of a mixture or vamp prior.
        network: a name of `NETWORKS`; by default conv for images from 16 × 16 on, else mlp.
        hidden: widths of the mlp; by default two layers of 256, or of 500 from 256 cells on.
        depth: hidden layers of the mlp (2 by default), blocks of the residual network (4), or residual blocks per level
            of the convolutional one (0), all of the default width.
        context: how many covariates prior, encoder and decoder are given; by default those of the data set.
        binarise: the grey levels will be drawn as 0 or 1.
        train_rows: rows from which means and scales are taken; all by default.
        seed: names the initial weights.

    Raises:
        InputError: the data do not suit the likelihood, a name is unknown, or hidden and depth are both given.
    """
    dataset = load(x)
    choice = likelihood if isinstance(likelihood, Choice) else choose(dataset, likelihood, binarise=binarise)
    for kind, given, known in (("prior", prior, PRIORS), ("posterior", posterior, POSTERIORS)):
        if given not in known:
            raise InputError(f"{kind} {given!r}", "one of " + ", ".join(known), nearest(given, known))
    event = tuple(dataset.x.shape[1:])
    latent = default_latent(event) if latent is None else latent
    network = ("conv" if len(event) == 3 and min(event[1:]) >= 16 else "mlp") if network is None else network
    if context is None:
        context = 0 if dataset.covariates is None else dataset.covariates.size
    heads, build = LIKELIHOODS[choice.likelihood]
    heads = heads or int(choice.arguments["classes"])
    outputs, wrap = POSTERIORS[posterior]
    with Key(seed).fold("init").seeding():
        features = (heads * event[0], *event[1:]) if choice.likelihood == "categorical" else event
        decoder, encoder = _networks(network, event, features, latent, outputs(latent), heads, context, hidden, depth)
        model = VAE(
            PRIORS[prior](latent, features, context, components),
            build(decoder, event, **choice.arguments),
            wrap(encoder, latent),
        )
    _adapt(model, dataset.x if train_rows is None else dataset.x[train_rows], grey_scale(dataset), choice.binarise)
    return model


def _networks(
    network: str,
    event: tuple[int, ...],
    features: tuple[int, ...],
    latent: int,
    outputs: int,
    heads: int,
    context: int,
    hidden: tuple[int, ...] | None,
    depth: int | None,
) -> tuple[nn.Module, nn.Module]:
    """Decoder and encoder."""
    width = 500 if math.prod(event) >= 256 else 256
    if hidden is not None and (depth is not None or network != "mlp"):
        beside = f"depth={depth}" if depth is not None else f"network={network!r}"
        raise InputError(f"hidden={tuple(hidden)} beside {beside}", "hidden widths for the mlp, or else a depth")
    match network:
        case "conv":
            depth = depth or 0
            return (
                networks.ConvDecoder(latent, event, heads=heads, context=context, depth=depth),
                networks.ConvEncoder(features, outputs, heads=1, context=context, depth=depth),
            )
        case "mlp":
            widths = (width,) * (2 if depth is None else depth) if hidden is None else tuple(hidden)
            return (
                networks.MLP(latent, event, widths[::-1], heads=heads, context=context),
                networks.MLP(features, outputs, widths, context=context),
            )
        case "residual":
            depth = 4 if depth is None else depth
            return (
                networks.Residual(latent, event, width, depth, heads=heads, context=context),
                networks.Residual(features, outputs, width, depth, context=context),
            )
    raise InputError(f"network {network!r}", "one of " + ", ".join(NETWORKS), nearest(network, NETWORKS))


def _adapt(model: VAE, x: np.ndarray, grey: float, binarise: bool) -> None:
    """Take means and scales, and a VampPrior's first pseudo-inputs, from training rows."""
    if not binarise:
        model.likelihood.adapt(x)
    if isinstance(model.prior, priors.VampPrior) and len(x) >= model.prior.components:
        rows = torch.from_numpy(x[:: max(1, len(x) // 4096)]).float()
        model.prior.adapt(model.likelihood.features(rows / grey if binarise else rows))


def default_latent(event: tuple[int, ...]) -> int:
    """√cells, between 2 and 32, and no more than there are cells."""
    cells = math.prod(event)
    return max(1, min(cells, 32, max(2, round(math.sqrt(cells)))))
