"""Potentials that keep paths near the data: the metric is multiplied by 1 + λV(z), with V ≥ 0 and about 1 on data.

Off by default: a metric made of a decoder's mean or of its Fisher information says what changes along a path, not
whether data were ever seen there. With a potential, what is measured is named so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vaelid import checks
from vaelid.errors import InputError
from vaelid.geometry.embedding import decoder_of, mean_embedding
from vaelid.geometry.forward import Function
from vaelid.geometry.manifold import Embedding, as_manifold
from vaelid.geometry.targets import Stretched
from vaelid.model import VAE


def with_potential(f: Any, potential: Function, strength: float = 1.0, name: str = "a potential") -> Embedding:
    """The embedding ``f`` under G′(z) = (1 + λV(z)) G(z): distances stay distances, and only grow.

    Args:
        f: an embedding or a function of z.
        potential: V, (n, d) → (n,), not below 0, such as `decoder_variance`, `disagreement` or `off_data`.
        strength: λ.
        name: what V is, for people.

    Raises:
        InputError: a metric without an embedding; strength not above 0.
    """
    manifold = as_manifold(f)
    if not isinstance(manifold, Embedding):
        raise InputError("a potential on a metric alone", "an embedding", "multiply G(z) by 1 + λV(z) instead")
    strength = checks.positive(strength, "strength")
    said = getattr(potential, "name", name)
    return replace(
        manifold,
        function=lambda z: torch.cat((manifold(z), potential(z)[:, None]), 1),
        target=Stretched(manifold.target, strength),
        name=f"{manifold.name}, times 1 + {strength:g} × {said}",
    )


def decoder_variance(model: VAE, z: Any, context: Any = None) -> Function:
    """V = Σ Var[x|z] over cells, by its mean over the points z (n, d), such as latent means of training rows."""
    decode = decoder_of(model, context)
    return _named(lambda z: decode(z).variance.flatten(1).sum(1), mean_embedding(model, context), z, "decoder variance")


def disagreement(embeddings: Sequence[Any], z: Any) -> Function:
    """V = Σ Var_m φ_m(z), the variance over M ≥ 2 embeddings of one latent space, by its mean over the points z (n, d).

    Raises:
        InputError: fewer than two.
    """
    parts = [as_manifold(each) for each in embeddings]
    found = [part for part in parts if isinstance(part, Embedding)]
    if len(found) < 2:
        raise InputError(f"the disagreement of {len(found)} embedding{'s' * (not found)}", "two or more")

    def spread(z: Tensor) -> Tensor:
        return torch.stack([part(z) for part in found]).var(0).sum(1)

    return _named(spread, found[0], z, "disagreement of decoders")


def off_data(z: Any, scale: float | None = None) -> Function:
    """V = −log of the density of points z (n, d) relative to its largest value on them, in units of ½ d nats.

    The density is a mixture of normals with one standard deviation at every point: for latent means, with the scale of
    q(z|x), that is the aggregate posterior. For normal points V is 1 on average; far from all of them it grows as the
    squared distance.

    Args:
        z: the points; a few hundred do.
        scale: the standard deviation; by default the mean distance from a point to its fifth-nearest neighbour.
    """
    centres = as_manifold(lambda z: z).points(z)
    if scale is None:
        apart = torch.cdist(centres.double(), centres.double()).sort(dim=1).values
        scale = float(apart[:, min(5, len(centres) - 1)].mean()) or 1.0
    width = checks.positive(scale, "scale")

    def log_density(z: Tensor) -> Tensor:
        squares = (z[:, None] - centres.to(z)).square().sum(-1)
        return torch.logsumexp(-squares / (2 * width**2), 1)

    top, unit = log_density(centres).amax(), 0.5 * centres.shape[1]

    def potential(z: Tensor) -> Tensor:
        return (top.to(z) - log_density(z)).clamp_min(0) / unit

    potential.name = "distance from the data"  # type: ignore[attr-defined]
    return potential


def _named(function: Function, f: Embedding, z: Any, name: str) -> Function:
    """``function`` by its mean over z, with a name of its own."""
    points = f.points(z)
    with torch.no_grad():
        mean = float(torch.cat([function(rows) for rows in torch.split(points, 4096)]).double().mean())
    if not 0 < mean < float("inf"):
        raise InputError(f"a potential ({name}) whose mean over the points is {mean:g}", "a positive number")

    def potential(z: Tensor) -> Tensor:
        return function(z) / mean

    potential.name = name  # type: ignore[attr-defined]
    return potential
