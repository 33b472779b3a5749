"""Large dense products on a CPU, through oneDNN where that is faster.

PyTorch's products go to a BLAS that uses vectors of 512 bits on one vendor's processors alone; oneDNN, which PyTorch
ships for convolutions, uses them wherever they are there, and is then up to twice as fast. Which of the two is taken
depends on the processor's instructions, the dtype and the shapes, on nothing that is measured, so results repeat.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LARGE = 10_000_000  # multiplications from which a product is worth the call


@functools.cache
def available() -> bool:
    """Whether this processor has vectors of 512 bits and this PyTorch has oneDNN."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return onednn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def mm(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """a b + c for a (n, k), b (k, m) and c (m,), of any strides; float32 on a CPU; records no gradient."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), c, "none", [], "")
    return out


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b for x (*rows, k), by the sooner of the two ways; records no gradient by the first."""
    if not suits(x, weight):
        return functional.linear(x, weight, bias)
    return mm(x.reshape(-1, x.shape[-1]), weight.t(), bias).view(*x.shape[:-1], -1)


@final
class _Linear(torch.autograd.Function):
    """x Wᵀ + b for x (n, k), W (m, k), b (m,) or None, and its first derivative by x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        """The product."""
        ctx.save_for_backward(weight)
        return mm(x, weight.t(), bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """slope · W. The derivatives by W and b would be formed at every call, wanted or not."""
        (weight,) = ctx.saved_tensors
        return mm(slope, weight), None, None


@final
class FastProducts(TorchFunctionMode):
    """Inside ``with FastProducts():`` large dense layers run through oneDNN.

    They have first derivatives by what goes in alone: their weights count as constants.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """``func(*args, **kwargs)``, by another way if it is a large dense layer."""
        if func is functional.linear and not kwargs and suits(*args):
            x, weight, *bias = args
            rows = x.reshape(-1, x.shape[-1])
            return _product(rows, weight, *bias).view(*x.shape[:-1], -1)
        return func(*args, **kwargs or {})


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not torch.is_grad_enabled():
        return mm(rows, weight.t(), bias)
    out: Tensor = _Linear.apply(rows, weight.detach(), None if bias is None else bias.detach())  # type: ignore[no-untyped-call]
    return out


def suits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether x Wᵀ, x (n, k) and W (m, k), is the sooner done by `mm`."""
    if not available():
        return False
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and type(x) is Tensor
    return plain and not torch._C._functorch.peek_interpreter_stack() and x.numel() * weight.shape[0] >= LARGE
