"""Functions whose derivatives are easily lost: written in place, mapped, complex, by NumPy. Right or refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from exact.test_forward import DOUBLE, LATENT, WIDE, Function, W, Z, agrees, hidden, reference, right
from torch import Tensor, nn
from torch.nn import functional

from vaelid import geometry

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # PyTorch's own


def right_or_refused(f: Function, twin: Function) -> None:
    """The metric of ``f`` is that of ``twin``, or there is an error that says something."""
    expected = reference(twin, Z)
    given = Z.clone()
    try:
        found = geometry.metric(f, given)
    except (RuntimeError, ValueError, TypeError) as error:
        said = str(error)
    else:
        said = ""
    if said:
        return
    assert torch.equal(given, Z)
    agrees(found, expected @ expected.mT)
    agrees(geometry.speed(f, Z, Z.sin()), torch.einsum("nj,njm->nm", Z.sin(), expected).norm(dim=1))


def changed(change: Callable[[Tensor], object], then: Function = torch.square) -> Function:
    """``change`` is done to a hidden layer in place, and the layer is used afterwards."""

    def f(z: Tensor) -> Tensor:
        h = hidden(z)
        change(h)
        return then(h)

    return f


def twin_of(change: Function, then: Function = torch.square) -> Function:
    return lambda z: then(change(hidden(z)))


def first_set(h: Tensor, value: object) -> None:
    h[:, 0] = value


def buffer(make: Callable[[Tensor], Tensor]) -> Function:
    """Columns written into a tensor that was made before."""

    def f(z: Tensor) -> Tensor:
        out = make(z)
        out[:, 0] = 2 * z[:, 0]
        out[:, 1:] = z[:, 1:] ** 2
        return out

    return f


def alias(z: Tensor) -> Tensor:
    h = hidden(z)
    other = h
    h *= h.tanh()
    return other


def view(z: Tensor) -> Tensor:
    h = hidden(z)
    some = h[:, :2]
    some *= 2
    return h


def beside(f: Callable[..., Tensor]) -> Function:
    """An activation in place on the way, and a use of what it changed."""
    return lambda z: (lambda h: f(h, inplace=True) + h)(hidden(z))


def in_buffer(change: Callable[[Tensor, Tensor], object]) -> Function:
    def f(z: Tensor) -> Tensor:
        out = torch.zeros_like(Z)
        change(out, z.sin())
        return out

    return f


WRITTEN = lambda z: torch.cat((2 * z[:, :1], z[:, 1:] ** 2), 1)  # noqa: E731
IN_PLACE: dict[str, tuple[Function, Function]] = {
    "relu_": (changed(lambda h: h.relu_()), twin_of(torch.relu)),
    "tanh_": (changed(lambda h: h.tanh_()), twin_of(torch.tanh)),
    "mul_": (changed(lambda h: h.mul_(2)), twin_of(lambda h: 2 * h)),
    "mul_ by itself": (changed(lambda h: h.mul_(h.tanh())), twin_of(lambda h: h * h.tanh())),
    "sub_": (changed(lambda h: h.sub_(1)), twin_of(lambda h: h - 1)),
    "clamp_": (changed(lambda h: h.clamp_(min=0.3)), twin_of(lambda h: h.clamp(min=0.3))),
    "masked_fill_": (changed(lambda h: h.masked_fill_(h < 0, 0.5)), twin_of(lambda h: h.masked_fill(h < 0, 0.5))),
    "one column set": (
        changed(lambda h: first_set(h, 3.0)), lambda z: torch.cat((9 + 0 * z[:, :1], hidden(z)[:, 1:] ** 2), 1)
    ),
    "one column set from z": (
        changed(lambda h: first_set(h, h[:, 1] ** 2)),
        lambda z: torch.cat((hidden(z)[:, 1:2] ** 4, hidden(z)[:, 1:] ** 2), 1),
    ),
    "alias": (alias, lambda z: hidden(z) * hidden(z).tanh()),
    "view": (view, lambda z: hidden(z) * torch.tensor([2.0, 2, 1, 1, 1], dtype=DOUBLE)),
    "buffer, empty": (buffer(lambda z: torch.empty(len(z), 3, dtype=DOUBLE)), WRITTEN),
    "buffer, zeros like z": (buffer(torch.zeros_like), WRITTEN),
    "buffer, new zeros": (buffer(lambda z: z.new_zeros(len(z), 3)), WRITTEN),
    "buffer, copy of z": (buffer(torch.clone), WRITTEN),
    "copy_": (in_buffer(lambda out, x: out[: len(x)].copy_(x)), torch.sin),
    "index_add_": (in_buffer(lambda out, x: out[: len(x)].index_add_(1, torch.arange(3), x)), torch.sin),
    "ReLU": (beside(functional.relu), lambda z: 2 * hidden(z).relu()),
    "ELU": (beside(functional.elu), lambda z: 2 * functional.elu(hidden(z))),
    "SiLU": (beside(functional.silu), lambda z: 2 * functional.silu(hidden(z))),
    "Hardswish": (beside(functional.hardswish), lambda z: 2 * functional.hardswish(hidden(z))),
    "Threshold": (
        lambda z: functional.threshold(hidden(z), 0.1, 20.0, inplace=True),
        lambda z: functional.threshold(hidden(z), 0.1, 20.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name: str) -> None:
    right_or_refused(*IN_PLACE[name])


@pytest.mark.parametrize("kind", [nn.ReLU, nn.ELU, nn.SiLU, nn.Hardswish, nn.ReLU6, nn.CELU])
def test_activations_in_place(kind: Callable[..., nn.Module]) -> None:
    """Layer after layer, as in much published code, these have to work."""
    first, last = nn.Linear(LATENT, WIDE).double(), nn.Linear(WIDE, 4).double()
    right(nn.Sequential(first, kind(inplace=True), last), nn.Sequential(first, kind(), last))


def test_residual_block_in_place() -> None:
    """out = relu_(bn(conv(relu_(bn(h))))) + h, out = relu_(out)."""
    first, last = nn.Linear(LATENT, WIDE).double(), nn.Linear(WIDE, WIDE).double()

    def block(z: Tensor, inplace: bool) -> Tensor:
        h = functional.relu(first(z), inplace=inplace)
        out = last(functional.relu(last(h), inplace=inplace))
        out += h
        return functional.relu(out, inplace=inplace)

    right_or_refused(lambda z: block(z, True), lambda z: block(z, False))


ROOTS = torch.tensor([[math.cos(2 * math.pi * k / 3), math.sin(2 * math.pi * k / 3)] for k in range(3)], dtype=DOUBLE)
AWAY: dict[str, tuple[Function, Function]] = {
    "mapped over rows": (torch.vmap(lambda z: torch.tanh(W @ z)), lambda z: torch.tanh(z @ W.T)),
    "mapped on the way": (lambda z: z[:, :1] + torch.vmap(torch.sin)(z), lambda z: z[:, :1] + z.sin()),
    "gradient": (lambda z: torch.func.grad(lambda z: (z**3).sum())(z), lambda z: 3 * z**2),
    "gradient of each row": (torch.vmap(torch.func.grad(lambda z: (z**3).sum())), lambda z: 3 * z**2),
    "Jacobian of each row": (
        torch.vmap(torch.func.jacrev(lambda z: z.sum().sin())), lambda z: z.sum(1, keepdim=True).cos() + 0 * z
    ),
    "spectrum": (
        lambda z: torch.fft.rfft(z).abs(), lambda z: torch.stack((z.sum(1).abs(), (z @ ROOTS).norm(dim=1)), 1)
    ),
    "filter": (lambda z: torch.fft.irfft(torch.fft.rfft(z[:, :2]) * 2, 2) + z[:, :2], lambda z: 3 * z[:, :2]),
    "complex": (lambda z: torch.complex(z[:, 0], z[:, 1]).abs()[:, None], lambda z: z[:, :2].norm(dim=1, keepdim=True)),
    "to complex and back": (lambda z: z.to(torch.complex128).real * 2 + z, lambda z: 3 * z),
    "polar": (
        lambda z: torch.view_as_real(torch.polar(z[:, 0].exp(), z[:, 1])),
        lambda z: z[:, :1].exp() * torch.stack((z[:, 1].cos(), z[:, 1].sin()), 1),
    ),
    "distances": (lambda z: torch.cdist(z, W), lambda z: (z[:, None] - W).norm(dim=2)),
    "turned gradient": (lambda z: torch.func.vjp(lambda z: z**3, z)[1](torch.ones_like(z))[0], lambda z: 3 * z**2),
    "polynomial": (lambda z: torch.special.legendre_polynomial_p(z, 2), lambda z: 1.5 * z**2 - 0.5),
    "Bessel": (lambda z: torch.special.spherical_bessel_j0(z) + z, lambda z: torch.sinc(z / math.pi) + z),
    "NumPy": (lambda z: torch.from_numpy(np.tanh(z.detach().numpy())), torch.tanh),
    "NumPy beside": (lambda z: z + torch.as_tensor(np.tanh(np.asarray(z))), lambda z: z + z.tanh()),
    "a new tensor": (lambda z: torch.tensor(z.tolist(), dtype=DOUBLE).tanh(), torch.tanh),
}  # fmt: skip


@pytest.mark.parametrize("name", AWAY)
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")
def test_other_ways(name: str) -> None:
    right_or_refused(*AWAY[name])


@pytest.mark.parametrize("make", [torch.jit.script, lambda f: torch.jit.trace(f, Z)], ids=["script", "trace"])
def test_compiled(make: Callable[[Function], Function]) -> None:
    net = nn.Sequential(nn.Linear(LATENT, WIDE), nn.Tanh(), nn.Linear(WIDE, 2)).double()
    right_or_refused(make(net), net)
    right_or_refused(make(doubled), lambda z: 2 * z.tanh())


def doubled(z: Tensor) -> Tensor:
    return z.tanh() * 2


class Square(torch.autograd.Function):
    """With a derivative by hand, and nothing for forward mode."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 2)

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> Tensor:
        return 2 * slope * ctx.saved_tensors[0]


@torch.library.custom_op("vaelid_tests::square", mutates_args=())
def square(x: Tensor) -> Tensor:
    """An operation of somebody else's, without any derivative."""
    return torch.from_numpy(x.detach().numpy() ** 2)


def test_operation_without_derivative() -> None:
    right_or_refused(square, torch.square)
    right_or_refused(lambda z: square(z) + z, lambda z: z**2 + z)


def test_derivative_by_hand() -> None:
    right_or_refused(Square.apply, torch.square)
    right_or_refused(
        lambda z: Square.apply(hidden(z)) + z.sum(1, keepdim=True), lambda z: hidden(z) ** 2 + z.sum(1, keepdim=True)
    )
