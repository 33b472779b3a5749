"""Priors p(z): modules whose call returns a distribution value that noise can be pushed through."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from vaelid import checks, transports
from vaelid.distributions import Normal
from vaelid.errors import InputError, InputTypeError
from vaelid.networks.dense import as_shape
from vaelid.parts import part
from vaelid.transports import MixtureOfNormals
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


@final
@part("priors.Mixture")
class Mixture(Prior):
    """p(z) = Σ_k w_k N(μ_k, diag σ_k²), all learned; it starts close to N(0, I) with the components set apart.

    Args:
        latent: size of the latent space.
        components: K.
    """

    def __init__(self, latent: int, components: int) -> None:
        super().__init__()
        self.latent = checks.positive_int(latent, "the latent size")
        self.components = checks.positive_int(components, "the number of components")
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latent) / 2)
        self.log_scale = nn.Parameter(torch.full((components, latent), 0.5 * math.log(3 / 4)))

    def forward(self, context: Tensor | None = None, posterior: Encode | None = None) -> MixtureOfNormals:
        """The mixture over (latent,), whatever the context and the posterior."""
        return MixtureOfNormals(self.logits, Normal(self.loc, self.log_scale.exp()))


@final
@part("priors.VampPrior")
class VampPrior(Prior):
    """p(z | context) = 1/K Σ_k q(z | v_k, context), with learned pseudo-inputs v_k (Tomczak & Welling 2018).

    q is the model's own posterior, handed in at every call; training moves encoder and pseudo-inputs through it. Where
    there is a context, every pseudo-input is encoded with the context of each row, K · rows encodings instead of K.

    Args:
        latent: size of the latent space.
        inputs: shape of one row of features, as the encoder takes it.
        components: K.
    """

    uniform: Tensor

    def __init__(self, latent: int, inputs: int | tuple[int, ...], components: int) -> None:
        super().__init__()
        self.latent, self.inputs = checks.positive_int(latent, "the latent size"), as_shape(inputs)
        self.components = checks.positive_int(components, "the number of components")
        self.pseudo_inputs = nn.Parameter(torch.randn(components, *self.inputs))
        self.register_buffer("uniform", torch.zeros(components), persistent=False)

    def adapt(self, features: Any) -> Self:
        """Start the pseudo-inputs at training rows, evenly spaced among features (rows, *inputs); returns itself.

        Raises:
            InputError: fewer rows than components, or another shape.
        """
        rows = torch.from_numpy(checks.array(features, "features", min_rows=self.components))
        if rows.shape[1:] != self.inputs:
            raise InputError(f"features of shape {tuple(rows.shape[1:])}", f"{self.inputs}, as the pseudo-inputs have")
        index = torch.linspace(0, len(rows) - 1, self.components).round().long()
        with torch.no_grad():
            self.pseudo_inputs.copy_(rows[index])
        return self

    def forward(self, context: Tensor | None = None, posterior: Encode | None = None) -> MixtureOfNormals:
        """The mixture, over (latent,) without context and over (batch, latent) with context (batch, c).

        Raises:
            InputError: no posterior was handed in, or its latent size is another.
            InputTypeError: the posterior returns something else than one normal.
        """
        if posterior is None:
            raise InputError(
                "a VampPrior without a posterior",
                "the model's own encoder",
                "call prior(context, model.posterior); a model without an encoder needs another prior",
            )
        if context is None:
            return MixtureOfNormals(self.uniform, self._normal(posterior(self.pseudo_inputs, None)))
        blocks = []
        for rows in torch.split(context, max(1, _ENCODINGS // self.components)):
            inputs = self.pseudo_inputs.repeat(len(rows), *(1 for _ in self.inputs))
            blocks.append(self._normal(posterior(inputs, rows.repeat_interleave(self.components, 0))))
        return MixtureOfNormals(self.uniform, _join(blocks, self.components))

    def _normal(self, q: Transport) -> Normal | transports.FullNormal:
        if not isinstance(q, Normal | transports.FullNormal):
            raise InputTypeError(
                f"a VampPrior over a posterior that returns a {type(q).__name__}",
                "one normal per row",
                "take posteriors.DiagonalNormal or posteriors.FullNormal, or another prior such as priors.Mixture",
            )
        if q.size != self.latent:
            raise InputError(f"the posterior has {q.size} latents", f"{self.latent}, as the prior has")
        return q


_ENCODINGS = 1 << 16  # encodings per pass, so that many rows with many pseudo-inputs fit the memory


def _join(blocks: list[Any], components: int) -> Any:
    """Normals over (rows · components) one after the other as one over (rows, components)."""
    names = ("loc", "scale_tril") if isinstance(blocks[0], transports.FullNormal) else ("loc", "scale")
    columns = (torch.cat([getattr(block, name) for block in blocks]) for name in names)
    return type(blocks[0])(*(column.reshape(-1, components, *column.shape[1:]) for column in columns))


@final
@part("priors.Flow")
class Flow(Prior):
    """u = f(z; context) ~ N(0, I), f autoregressive layers (Papamakarios et al. 2017): log p(z) in one pass.

    It starts as the standard normal. Sampling takes ``latent`` passes.

    Args:
        latent: size of the latent space.
        transforms: number of autoregressive layers.
        hidden: widths of the hidden layers of each layer's network.
        bins: bins of a rational-quadratic spline per coordinate (Durkan et al. 2019); None for affine maps.
        context: number of observed covariates that the prior depends on.
    """

    def __init__(
        self,
        latent: int,
        transforms: int = 3,
        hidden: tuple[int, ...] = (64, 64),
        bins: int | None = None,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.latent = checks.positive_int(latent, "the latent size")
        self.transforms, self.hidden, self.bins = transforms, tuple(hidden), bins
        self.context = checks.positive_int(context, "the number of covariates", minimum=0)
        self.flow = transports.AutoregressiveStack(self.latent, self.context, transforms, self.hidden, bins)

    def forward(self, context: Tensor | None = None, posterior: Encode | None = None) -> transports.DensityFlow:
        """The flow, over (batch, latent) where it depends on context (batch, c).

        Raises:
            InputError: the context has another width than the prior was built for, or is missing.
        """
        if not self.context:
            return transports.DensityFlow(self.flow())
        if context is None or context.shape[-1] != self.context:
            given = "no context" if context is None else f"a context of {context.shape[-1]} covariates"
            raise InputError(given, f"{self.context}, as the prior was built for")
        return transports.DensityFlow(self.flow(context))
