"""Autoregressive flows over noise, affine or rational-quadratic splines, with zuko's transforms."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call

from vaelid import checks
from vaelid.distributions import Normal

_validating = Distribution._validate_args
from zuko.nn import MaskedMLP  # noqa: E402  # importing zuko switches PyTorch's validation of arguments off
from zuko.transforms import (  # noqa: E402
    AutoregressiveTransform,
    DependentTransform,
    MonotonicAffineTransform,
    MonotonicRQSTransform,
)

Distribution.set_default_validate_args(_validating)

# zuko's parameters, given so that a saved flow means the same under every version of it
_AFFINE = {"slope": 1e-3}  # least scale
_SPLINE = {"bound": 5.0, "slope": 0.03}  # least relative bin width and knot slope; below, float32 fails to invert some


@final
class Autoregressive(nn.Module):
    """One layer of a flow: y_j = g(x_j; θ_j), monotone in x_j, with θ_j a function of x_<j and of features.

    g is affine (Kingma et al. 2016), or with ``bins`` a rational-quadratic spline on [−5, 5] that goes on as the
    identity (Durkan et al. 2019). θ comes from a masked network (Germain et al. 2015) whose last layer starts at 0, so
    that a fresh layer is the identity.

    Args:
        size: d, the number of coordinates.
        features: width of the features, 0 for none.
        hidden: widths of the network's hidden layers.
        bins: bins of the spline; None for affine.
        reverse: whether the last coordinate comes first.
    """

    def __init__(self, size: int, features: int, hidden: tuple[int, ...], bins: int | None, reverse: bool) -> None:
        super().__init__()
        self.size, self.bins = size, bins
        self.shapes = (1, 1) if bins is None else (bins, bins, bins - 1)
        order = torch.arange(size)
        before = order[:, None] < order if reverse else order[:, None] > order
        given = torch.ones(size, max(1, features), dtype=torch.bool)  # where there are no features a 1 stands in
        adjacency = torch.cat((before, given), 1).repeat_interleave(sum(self.shapes), 0)
        self.network = MaskedMLP(adjacency, hidden, activation=nn.GELU)
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, features: Tensor | None) -> Any:
        """The transform of every coordinate, as zuko writes it, for x (sample, batch, d) and features (batch, f)."""
        lead = x.shape[:-1]
        given = x.new_ones(1) if features is None else features.to(x.dtype)
        theta = self.network(torch.cat((x, given.expand(*lead, given.shape[-1])), -1)).to(x.dtype)
        parts = theta.unflatten(-1, (self.size, -1)).split(self.shapes, -1)
        if self.bins is None:
            return DependentTransform(MonotonicAffineTransform(*(part.squeeze(-1) for part in parts), **_AFFINE), 1)
        return DependentTransform(MonotonicRQSTransform(*parts, **_SPLINE), 1)


@final
class AutoregressiveStack(nn.Module):
    """Layers of `Autoregressive`, alternating the order of the coordinates; called with features it gives a `Chain`.

    Args:
        size: d, the number of coordinates.
        features: width of the features, 0 for none.
        transforms: number of layers.
        hidden: widths of the hidden layers of each layer's network.
        bins: bins of the splines, at least 2; None for affine maps.
    """

    def __init__(self, size: int, features: int, transforms: int, hidden: tuple[int, ...], bins: int | None) -> None:
        super().__init__()
        self.size = size
        transforms = checks.positive_int(transforms, "the number of transforms")
        widths = tuple(checks.positive_int(width, "a hidden width") for width in hidden)
        bins = None if bins is None else checks.positive_int(bins, "the number of bins", minimum=2)
        self.layers = nn.ModuleList(
            Autoregressive(size, features, widths, bins, reverse=bool(index % 2)) for index in range(transforms)
        )

    def forward(self, features: Tensor | None = None) -> Chain:
        """The map for features (batch, f)."""
        return Chain(self.size, tuple(self.layers), features)


@final
@dataclass(frozen=True, eq=False)
class Chain:
    """y = f(x), autoregressive layers one after the other.

    Attributes:
        size: d, the number of coordinates.
        layers: `Autoregressive`, the first one is applied first.
        features: (batch, f); None where there are none.
        frozen: per layer, the parameters to use in place of its own; see `detach`.
    """

    size: int
    layers: tuple[nn.Module, ...]
    features: Tensor | None = None
    frozen: tuple[dict[str, Tensor], ...] | None = None

    def call(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x), (sample, batch, d), and log |det ∂f/∂x|, (sample, batch): one pass through each network."""
        total = torch.zeros_like(x[..., 0])
        for index in range(len(self.layers)):
            x, log_det = self._transform(index, x).call_and_ladj(x)
            total = total + log_det
        return x, total

    def inverse(self, y: Tensor) -> Tensor:
        """f⁻¹(y), (sample, batch, d): d passes through each network."""
        for index in reversed(range(len(self.layers))):
            y = AutoregressiveTransform(functools.partial(self._transform, index), self.size).inv(y)
        return y

    def detach(self) -> Chain:
        """The same map with features and parameters cut from the graph."""
        features = None if self.features is None else self.features.detach()
        frozen = tuple({name: p.detach() for name, p in layer.named_parameters()} for layer in self.layers)
        return Chain(self.size, self.layers, features, frozen)

    def _transform(self, index: int, x: Tensor) -> Any:
        layer = self.layers[index]
        if self.frozen is None:
            return layer(x, self.features)
        return functional_call(layer, self.frozen[index], (x, self.features))


@final
@dataclass(frozen=True, eq=False)
class Flow:
    """z = f(μ + σ ⊙ u): `push` takes one pass, `pull` and `log_prob` take d (Kingma et al. 2016).

    The affine map comes first, so that the layers see where in the latent space a row lies: they then sharpen the
    encoder's guess of μ as well as the shape of q. With the affine map last, on the same data, the ELBO of a fixed
    decoder was lower, by 1 nat where q is wide and by 6 to 27 where it is narrow.

    Attributes:
        base: N(μ, diag σ²), parameters (batch, d).
        chain: f.
    """

    base: Normal
    chain: Chain

    @property
    def size(self) -> int:
        """d, the number of latents."""
        return self.chain.size

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z, (sample, batch, d), and log q(z) = log N(u) − Σ log σ − log |det ∂f|, (sample, batch), nats."""
        start, log_base = self.base.push(u)
        z, log_det = self.chain.call(start)
        return z, log_base - log_det

    def pull(self, z: Tensor) -> Tensor:
        """u = (f⁻¹(z) − μ) / σ, (sample, batch, d)."""
        return self.base.pull(self.chain.inverse(z))

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(z), (sample, batch), nats, by way of f⁻¹(z)."""
        start = self.chain.inverse(x)
        _, log_det = self.chain.call(start)
        return self.base.log_prob(start) - log_det

    def detach(self) -> Flow:
        """The same flow with its parameters cut from the graph, those of its networks included."""
        return Flow(self.base.detach(), self.chain.detach())


@final
@dataclass(frozen=True, eq=False)
class DensityFlow:
    """u = f(z): `log_prob` and `pull` take one pass, `push` takes d (Papamakarios et al. 2017).

    Attributes:
        chain: f.
    """

    chain: Chain

    @property
    def size(self) -> int:
        """d, the number of latents."""
        return self.chain.size

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z = f⁻¹(u), (sample, batch, d), and log p(z) = log N(u) + log |det ∂f/∂z|, (sample, batch), nats."""
        z = self.chain.inverse(u)
        _, log_det = self.chain.call(z)
        return z, _log_standard(u) + log_det

    def pull(self, z: Tensor) -> Tensor:
        """u = f(z), (sample, batch, d)."""
        return self.chain.call(z)[0]

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(z) = log N(f(z)) + log |det ∂f/∂z|, (sample, batch), nats."""
        u, log_det = self.chain.call(x)
        return _log_standard(u) + log_det

    def detach(self) -> DensityFlow:
        """The same flow with its parameters cut from the graph, those of its networks included."""
        return DensityFlow(self.chain.detach())


def _log_standard(u: Tensor) -> Tensor:
    return -0.5 * (u.square().sum(-1) + u.shape[-1] * math.log(2 * math.pi))
