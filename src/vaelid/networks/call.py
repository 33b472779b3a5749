"""How the boxes call a network, whoever wrote it."""

from __future__ import annotations

from torch import Tensor, nn

from vaelid.errors import InputTypeError


def call(network: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    """``network(x)``, or ``network(x, context)`` where there is a context (batch, c), in the dtype of x.

    Raises:
        InputTypeError: the network returns something else than one tensor.
    """
    out = network(x) if context is None else network(x, context)
    if not isinstance(out, Tensor):
        raise InputTypeError(
            f"{type(network).__name__} returned a {type(out).__name__}",
            "one tensor with the heads side by side",
            "join them: torch.cat((mean, log_scale), dim=1)",
        )
    return out.to(x.dtype)  # under autocast a network answers in half precision; the mathematics around it do not
