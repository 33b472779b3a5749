"""Posteriors q(z|x): modules whose call returns a distribution value that is a transport of noise, z = T_x(u)."""

from __future__ import annotations

import abc
from typing import final

from torch import Tensor, nn

from vaelid.distributions import Normal
from vaelid.errors import InputError
from vaelid.networks import call
from vaelid.parts import part
from vaelid.types import Transport


class Posterior(nn.Module, abc.ABC):
    """An encoder: features of x to a distribution over z."""

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
