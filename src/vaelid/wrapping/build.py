"""`wrap`: decoder and encoder of the user's own as a model, tried at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaelid import checks
from vaelid.errors import InputError, InputTypeError, first_line
from vaelid.likelihoods import Bernoulli, Binomial, Categorical, ContinuousBernoulli, Likelihood
from vaelid.model import VAE, evaluating
from vaelid.networks import call
from vaelid.priors import Prior, StandardNormal
from vaelid.random import Key
from vaelid.types import Batch
from vaelid.wrapping.adapters import Decoder, Encoder
from vaelid.wrapping.readers import single

LOGITS = (Bernoulli, Binomial, Categorical, ContinuousBernoulli)  # likelihoods whose networks give logits


def wrap(
    decoder: nn.Module | Callable[..., Any],
    *,
    latent: int,
    likelihood: Callable[[nn.Module], Likelihood],
    decoded: Callable[[Any], Tensor] | None = None,
    encoder: nn.Module | Callable[..., Any] | None = None,
    encoded: Callable[[Any], tuple[Tensor, Tensor]] | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    prior: Prior | None = None,
    context: int = 0,
) -> VAE:
    """An existing PyTorch decoder, with or without encoder, as a model to which every question can be put.

    The networks are used as they are: the same modules with the same parameters, not copies, run here on a row of
    zeros and on a few draws from the prior to see whether all fits. Training the model trains them, where their
    parameters require gradients. A network is a module, or a method of one (``net.decode``), and returns anything that
    a reader can read. The prior and what the likelihood holds of its own move to the networks' device and dtype.

    log p(x) is in the units of x that the likelihood states with this decoder: for a decoder of grey levels in
    [0, 1] the rows to ask about are in [0, 1]. Without an encoder q(z|x) is fitted to every row, by
    `vaelid.fitted.PerDatum`; other settings of it than the default are given to a model of the same boxes,
    ``vd.VAE(model.prior, model.likelihood, vd.fitted.PerDatum(steps=1000))``.

    Args:
        decoder: (batch, latent) → the likelihood's raw parameters (batch, heads · event[0], *event[1:]), or whatever
            ``decoded`` reads these from.
        latent: size of z.
        likelihood: makes the likelihood of the decoder: a class such as `vaelid.likelihoods.Bernoulli`, or a function,
            ``lambda net: vd.likelihoods.Gaussian(net, (784,), vd.likelihoods.FixedScale(1.0))``.
        decoded: reads the decoder's output; by default `single`. `logits` where the decoder ends in a sigmoid.
        encoder: (batch, *event) → whatever ``encoded`` reads mean and log σ of q(z|x) from.
        encoded: reads the encoder's output into mean and log σ, (batch, latent) each; needed with an encoder.
        features: what the encoder takes of x, such as ``lambda x: x / 255``; by default x itself, in the data's own
            units. Cells that were not observed are 0 before.
        prior: p(z); standard normal by default.
        context: number of observed covariates; the networks are then called as ``network(values, context)``.

    Raises:
        InputTypeError: an argument is not what it should be.
        InputError: the decoder or the encoder does not fit: latent size, shapes, heads, readers, dtype or device; or
            the decoder returns probabilities where the likelihood takes logits.
    """
    latent = checks.positive_int(latent, "latent")
    context = checks.positive_int(context, "context", minimum=0)
    prior = StandardNormal(latent) if prior is None else prior
    if isinstance(prior, Prior) and prior.latent != latent:
        raise InputError(f"latent={latent} and a prior over {prior.latent} latents", "the same number")
    if encoder is None and (encoded is not None or features is not None):
        raise InputError(
            f"{'features' if encoded is None else 'encoded'} without an encoder", "encoder= beside it, or neither"
        )
    outward = Decoder(decoder, single if decoded is None else decoded)
    inward = None if encoder is None else Encoder(encoder, encoded, features)
    model = VAE(prior, _box(likelihood, outward), inward)
    _settle(model, [adapter.module for adapter in (outward, inward) if adapter is not None])
    _try(model, context, guess=decoded is None)
    return model


def _box(likelihood: Any, network: nn.Module) -> Likelihood:
    remedy = (
        "give a class, vaelid.likelihoods.Bernoulli, or a function, lambda net: vaelid.likelihoods.Gaussian(net, …)"
    )
    if isinstance(likelihood, nn.Module) or not callable(likelihood):
        raise InputTypeError(f"likelihood is a {type(likelihood).__name__}", "what makes one of the decoder", remedy)
    try:
        box = likelihood(network)
    except InputError:
        raise
    except TypeError as error:
        raise InputTypeError(
            f"likelihood cannot be made ({first_line(error)})", "to be called (decoder)", remedy
        ) from error
    if not isinstance(box, Likelihood):
        raise InputTypeError(f"likelihood made a {type(box).__name__} of the decoder", "a vaelid likelihood", remedy)
    return box


def _settle(model: VAE, modules: list[nn.Module]) -> None:
    """Move what is vaelid's to the device and dtype of the user's modules, which stay as they are."""
    theirs = {id(tensor): tensor for module in modules for tensor in _state(module)}
    floating = [tensor for tensor in theirs.values() if tensor.is_floating_point()]
    dtypes, devices = {tensor.dtype for tensor in floating}, {tensor.device for tensor in floating}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise InputError(f"networks in {names}", "all in float32 or all in float64", "convert them: network.float()")
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise InputError(f"networks on {names}", "all on one device", "move them: network.to(device)")
    if not floating:
        return
    dtype, device = floating[0].dtype, floating[0].device
    for tensor in _state(model):
        if id(tensor) not in theirs:
            tensor.data = tensor.data.to(device, dtype if tensor.is_floating_point() else tensor.dtype)


def _state(module: nn.Module) -> itertools.chain[Tensor]:
    return itertools.chain(module.parameters(), module.buffers())


@torch.no_grad()
def _try(model: VAE, covariates: int, guess: bool) -> None:
    """One row of zeros through all networks, and draws from the prior through the decoder.

    ``guess`` says that nobody has said what the decoder's output means.
    """
    dtype, device = model.dtype, model.device
    context = torch.zeros(1, covariates, dtype=dtype, device=device) if covariates else None
    z = torch.zeros(1, model.prior.latent, dtype=dtype, device=device)
    with evaluating(model):
        try:
            call(model.likelihood.network, z, context)
        except InputError:
            raise
        except (LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the decoder does not take z of shape {tuple(z.shape)} ({first_line(error)})",
                f"a network of {model.prior.latent} latents",
                "give latent= the size that it was made for",
            ) from error
        event = tuple(model.decode(z, context).mean.shape[1:])
        inside = model.likelihood.support.inside
        model.check(Batch(torch.full((1, *event), inside, dtype=dtype, device=device), None, context))
        many = None if context is None else context.expand(64, -1)
        u = Key(0).normal((1, 64, model.prior.latent), dtype=dtype, device=device)
        z = model.prior_given(many).push(u)[0][0]
        raw = call(model.likelihood.network, z, many)
    if not bool(raw.isfinite().all()):
        raise InputError(
            "the decoder's output, as read, is not finite at draws from the prior",
            "finite numbers",
            "note that vaelid.wrapping.logits reads probabilities only",
        )
    if guess and isinstance(model.likelihood, LOGITS) and bool((raw >= 0).all()) and bool((raw <= 1).all()):
        several = isinstance(model.likelihood, Categorical)
        reader = "lambda out: out.log()" if several else "vaelid.wrapping.logits"
        raise InputError(
            f"the decoder returns numbers in [0, 1] at all of {len(z)} draws from the prior",
            f"logits, which the {type(model.likelihood).__name__} likelihood takes",
            f"say decoded={reader} if they are probabilities, decoded=vaelid.wrapping.single if they are logits",
        )
