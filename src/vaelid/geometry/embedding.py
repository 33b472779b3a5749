"""Embeddings of models: Fisher–Rao, mean, mean and deviation; several embeddings as one.

Where an embedding is isometric for the Fisher–Rao metric of p(x|z), the length of a path in latent space says by how
many standard deviations of x what is decoded changes along it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vaelid import checks
from vaelid.distributions import DiscretizedLogistic, Distribution
from vaelid.errors import InputError, InputTypeError
from vaelid.geometry.forward import cellwise
from vaelid.geometry.manifold import Embedding, as_manifold
from vaelid.geometry.targets import Flat, Hyperbolic, Product
from vaelid.model import VAE, settled


def embedding(model: VAE, context: Any = None) -> Embedding:
    """The Fisher–Rao geometry of p(x|z): G(z) = E[∇_z log p(x|z) ∇_z log p(x|z)ᵀ], the same whatever the units of x.

    One parameter per cell moves with z: flat coordinates φ = ∫ √I(θ) dθ (Bernoulli 2 arcsin √p, binomial √n times it,
    Poisson 2√λ, negative binomial 2√r asinh √(μ/r), fixed scale m/σ …), for finitely many levels 2√p on a sphere.
    Location and scale both move: a hyperbolic plane per cell. Where there is neither (zero-inflated counts), or where
    2√p would have more than 20 coordinates per cell, it is the `mean_embedding`, and the name says so.

    Args:
        model: the model.
        context: covariates (c,) at which a conditional model is looked at.

    Raises:
        InputTypeError: not a model.
    """
    model = _model(model)
    box = model.likelihood
    like = _like(model)
    z = torch.zeros(1, model.prior.latent, device=model.device, dtype=model.dtype)
    decode = decoder_of(model, context)
    with torch.no_grad():
        seen = decode(z)
        planes = box.planes(seen)
        cells = seen.mean[0].numel()
        wide = box.fisher_rao and box.embedding(seen).shape[1] > _LEVELS * cells
    family = type(box).__name__
    if planes is not None:

        def both(z: Tensor) -> Tensor:
            found: Any = box.planes(decode(z))
            return torch.cat(found[:2], -1)

        name = f"Fisher–Rao metric of the {family} likelihood (location and scale)"
        return Embedding(both, name, model.prior.latent, like, target=Hyperbolic(planes[2]))
    if not box.fisher_rao or wide:
        found = mean_embedding(model, context)
        why = "is narrow" if wide else "is known"
        return replace(found, name=f"{found.name}; no Fisher–Rao embedding of {family} {why}")
    name = f"Fisher–Rao metric of the {family} likelihood"
    return Embedding(lambda z: box.embedding(decode(z)), name, model.prior.latent, like)


def mean_embedding(model: VAE, context: Any = None) -> Embedding:
    """φ = E[x|z] in the data's own units, flat: G = JᵀJ of the decoder's mean (Shao et al. 2018, Chen et al. 2018)."""
    decode = decoder_of(_model(model), context)

    def function(z: Tensor) -> Tensor:
        p = decode(z)
        if isinstance(p, DiscretizedLogistic):  # whose mean is a sum over all levels
            mean = cellwise(lambda loc, scale: replace(p, loc=loc, log_scale=scale).mean, p.loc, p.log_scale)
        else:
            mean = p.mean
        return mean.flatten(1)

    return Embedding(function, "metric of the decoder's mean E[x|z]", model.prior.latent, _like(model))


def moments_embedding(model: VAE, context: Any = None) -> Embedding:
    """φ = (E[x|z], sd[x|z]), flat: G = J_μᵀ J_μ + J_σᵀ J_σ ("Latent Space Oddity", Arvanitidis et al. 2018, eq. 5).

    It is the expected metric of a decoder μ(z) + σ(z) ε, and differs from the Fisher–Rao metric, which measures both
    in units of σ.
    """
    decode = decoder_of(_model(model), context)

    def function(z: Tensor) -> Tensor:
        p = decode(z)
        mean = p.mean
        # below the smallest number there is no slope of a root
        spread = p.variance.clamp_min(torch.finfo(mean.dtype).tiny).sqrt().expand_as(mean)
        return torch.cat((mean.flatten(1), spread.flatten(1)), 1)

    name = "metric of the decoder's mean and standard deviation"
    return Embedding(function, name, model.prior.latent, _like(model))


def joint(embeddings: Sequence[Any], weights: Sequence[float] | None = None) -> Embedding:
    """Embeddings of one latent space side by side: G = Σ wₘ Gₘ, such as that of independent columns of several kinds.

    Args:
        embeddings: embeddings, or functions of z.
        weights: wₘ > 0; all 1 by default.

    Raises:
        InputError: there are none, weights are not above 0, or latent sizes differ.
    """
    return _beside(embeddings, weights, "{} embeddings together")


def ensemble(embeddings: Sequence[Any]) -> Embedding:
    """The expected metric of several decoders of one latent space, G = (1/M) Σ Gₘ, by φₘ/√M side by side.

    Differences are taken within each decoder, so the energy E[|φ̇|²] is exact: free of Monte Carlo error and of the
    resolution of the path, other than with decoders drawn anew at every point (Syrota et al. 2024).

    Raises:
        InputError: there are none, or latent sizes differ.
    """
    return _beside(embeddings, [1 / max(1, len(embeddings))] * len(embeddings), "expected metric of {} decoders")


def _beside(embeddings: Sequence[Any], weights: Sequence[float] | None, name: str) -> Embedding:
    parts = [as_manifold(each) for each in embeddings]
    if not parts or not all(isinstance(part, Embedding) for part in parts):
        raise InputError(f"{len(parts)} embeddings", "at least one embedding or function of z")
    found = [part for part in parts if isinstance(part, Embedding)]
    latents = {part.latent for part in found} - {None}
    if len(latents) > 1:
        raise InputError(f"embeddings of {' and '.join(map(str, sorted(latents)))} latents", "one latent space")  # type: ignore[type-var]
    weights = [1.0] * len(found) if weights is None else [checks.positive(w, "a weight") for w in weights]
    if len(weights) != len(found):
        raise InputError(f"{len(weights)} weights for {len(found)} embeddings", "one each")
    like = next((part.like for part in found if part.like is not None), None)
    latent = next(iter(latents), None)
    said = name.format(len(found)) + ": " + "; ".join(dict.fromkeys(part.name for part in found))
    if all(isinstance(part.target, Flat) for part in found):
        scaled = list(zip(found, [w**0.5 for w in weights], strict=True))
        return Embedding(lambda z: torch.cat([root * part(z) for part, root in scaled], 1), said, latent, like)
    if latent is None:
        raise InputError("embeddings into curved targets without their latent size", "embeddings of models")
    at = torch.zeros(1, latent) if like is None else like.new_zeros(1, latent)
    widths = [part(at).shape[1] for part in found]
    target = Product([part.target for part in found], widths, weights)
    return Embedding(lambda z: torch.cat([part(z) for part in found], 1), said, latent, like, target=target)


def decoder_of(model: VAE, context: Any = None) -> Callable[[Tensor], Distribution]:
    """z (n, d) → p(x|z), in evaluation mode, at one context."""
    given = None
    if context is not None:
        given = torch.as_tensor(context, dtype=model.dtype, device=model.device)
        if given.ndim != 1:
            raise InputError(f"context of shape {tuple(given.shape)}", "one context (c,) for all z")

    def decode(z: Tensor) -> Distribution:
        with settled(model):
            return model.decode(z, None if given is None else given.expand(len(z), -1))

    return decode


def _model(model: VAE) -> VAE:
    if not isinstance(model, VAE):
        raise InputTypeError(
            f"a {type(model).__name__}", "a vaelid model", "a function of z is taken as it is: geodesic(decoder, a, b)"
        )
    return model


def _like(model: VAE) -> Tensor:
    return torch.empty(0, device=model.device, dtype=model.dtype)


_LEVELS = 20  # coordinates per cell, at most
