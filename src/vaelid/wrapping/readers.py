"""Readers: functions from whatever a network of the user's own returned to what vaelid needs.

`single` and `logits` read a decoder's output; `log_variance`, `log_scale` and `scale` an encoder's. A function of one's
own does as well, and is how to pick by name:
``lambda out: vd.wrapping.log_variance((out["embedding"], out["log_covariance"]))``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vaelid.errors import InputError, first_line


def single(out: Any) -> Tensor:
    """The one tensor that a network returned, by itself or alone in a tuple, list, mapping or object.

    Raises:
        InputError: there is none, or more than one.
    """
    found = list(_tensors(out).values())
    if len(found) != 1:
        remedy = f"say which: decoded=lambda out: {_example(out)}"
        raise InputError(f"the decoder returned {shown(out)}", "one tensor", remedy)
    return found[0]


def logits(out: Any) -> Tensor:
    """log p − log(1 − p) of the one tensor of probabilities p that a decoder with a sigmoid returned.

    p is moved inside (0, 1) as far as its floating-point type makes it: up to the smallest normal number, down to the
    largest number below 1. In single precision logits then reach from −87 to 17; above, a sigmoid is 1 and has told
    no more. What is no probability becomes NaN, which `wrap` refuses.

    Raises:
        InputError: there is not one tensor.
    """
    p = single(out)
    limits = torch.finfo(p.dtype)
    inside = p.clamp(limits.tiny, 1 - limits.eps / 2)
    return torch.where((p >= 0) & (p <= 1), inside.log() - torch.log1p(-inside), math.nan)


def log_variance(out: Any) -> tuple[Tensor, Tensor]:
    """Mean and log σ from mean and log σ²: a pair in this order, or one tensor with the two side by side."""
    mean, value = _pair(out)
    return mean, 0.5 * value


def log_scale(out: Any) -> tuple[Tensor, Tensor]:
    """Mean and log σ, as they are: a pair in this order, or one tensor with the two side by side."""
    return _pair(out)


def scale(out: Any) -> tuple[Tensor, Tensor]:
    """Mean and log σ from mean and σ: a pair in this order, or one tensor with the two side by side."""
    mean, value = _pair(out)
    return mean, value.log()


def _pair(out: Any) -> tuple[Tensor, Tensor]:
    """A pair of tensors, or the halves of one along its dimension 1; nothing whose order is not plain."""
    if isinstance(out, Tensor) and out.ndim > 1 and out.shape[1] % 2 == 0:
        first, second = out.chunk(2, dim=1)
        return first, second
    if not is_pair(out):
        raise InputError(
            f"the encoder returned {shown(out)}",
            "a pair, the mean first, or one tensor with the two side by side",
            f"pick them: encoded=lambda out: vaelid.wrapping.log_variance(({_example(out, 2)}))",
        )
    return out[0], out[1]


def is_pair(out: Any) -> bool:
    """Whether a network returned two tensors in a plain order."""
    return isinstance(out, tuple | list) and len(out) == 2 and all(isinstance(part, Tensor) for part in out)


def _tensors(out: Any) -> dict[str, Tensor]:
    """The tensors that a network returned, each under the expression that picks it from ``out``."""
    if isinstance(out, Tensor):
        return {"out": out}
    if isinstance(out, Mapping):
        named = {f"out[{key!r}]": value for key, value in out.items()}
    elif isinstance(out, tuple | list):
        named = {f"out[{index}]": value for index, value in enumerate(out)}
    else:
        named = {f"out.{name}": value for name, value in getattr(out, "__dict__", {}).items()}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _example(out: Any, count: int = 1) -> str:
    """Expressions that pick ``count`` tensors from ``out``, as far as there are any."""
    return ", ".join([*_tensors(out), *["…"] * count][:count])


def shown(out: Any) -> str:
    """A network's output for a message: ``a tuple of out[0] (1, 8), out[1] (1, 8)``."""
    if isinstance(out, Tensor):
        return f"a tensor {tuple(out.shape)}"
    parts = ", ".join(f"{name} {tuple(value.shape)}" for name, value in _tensors(out).items())
    return f"a {type(out).__name__} of {parts or 'no tensors'}"


def apply(reader: Callable[[Any], Any], out: Any, name: str) -> Any:
    """What the reader given as the argument ``name`` reads from a network's output.

    Raises:
        InputError: it fails at that output.
    """
    try:
        return reader(out)
    except InputError:
        raise
    except (LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name}= cannot read {shown(out)} ({type(error).__name__}: {first_line(error)})",
            f"a function of what the {name[:-1]}r returned",
        ) from error
