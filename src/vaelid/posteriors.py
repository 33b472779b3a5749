"""Posteriors q(z|x): modules whose call returns a distribution value that is a transport of noise, z = T_x(u)."""

from __future__ import annotations

import abc
import math
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from vaelid import checks, transports
from vaelid.distributions import Normal
from vaelid.errors import InputError
from vaelid.networks.call import call
from vaelid.parts import part
from vaelid.types import Transport


class Posterior(nn.Module, abc.ABC):
    """An encoder: features of x to a distribution over z.

    Attributes:
        raw: whether the features are x itself, in the data's own units and 0 where it was not observed, instead of
            what `vaelid.likelihoods.Likelihood.features` makes of it.
    """

    raw: ClassVar[bool] = False

    @abc.abstractmethod
    def forward(self, features: Tensor, context: Tensor | None = None) -> Transport:
        """q(z|x) for features (batch, *event) as `vaelid.likelihoods.Likelihood.features` makes them."""


@final
@part("posteriors.DiagonalNormal")
class DiagonalNormal(Posterior):
    """q(z|x) = N(μ(x), diag σ(x)²), z = μ + σ ⊙ u (Kingma & Welling 2014, section 2.4).

    Args:
        network: features (batch, *event) → (batch, 2 · latent), μ and log σ side by side; any module.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, context: Tensor | None = None) -> Normal:
        """Normal over z with parameters (batch, latent)."""
        out = call(self.network, features, context)
        if out.ndim != 2 or out.shape[1] % 2:
            raise InputError(
                f"the posterior's network returned shape {tuple(out.shape)}",
                f"({features.shape[0]}, 2 × latent): mean and log-scale side by side",
                "give the encoder two outputs per latent (heads=2)",
            )
        loc, log_scale = out.chunk(2, dim=1)
        return Normal(loc, log_scale.exp())


@final
@part("posteriors.FullNormal")
class FullNormal(Posterior):
    """q(z|x) = N(μ(x), L(x) L(x)ᵀ), z = μ + L u, with L = diag σ · (I + A / √latent) and A strictly lower triangular.

    The root keeps the correlations of a fresh network small whatever the latent size.

    Args:
        network: features (batch, *event) → (batch, latent + latent · (latent + 1) / 2): μ, log σ and A row by row.
        latent: size of the latent space.
    """

    below: Tensor

    def __init__(self, network: nn.Module, latent: int) -> None:
        super().__init__()
        self.network, self.latent = network, checks.positive_int(latent, "the latent size")
        row, column = torch.tril_indices(self.latent, self.latent, -1)
        self.register_buffer("below", row * self.latent + column, persistent=False)

    def forward(self, features: Tensor, context: Tensor | None = None) -> transports.FullNormal:
        """Normal over z with parameters (batch, latent) and (batch, latent, latent)."""
        sizes = (self.latent, self.latent, len(self.below))
        out = _outputs(self.network, features, context, sizes, "means, log-scales and entries of L")
        loc, log_scale, entries = out
        flat = entries.new_zeros(len(entries), self.latent**2)
        tril = flat.index_copy(1, self.below, entries / math.sqrt(self.latent)).view(-1, self.latent, self.latent)
        unit = torch.eye(self.latent, dtype=tril.dtype, device=tril.device)
        return transports.FullNormal(loc, log_scale.exp().unsqueeze(-1) * (unit + tril))


@final
@part("posteriors.Planar")
class Planar(Posterior):
    """z = f(μ(x) + σ(x) ⊙ u), f a chain of planar maps with parameters from x (Rezende & Mohamed 2015, section 4).

    It knows log q at the z that it pushes, which is what bounds and evidence need; at any other z it has no closed
    form, so estimators that ask for one are refused.

    Args:
        network: features (batch, *event) → (batch, 2 · latent + layers · (2 · latent + 1)): μ, log σ, all u, all w,
            all b.
        latent: size of the latent space.
        layers: number of planar maps.
    """

    def __init__(self, network: nn.Module, latent: int, layers: int = 8) -> None:
        super().__init__()
        self.network, self.latent = network, checks.positive_int(latent, "the latent size")
        self.layers = checks.positive_int(layers, "the number of planar layers")

    def forward(self, features: Tensor, context: Tensor | None = None) -> transports.Planar:
        """Planar flow with parameters (batch, latent), (batch, layers, latent) and (batch, layers)."""
        wide, shape = self.layers * self.latent, (-1, self.layers, self.latent)
        sizes = (self.latent, self.latent, wide, wide, self.layers)
        out = _outputs(self.network, features, context, sizes, "means, log-scales and the layers' u, w and b")
        loc, log_scale, u, w, b = out
        return transports.Planar(Normal(loc, log_scale.exp()), u.reshape(shape), w.reshape(shape), b)


@final
@part("posteriors.Flow")
class Flow(Posterior):
    """z = f(μ(x) + σ(x) ⊙ u; h(x)), f autoregressive layers that push in one pass (Kingma et al. 2016).

    Layers alternate the order of the coordinates and start as the identity, so that q starts as a diagonal normal.

    Args:
        network: features (batch, *event) → (batch, 2 · latent + features): μ, log σ and h.
        latent: size of the latent space.
        transforms: number of autoregressive layers.
        hidden: widths of the hidden layers of each layer's network.
        features: width of h.
        bins: bins of a rational-quadratic spline per coordinate (Durkan et al. 2019); None for affine maps, which
            makes it an inverse autoregressive flow.
    """

    def __init__(
        self,
        network: nn.Module,
        latent: int,
        transforms: int = 2,
        hidden: tuple[int, ...] = (64, 64),
        features: int = 16,
        bins: int | None = None,
    ) -> None:
        super().__init__()
        self.network, self.latent = network, checks.positive_int(latent, "the latent size")
        self.transforms, self.hidden, self.bins = transforms, tuple(hidden), bins
        self.features = checks.positive_int(features, "the number of features")
        self.flow = transports.AutoregressiveStack(self.latent, self.features, transforms, self.hidden, bins)

    def forward(self, features: Tensor, context: Tensor | None = None) -> transports.Flow:
        """Flow with base parameters (batch, latent) and features h (batch, features)."""
        sizes = (self.latent, self.latent, self.features)
        loc, log_scale, h = _outputs(self.network, features, context, sizes, "means, log-scales and features")
        return transports.Flow(Normal(loc, log_scale.exp()), self.flow(h))


@final
@part("posteriors.Mixture")
class Mixture(Posterior):
    """q(z|x) = Σ_k w_k(x) N(μ_k(x), diag σ_k(x)²), a transport by the Knothe–Rosenblatt map.

    Args:
        network: features (batch, *event) → (batch, components · (2 · latent + 1)): all log w, all μ, all log σ.
        latent: size of the latent space.
        components: K.
    """

    def __init__(self, network: nn.Module, latent: int, components: int = 5) -> None:
        super().__init__()
        self.network, self.latent = network, checks.positive_int(latent, "the latent size")
        self.components = checks.positive_int(components, "the number of components")

    def forward(self, features: Tensor, context: Tensor | None = None) -> transports.MixtureOfNormals:
        """Mixture with weights (batch, components) and parameters (batch, components, latent)."""
        wide, shape = self.components * self.latent, (-1, self.components, self.latent)
        sizes = (self.components, wide, wide)
        out = _outputs(self.network, features, context, sizes, "the components' log-weights, means and log-scales")
        logits, loc, log_scale = out
        components = Normal(loc.reshape(shape), log_scale.exp().reshape(shape))
        return transports.MixtureOfNormals(logits, components)


def _outputs(
    network: nn.Module, features: Tensor, context: Tensor | None, sizes: tuple[int, ...], what: str
) -> tuple[Tensor, ...]:
    """The network's output (batch, Σ sizes), split into ``sizes``."""
    out, wanted = call(network, features, context), sum(sizes)
    if out.shape != (features.shape[0], wanted):
        raise InputError(
            f"the posterior's network returned shape {tuple(out.shape)}",
            f"({features.shape[0]}, {wanted}): {what} side by side",
            f"give the encoder {wanted} outputs",
        )
    return torch.split(out, list(sizes), dim=1)
