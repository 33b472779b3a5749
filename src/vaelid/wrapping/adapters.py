"""Networks of the user's own in the places that vaelid's boxes have for them, each with the reader of its output."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, final

from torch import Tensor, nn

from vaelid.distributions import Normal
from vaelid.errors import InputError, InputTypeError
from vaelid.posteriors import Posterior
from vaelid.wrapping.readers import apply, is_pair, shown


@final
class Decoder(nn.Module):
    """A decoder of the user's own with the reader of its output: (batch, latent) → (batch, heads · event[0], …).

    Args:
        network: a module, or a method of one.
        read: its output → one tensor.
    """

    def __init__(self, network: nn.Module | Callable[..., Any], read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.module, self.function = _owner(network, "decoder")
        self.read = _callable(read, "decoded")

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """What the reader read, (batch, …), contiguous.

        Raises:
            InputError: it is not one tensor with as many rows as z.
        """
        out = self.function(self.module, z) if context is None else self.function(self.module, z, context)
        raw = apply(self.read, out, "decoded")
        if not isinstance(raw, Tensor) or raw.ndim < 2 or raw.shape[0] != z.shape[0]:
            raise InputError(
                f"the decoder returned {shown(out)}, read as {shown(raw)}",
                f"one tensor ({z.shape[0]}, …), a row for each of z",
                "say how to read it: decoded=lambda out: …",
            )
        return raw.contiguous()


@final
class Encoder(Posterior):
    """q(z|x) = N(μ(x), diag σ(x)²) from an encoder of the user's own, which sees x itself.

    Args:
        network: a module, or a method of one.
        read: its output → μ and log σ, (batch, latent) each.
        features: x in the data's own units → what the network takes; x itself by default.
    """

    raw = True

    def __init__(
        self,
        network: nn.Module | Callable[..., Any],
        read: Callable[[Any], tuple[Tensor, Tensor]] | None,
        features: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.module, self.function = _owner(network, "encoder")
        if read is None:
            raise InputError(
                "an encoder, and nothing that says what it returns",
                "a reader of its output",
                "give encoded=vaelid.wrapping.log_variance, log_scale or scale, or a function of your own",
            )
        self.read = _callable(read, "encoded")
        self.features = None if features is None else _callable(features, "features")

    def forward(self, features: Tensor, context: Tensor | None = None) -> Normal:
        """Normal over z with parameters (batch, latent), for x (batch, *event).

        Raises:
            InputError: the reader did not give μ and log σ of one shape, a row for each of x.
        """
        x = features if self.features is None else self.features(features)
        out = self.function(self.module, x) if context is None else self.function(self.module, x, context)
        found = apply(self.read, out, "encoded")
        if not is_pair(found) or any(part.shape != (len(x), found[0].shape[-1]) for part in found):
            raise InputError(
                f"the encoder returned {shown(out)}, read as {shown(found)}",
                f"mean and log σ, ({len(x)}, latent) each",
                "say how to read it: encoded=lambda out: (mean, log σ)",
            )
        loc, log_scale = (part.to(features.dtype) for part in found)  # under autocast they come in half precision
        return Normal(loc, log_scale.exp())


def _owner(network: Any, name: str) -> tuple[nn.Module, Callable[..., Any]]:
    """The module whose parameters a network has, and the function to call with it."""
    if isinstance(network, nn.Module):
        return network, nn.Module.__call__
    if isinstance(network, MethodType) and isinstance(network.__self__, nn.Module):
        return network.__self__, network.__func__
    raise InputTypeError(
        f"{name}={getattr(network, '__name__', type(network).__name__)}",
        "a torch.nn.Module, or a method of one",
        "put the function into a module's forward, so that its parameters are known",
    )


def _callable(value: Any, name: str) -> Callable[..., Any]:
    if not callable(value):
        raise InputTypeError(f"{name} is a {type(value).__name__}", "a function")
    function: Callable[..., Any] = value
    return function
