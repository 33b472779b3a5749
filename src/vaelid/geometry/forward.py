"""Forward-mode derivatives of functions of many rows: values, directional derivatives, Jacobians, D²φ[u, v].

A Jacobian of φ: (n, d) → (n, D) is d directional derivatives at the same points. `_Jet` carries a value together with
all of them, so that what depends on the value alone (a layer's product, the slope of an activation) is computed once
and not d times, and all tangents go through a dense layer as one product. An operation without a rule of its own is
differentiated by PyTorch, for itself. Reverse mode would take D passes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from vaelid.networks import products

Function = Callable[[Tensor], Tensor]
WORK = 2**22  # numbers of tangents that one pass of a Jacobian may hold: 16 MiB in float32, near what caches hold

_ELEMENTWISE = {
    *(functional.gelu, functional.silu, functional.softplus, functional.elu, functional.relu, functional.leaky_relu),
    *(functional.tanh, functional.sigmoid, functional.selu, functional.logsigmoid, functional.mish, functional.celu),
    *(torch.tanh, torch.sigmoid, torch.exp, torch.log, torch.sqrt, torch.atan, torch.asinh, torch.sin, torch.cos),
    *(torch.sinh, torch.cosh, torch.square, torch.relu, torch.expm1, torch.log1p, torch.rsqrt, torch.reciprocal),
    *(Tensor.tanh, Tensor.sigmoid, Tensor.exp, Tensor.log, Tensor.sqrt, Tensor.atan, Tensor.asinh, Tensor.sin),
    *(Tensor.cos, Tensor.sinh, Tensor.cosh, Tensor.square, Tensor.relu, Tensor.expm1, Tensor.log1p, Tensor.rsqrt),
    *(Tensor.reciprocal, Tensor.neg, torch.neg, torch.add, torch.sub, torch.mul, torch.div, Tensor.add, Tensor.sub),
    *(Tensor.mul, Tensor.div, Tensor.__radd__, Tensor.__rsub__, Tensor.__rmul__, Tensor.__rtruediv__),
}
_CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv_transpose1d, torch.conv_transpose2d}


@final
class _Jet(Tensor):
    """A value (n, …) with its derivatives along k directions: ``slope`` (n, …) times ``raw`` (k, n, …).

    The slopes of elementwise operations gather in ``slope``, so that a chain of them passes over the tangents once.
    """

    raw: Tensor
    slope: Tensor | None

    @staticmethod
    def of(value: Tensor, raw: Tensor, slope: Tensor | None = None) -> _Jet:
        """The two together."""
        jet = value.as_subclass(_Jet)
        jet.raw, jet.slope = raw, slope
        return jet

    @property
    def tangents(self) -> Tensor:
        """The derivatives, (k, n, …)."""
        if self.slope is not None:
            self.raw, self.slope = self.slope * self.raw, None
        return self.raw

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """``func`` of values and tangents."""
        with torch._C.DisableTorchFunctionSubclass():
            return _apply(func, args, kwargs or {})


def _apply(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    jet = next((arg for arg in args if type(arg) is _Jet), None)
    if jet is None or sum(type(leaf) is _Jet for leaf in pytree.tree_leaves((args, kwargs))) > 1:
        return _anything(func, args, kwargs)
    if func is functional.linear and jet is args[0]:
        return _linear(*args, **kwargs)
    if func in _CONVOLUTIONS and jet is args[0]:
        return _convolution(func, *args, **kwargs)
    if func in _ELEMENTWISE:
        value = _plain(jet)
        call = lambda x: func(*(x if arg is jet else arg for arg in args), **kwargs)  # noqa: E731
        out, slope = derivative(call, value, torch.ones_like(value))
        if out.shape == value.shape:
            return _Jet.of(out, jet.raw, slope if jet.slope is None else slope * jet.slope)
    return _anything(func, args, kwargs)


def _linear(jet: _Jet, weight: Tensor, bias: Tensor | None = None) -> _Jet:
    return _Jet.of(products.linear(_plain(jet), weight, bias), products.linear(jet.tangents, weight))


def _convolution(func: Any, jet: _Jet, weight: Tensor, bias: Tensor | None = None, *rest: Any, **named: Any) -> _Jet:
    named.pop("bias", None) if bias is None else None
    moved = func(jet.tangents.flatten(0, 1), weight, None, *rest, **named)
    return _Jet.of(func(_plain(jet), weight, bias, *rest, **named), moved.unflatten(0, jet.raw.shape[:2]))


def _anything(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation by PyTorch's own derivative, its tangents in one batch."""
    leaves, form = pytree.tree_flatten((args, kwargs))
    places = [place for place, leaf in enumerate(leaves) if type(leaf) is _Jet]
    values = tuple(_plain(leaves[place]) for place in places)

    def call(*jets: Tensor) -> Any:
        filled = list(leaves)
        for place, jet in zip(places, jets, strict=True):
            filled[place] = jet
        a, k = pytree.tree_unflatten(filled, form)
        return func(*a, **k)

    out = call(*values)
    flat, shape = pytree.tree_flatten(out)
    if func in _CONSTANT or not any(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in flat):
        return out
    tangents = tuple(leaves[place].tangents for place in places)
    moved = torch.vmap(lambda *t: jvp(call, values, t)[1])(*tangents)
    pairs = zip(flat, pytree.tree_leaves(moved), strict=True)
    return pytree.tree_unflatten([_Jet.of(value, tangent) for value, tangent in pairs], shape)


def cellwise(g: Callable[..., Tensor], *cells: Tensor) -> Tensor:
    """g of tensors of one shape, elementwise in each: with its slopes taken once, not along every direction."""
    if not any(type(each) is _Jet for each in cells):
        return g(*cells)
    with torch._C.DisableTorchFunctionSubclass():
        values = [_plain(each) for each in cells]
        out, moved = g(*values), None
        for place, jet in enumerate(cells):
            if type(jet) is _Jet:
                one = lambda x, place=place: g(*values[:place], x, *values[place + 1 :])  # noqa: E731
                slope = derivative(one, values[place], torch.ones_like(values[place]))[1]
                moved = slope * jet.tangents if moved is None else moved + slope * jet.tangents
        return out if moved is None else _Jet.of(out, moved)


_CONSTANT = {Tensor.detach, torch.detach, torch.zeros_like, torch.ones_like, torch.full_like, Tensor.new_tensor}


def _plain(jet: Tensor) -> Tensor:
    return jet.as_subclass(Tensor)


@torch.no_grad()
def along(f: Function, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """φ(z), (n, D), and its derivatives along ``directions`` (k, n, d): (k, n, D).

    Right for functions made of ordinary operations on ordinary tensors; whether a function is one is found out by
    comparison (`serves`), since what is written in place, mapped, compiled or complex goes past a jet unseen.
    """
    out = f(_Jet.of(z, directions))
    if type(out) is not _Jet:
        return out, out.new_zeros(len(directions), *out.shape)  # f does not depend on z
    return _plain(out), out.tangents


def along_plainly(f: Function, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The same by PyTorch's own transforms, slower, for any function that has forward derivatives."""
    moved = torch.vmap(lambda v: derivative(f, z, v)[1])(directions)
    return f(z).detach(), moved.detach()


def serves(f: Function, z: Tensor, v: Tensor, tangent: Tensor) -> bool:
    """Whether `along` gives ``tangent``, the derivative of f at z along v."""
    try:
        _, found = along(f, z.clone(), torch.stack((v, -2 * v)))
    except Exception:  # whatever an operation does when it meets a jet, there is the other way
        return False
    size = tangent.abs().amax()
    apart = torch.maximum((found[0] - tangent).abs().amax(), (found[1] + 2 * tangent).abs().amax())
    return bool((apart <= 1e-4 * size) | ~size.isfinite())


def is_of(f: Function, z: Tensor, v: Tensor, tangent: Tensor) -> bool:
    """Whether ``tangent`` is how f changes at z along v, as far as differences can tell.

    Coordinates in which two steps agree are believed; one in twenty of them may differ, by kinks.
    """
    step = torch.finfo(z.dtype).eps ** (1 / 3) * (1 + z.abs().amax())
    wide, narrow = ((f(z + h * v) - f(z - h * v)) / (2 * h) for h in (step, step / 2))
    size = narrow.abs()
    sure = ((wide - narrow).abs() <= 0.02 * size) & (size > 0.01 * size.amax())
    apart = sure & ((narrow - tangent).abs() > 0.05 * size)
    return bool(apart.sum() <= 0.05 * sure.sum())


def axes(z: Tensor) -> Tensor:
    """The d unit vectors at every point, (d, n, d)."""
    n, d = z.shape
    return torch.eye(d, dtype=z.dtype, device=z.device).unsqueeze(1).expand(d, n, d)


def derivative(f: Function, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """φ(z) and ∂φ along v, (n, D) each, by PyTorch's own transform, which nests and is differentiable."""
    value, tangent = jvp(f, (z,), (v,))
    return value, tangent


def jvp(f: Callable[..., Any], values: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Any, Any]:
    """`torch.func.jvp`, one thread at a time: PyTorch counts its levels for the whole process."""
    with _LEVELS:
        value, tangent, *_ = torch.func.jvp(f, values, tangents)
    return value, tangent


_LEVELS = threading.RLock()
