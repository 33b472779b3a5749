"""Priors p(z): modules whose call returns a distribution value that noise can be pushed through."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from vaelid import checks
from vaelid.distributions import Normal
from vaelid.parts import part
from vaelid.types import Transport

Encode = Callable[[Tensor, Tensor | None], Transport]  # (features, context) → q(z | features, context)


class Prior(nn.Module, abc.ABC):
    """A distribution over latents z, (sample, batch, latent)."""

    latent: int

    @abc.abstractmethod
    def forward(self, context: Tensor | None = None, posterior: Encode | None = None) -> Transport:
        """p(z | context) as a distribution value that broadcasts to (sample, batch, latent).

        ``posterior`` is the model's own q(z|·), for priors that are made of it; they do not own it.
        """


@final
@part("priors.StandardNormal")
class StandardNormal(Prior):
    """p(z) = N(0, I), log p(z) = −½ Σ (z² + log 2π).

    Args:
        latent: size of the latent space, at least 1.
    """

    zero: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = checks.positive_int(latent, "the latent size")
        self.register_buffer("zero", torch.zeros(latent), persistent=False)

    def forward(self, context: Tensor | None = None, posterior: Encode | None = None) -> Normal:
        """N(0, I) over (latent,), whatever the context and the posterior."""
        return Normal(self.zero, torch.ones_like(self.zero))
