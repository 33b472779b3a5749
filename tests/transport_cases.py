"""One value of every transport, float64, with the tensors it is made of, for several files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaelid.distributions import Normal
from vaelid.random import Key
from vaelid.transports import AutoregressiveStack, DensityFlow, Flow, FullNormal, MixtureOfNormals, Planar
from vaelid.types import Transport

FEATURES, COMPONENTS = 3, 3


@dataclass(frozen=True, eq=False)
class Case:
    """``make()`` builds the transport from ``leaves``, tensors with gradients."""

    leaves: list[Tensor]
    make: Callable[[], Transport]


def case(name: str, d: int = 3, batch: tuple[int, ...] = (2,), dtype: torch.dtype = torch.float64) -> Case:
    """The transport ``name`` over d latents, with parameters of shape (*batch, …)."""
    key = Key(11).fold(name, d, *batch)

    def leaf(what: str, *shape: int, scale: float = 1.0) -> Tensor:
        return (scale * key.fold(what).normal((*batch, *shape), dtype=torch.float64)).to(dtype).requires_grad_()

    def tril(entries: Tensor, log_scale: Tensor) -> Tensor:
        return torch.tril(entries, -1) + torch.diag_embed(log_scale.exp())

    def flow(bins: int | None, features: int = FEATURES) -> tuple[list[Tensor], AutoregressiveStack]:
        with key.fold("weights").seeding():
            stack = AutoregressiveStack(d, features, 2, (8, 8), bins).to(dtype)
            for parameter in stack.parameters():
                nn.init.normal_(parameter, std=0.4)  # a fresh flow is the identity
        return list(stack.parameters()), stack

    loc, log_scale = leaf("loc", d), leaf("log scale", d, scale=0.4)
    match name:
        case "diagonal":
            return Case([loc, log_scale], lambda: Normal(loc, log_scale.exp()))
        case "full":
            entries = leaf("entries", d, d, scale=0.5)
            return Case([loc, log_scale, entries], lambda: FullNormal(loc, tril(entries, log_scale)))
        case "mixture" | "mixture of full":
            logits = leaf("logits", COMPONENTS)
            locs = leaf("locs", COMPONENTS, d, scale=2.0)
            log_scales = leaf("log scales", COMPONENTS, d, scale=0.4)
            if name == "mixture":
                return Case(
                    [logits, locs, log_scales], lambda: MixtureOfNormals(logits, Normal(locs, log_scales.exp()))
                )
            many = leaf("entries", COMPONENTS, d, d, scale=0.5)
            return Case(
                [logits, locs, log_scales, many],
                lambda: MixtureOfNormals(logits, FullNormal(locs, tril(many, log_scales))),
            )
        case "planar":
            # gentle, so that q has no valleys that samples miss
            u, w, b = leaf("u", 4, d, scale=0.5), leaf("w", 4, d, scale=0.5), leaf("b", 4)
            return Case([loc, log_scale, u, w, b], lambda: Planar(Normal(loc, log_scale.exp()), u, w, b))
        case "iaf" | "spline":
            weights, stack = flow(8 if name == "spline" else None)
            features = leaf("features", FEATURES)
            return Case(
                [loc, log_scale, features, *weights], lambda: Flow(Normal(loc, log_scale.exp()), stack(features))
            )
        case "affine density" | "spline density":
            weights, stack = flow(8 if name == "spline density" else None, FEATURES if batch else 0)
            if not batch:
                return Case(weights, lambda: DensityFlow(stack()))
            features = leaf("features", FEATURES)
            return Case([features, *weights], lambda: DensityFlow(stack(features)))
    raise ValueError(name)


INVERTIBLE = [
    "diagonal",
    "full",
    "mixture",
    "mixture of full",
    "iaf",
    "spline",
    "affine density",
    "spline density",
]
ALL = [*INVERTIBLE, "planar"]
