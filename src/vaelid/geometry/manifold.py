"""Latent space with a metric: `Embedding`, a map into a target space that induces it, or `MetricField`, G(z) itself."""

from __future__ import annotations

import abc
import itertools
from dataclasses import dataclass, field, replace
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor, nn

from vaelid.errors import InputError, InputTypeError, first_line
from vaelid.geometry import forward
from vaelid.geometry.forward import Function
from vaelid.geometry.targets import Flat, Target
from vaelid.model import settled
from vaelid.networks.products import FastProducts


@dataclass(frozen=True, eq=False)
class Manifold(abc.ABC):
    """Latent space with a metric G(z).

    Attributes:
        function: what the metric is made of; rows must not depend on one another.
        name: what is measured, for people.
        latent: d, where it is known.
        like: a tensor of the dtype and on the device that the function takes; None where any will do.
        width: numbers that the function gives per row, once it was seen.
    """

    function: Function
    name: str = "a function of z"
    latent: int | None = None
    like: Tensor | None = None
    width: int = 0

    @abc.abstractmethod
    def metric(self, z: Tensor) -> Tensor:
        """G at z (n, d): (n, d, d)."""

    @abc.abstractmethod
    def squared_speed(self, z: Tensor, v: Tensor) -> Tensor:
        """vᵀ G(z) v for z, v (n, d): (n,)."""

    @abc.abstractmethod
    def lagrangian(self, z: Tensor, v: Tensor) -> Tensor:
        """½ vᵀ G(z) v, (n,), by PyTorch's own transforms, to be differentiated."""

    @abc.abstractmethod
    def path_energy(self, nodes: Tensor) -> Tensor:
        """Energy of curves (n, N + 1, d) by their N segments, at equal steps of time: (n,), float64."""

    def points(self, z: Any, name: str = "z") -> Tensor:
        """Checked latents (n, d) in the dtype and on the device that the function takes.

        Raises:
            InputError: another shape than (n, d), numbers that are not finite, or half precision.
        """
        values = tensor(z, name)
        if values.ndim != 2 or not values.numel() or self.latent not in (None, values.shape[1]):
            expected = f"(n, {'d' if self.latent is None else self.latent}), one row per point"
            raise InputError(f"{name} has shape {tuple(values.shape)}", expected)
        if not values.isfinite().all():
            row = int((~values.isfinite()).any(1).nonzero()[0])
            raise InputError(f"{name} holds numbers that are not finite in row {row}", "finite latents")
        return values if self.like is None else values.to(self.like)

    @torch.no_grad()
    def looked_at(self, z: Tensor) -> Self:
        """The same, its function tried on a few rows.

        Raises:
            InputError: it cannot take them, depends on chance or on other rows, or gives what has no metric.
        """
        if self.width and self.latent == z.shape[1]:
            return self
        rows = z[:2].contiguous()
        try:
            out, again, alone = self.function(rows), self.function(rows), self.function(rows[:1])
        except InputError:
            raise
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            batch = ". Put BatchNorm into evaluation mode: call .eval()" if "value per channel" in str(error) else ""
            raise InputError(
                f"the function cannot take z of shape {tuple(rows.shape)} ({first_line(error)})",
                f"a function of z (n, {z.shape[1]}){batch}",
            ) from error
        if not isinstance(out, Tensor):
            raise InputTypeError(f"the function returned a {type(out).__name__}", "a tensor with one row per point")
        if not out.is_floating_point() or out.dtype.itemsize < 4:
            raise InputTypeError(f"the function returned {_dtype(out)}", "float32 or float64", "call .float() on it")
        if out.ndim < 2 or len(out) != len(rows):
            raise InputError(
                f"the function returned shape {tuple(out.shape)} for z of shape {tuple(rows.shape)}",
                "one row of coordinates per point: (n, D)",
            )
        if not torch.equal(out.nan_to_num(), again.nan_to_num()):
            raise InputError(
                "the function gives other values at the same z each time", "one that does not depend on chance",
                "put dropout into evaluation mode: call .eval()",
            )  # fmt: skip
        if not out[0].numel():
            raise InputError("the function returned no coordinates", "(n, D), D ≥ 1")
        size = out[:1].abs().amax().clamp_min(torch.finfo(out.dtype).tiny)
        if bool((alone - out[:1]).abs().amax() > 1e-3 * size):
            raise InputError(
                "the function's value at a point depends on the points beside it", "rows that do not",
                "put BatchNorm into evaluation mode: call .eval()",
            )  # fmt: skip
        fitted = self._fitted(rows.to(out), out)
        return replace(fitted, width=out[0].numel(), latent=z.shape[1], like=out[:0, :0].flatten())

    @abc.abstractmethod
    def _fitted(self, z: Tensor, out: Tensor) -> Self:
        """The same, made fit for what the function gave at z; raises where that cannot be used."""


@final
@dataclass(frozen=True, eq=False)
class Embedding(Manifold):
    """φ: latents (n, d) → coordinates (n, D) in a target space, whose metric it pulls back: G = Jᵀ J.

    Attributes:
        target: the space in which the coordinates are.
        plainly: whether derivatives take the slower way, since the faster one does not serve this function.
    """

    target: Target = field(default_factory=Flat)
    plainly: bool = False

    def __call__(self, z: Tensor) -> Tensor:
        """φ(z), (n, D)."""
        out = self.function(z)
        return out if out.ndim == 2 else out.flatten(1)

    @torch.no_grad()
    def values(self, z: Tensor) -> Tensor:
        """φ of many points (n, d), in passes of bounded memory: (n, D)."""
        with FastProducts():
            return torch.cat([self(rows) for rows in torch.split(z, self.rows(1))])

    def jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """φ(z) (n, D) and ∂φ/∂z (n, d, D), in one pass."""
        value, tangents = self.along(z, forward.axes(z))
        return value, tangents.movedim(0, 1)

    def along(self, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """φ(z) (n, D) and its derivatives along ``directions`` (k, n, d): (k, n, D)."""
        return (forward.along_plainly if self.plainly else forward.along)(self, z, directions)

    def rows(self, tangents: int) -> int:
        """How many points one pass takes when each carries so many tangents."""
        return max(1, forward.WORK // (self.width * tangents))

    def metric(self, z: Tensor) -> Tensor:
        """Jᵀ J in orthonormal coordinates of the target."""
        found = []
        for rows in torch.split(z, self.rows(z.shape[1])):
            value, tangents = self.jacobian(rows)
            white = self.target.whiten(value.unsqueeze(1), tangents)
            found.append(white @ white.mT)
        return torch.cat(found)

    def squared_speed(self, z: Tensor, v: Tensor) -> Tensor:
        """|∂φ along v|²."""
        found = []
        for rows, directions in zip(torch.split(z, self.rows(1)), torch.split(v, self.rows(1)), strict=True):
            value, tangents = self.along(rows, directions.unsqueeze(0))
            found.append(self.target.whiten(value, tangents[0]).square().sum(1))
        return torch.cat(found)

    def path_energy(self, nodes: Tensor) -> Tensor:
        """The chord energy, N/2 Σ |r(φᵢ, φᵢ₊₁)|²."""
        n, size, d = nodes.shape
        values = self.values(nodes.reshape(-1, d)).view(n, size, -1)
        squares = self.target.residual(values[:, :-1], values[:, 1:]).square()
        return 0.5 * (size - 1) * squares.sum((1, 2), dtype=torch.float64)

    def lagrangian(self, z: Tensor, v: Tensor) -> Tensor:
        """½ |∂φ along v|²."""
        value, tangent = forward.derivative(self, z, v)
        return 0.5 * self.target.whiten(value, tangent).square().sum(1)

    def _fitted(self, z: Tensor, out: Tensor) -> Self:
        """Whether there is a derivative, and by which way."""
        v = torch.sin(torch.arange(1, z.shape[1] + 1, dtype=z.dtype, device=z.device)).expand_as(z).clone()
        try:
            tangent = forward.derivative(self, z, v)[1]
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            raise InputError(
                f"the function has no derivative in forward mode ({first_line(error)})",
                "operations of PyTorch on the tensor that it is given",
            ) from error
        if not forward.is_of(self, z, v, tangent):
            raise InputError(
                "the function's values change with z otherwise than its derivative says",
                "operations of PyTorch on the tensor that it is given",
                "NumPy, .item(), .detach() and torch.tensor(…) cut the derivative off",
            )
        return replace(self, plainly=not forward.serves(self, z, v, tangent))


@final
@dataclass(frozen=True, eq=False)
class MetricField(Manifold):
    """A metric given as G(z), (n, d) → (n, d, d), symmetric and positive definite: where there is no embedding.

    Geodesics are then found by `vaelid.geometry.georce`.
    """

    name: str = "a metric"

    def metric(self, z: Tensor) -> Tensor:
        """G(z)."""
        return self.function(z)

    def squared_speed(self, z: Tensor, v: Tensor) -> Tensor:
        """vᵀ G(z) v."""
        return torch.einsum("ni,nij,nj->n", v, self.function(z), v)

    def path_energy(self, nodes: Tensor) -> Tensor:
        """N/2 Σ Δᵀ G Δ with G in the middle of each segment."""
        n, size, d = nodes.shape
        middle, step = 0.5 * (nodes[:, :-1] + nodes[:, 1:]), nodes.diff(dim=1)
        squares = self.squared_speed(middle.reshape(-1, d), step.reshape(-1, d)).view(n, -1)
        return 0.5 * (size - 1) * squares.sum(1, dtype=torch.float64)

    def lagrangian(self, z: Tensor, v: Tensor) -> Tensor:
        """½ vᵀ G(z) v."""
        return 0.5 * self.squared_speed(z, v)

    def _fitted(self, z: Tensor, out: Tensor) -> Self:
        """G is (n, d, d), symmetric and positive definite."""
        d = z.shape[1]
        if out.shape[1:] != (d, d):
            raise InputError(f"the metric has shape {tuple(out.shape)}", f"(n, {d}, {d}) for {d} latents")
        if out.isfinite().all():
            if bool((out - out.mT).abs().amax() > 1e-4 * out.abs().amax()):
                raise InputError("a metric that is not symmetric", "G = Gᵀ")
            if bool(torch.linalg.eigvalsh(out)[:, 0].amin() <= 0):
                raise InputError("a metric that is not positive definite", "vᵀ G v > 0 for all v")
        return self


def prepare(f: Any, **given: Any) -> tuple[Any, ...]:
    """What ``f`` is as a manifold, tried out, and the checked points of each name, (n, d) each.

    ``f`` is a `Manifold`, a `torch.nn.Module` or any function (n, d) → (n, D); a module is called in evaluation mode.

    Raises:
        InputError: see `Manifold.points` and `Manifold.looked_at`.
        InputTypeError: f cannot be called.
    """
    manifold = as_manifold(f)
    found = [manifold.points(z, name) for name, z in given.items()]
    widths = {z.shape[1] for z in found}
    if len(widths) > 1:
        shapes = " and ".join(f"{name} {tuple(z.shape)}" for name, z in zip(given, found, strict=True))
        raise InputError(f"points of unlike sizes: {shapes}", "the same number of latents")
    looked = manifold.looked_at(found[0])
    return (looked, *(z.to(looked.like) for z in found))


def as_manifold(f: Any) -> Manifold:
    """``f`` as a manifold: itself, or the embedding that a module or function is.

    Raises:
        InputTypeError: it cannot be called, or is a model without the choice of a metric.
    """
    if isinstance(f, Manifold):
        return f
    if isinstance(f, nn.Module):
        module = f

        def call(z: Tensor) -> Tensor:
            with settled(module):
                out: Tensor = module(z)
            return out

        held = next((each for each in itertools.chain(f.parameters(), f.buffers()) if each.is_floating_point()), None)
        return Embedding(call, type(f).__name__, like=None if held is None else held.detach()[..., :0])
    if not callable(f):
        raise InputTypeError(f"a {type(f).__name__}", "vaelid.geometry.embedding(model), or a function of z")
    return Embedding(f, getattr(f, "__name__", "a function of z").replace("<lambda>", "a function of z"))


def pairs(a: Tensor, b: Tensor, names: tuple[str, str] = ("a", "b")) -> tuple[Tensor, Tensor]:
    """Points of equal number; one point goes with each of many.

    Raises:
        InputError: the numbers differ.
    """
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise InputError(
            f"{len(a)} points {names[0]} and {len(b)} points {names[1]}", "as many of one as of the other, or one"
        )
    rows = max(len(a), len(b))
    return a.expand(rows, -1).contiguous(), b.expand(rows, -1).contiguous()


def tensor(z: Any, name: str) -> Tensor:
    """Numbers as a tensor of single or double precision, without a graph.

    Raises:
        InputTypeError: they are no numbers, or of half precision, complex or boolean.
    """
    try:
        values = z.detach() if isinstance(z, Tensor) else torch.from_numpy(np.array(z))
    except (TypeError, ValueError) as error:
        raise InputTypeError(
            f"{name} is a {type(z).__name__} ({first_line(error)})", "numbers of shape (n, d)"
        ) from error
    if values.dtype in (torch.float16, torch.bfloat16):
        raise InputTypeError(
            f"{name} in {_dtype(values)}", "float32 or float64",
            "geodesics are made of small differences; call .float() on model and latents",
        )  # fmt: skip
    if values.is_complex() or values.dtype == torch.bool:
        raise InputTypeError(f"{name} in {_dtype(values)}", "float32 or float64")
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
