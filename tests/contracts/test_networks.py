"""Residual networks: shapes, where they start, forward-mode derivatives, and that depth 0 changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support import refused
from torch import Tensor, nn

from vaelid import networks, parts
from vaelid.networks.residual import Block
from vaelid.random import Key

KEY, ROWS = Key(41), 4

# name → network, shape of its input, shape of its output
NETWORKS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "residual": (lambda c: networks.Residual(6, 3, 16, 4, heads=2, context=c), (6,), (6,)),
    "residual image": (
        lambda c: networks.Residual((2, 3, 2), (2, 5, 4), 16, 2, heads=3, context=c),
        (2, 3, 2),
        (6, 5, 4),
    ),
    "encoder": (lambda c: networks.ConvEncoder((2, 9, 6), 3, 2, (4, 5), 8, c, depth=2), (2, 9, 6), (6,)),
    "decoder": (lambda c: networks.ConvDecoder(3, (2, 9, 6), 2, (4, 5), 8, c, depth=2), (3,), (4, 9, 6)),
}


def arguments(shape: tuple[int, ...], context: int) -> tuple[Tensor, ...]:
    x = KEY.fold("x").normal((ROWS, *shape))
    return (x, KEY.fold("context").normal((ROWS, context))) if context else (x,)


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_gradients_and_rebuilding(name: str, context: int) -> None:
    build, inputs, outputs = NETWORKS[name]
    network, given = build(context), arguments(inputs, context)
    out = network(*given)
    assert out.shape == (ROWS, *outputs)
    out.square().sum().backward()
    for p in network.parameters():
        assert p.grad is not None
        assert p.grad.isfinite().all()
        assert p.grad.abs().max() > 0
    again = parts.build(parts.describe(network))
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(*given), out)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # PyTorch's own, at the first jvp
@pytest.mark.parametrize("name", NETWORKS)
def test_forward_mode(name: str) -> None:
    """A Jacobian-vector product against central differences, float64."""
    build, inputs, _ = NETWORKS[name]
    network, (x,) = build(0).double(), arguments(inputs, 0)
    x, direction = x.double(), KEY.fold("direction").normal(tuple(x.shape), dtype=torch.float64)
    _, found = torch.func.jvp(network, (x,), (direction,))
    expected = (network(x + 1e-5 * direction) - network(x - 1e-5 * direction)) / 2e-5
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("depth", [1, 8, 64])
def test_a_deep_chain_starts_near_the_identity(depth: int) -> None:
    """With 1/√depth per block, what the blocks add does not grow with their number."""
    network = networks.Residual(64, 64, 64, depth)
    h = KEY.fold("h").normal((200, 64))
    added = network.blocks(h) - h
    assert isinstance(network.blocks[0], Block)
    assert len(network.blocks) == depth
    assert 0.01 < added.norm() / h.norm() < 0.35


@pytest.mark.parametrize(
    ("build", "pixels"),
    [
        (lambda **given: networks.ConvEncoder((1, 8, 8), 2, channels=(3, 4), hidden=5, **given), (1, 8, 8)),
        (lambda **given: networks.ConvDecoder(2, (1, 8, 8), channels=(3, 4), hidden=5, **given), (2,)),
    ],
    ids=["encoder", "decoder"],
)
def test_depth_zero_is_the_network_without_blocks(build: Callable[..., nn.Module], pixels: tuple[int, ...]) -> None:
    """Weights saved before there was a depth load, and a deeper network with blocks that add nothing agrees."""
    plain, deep = build(), build(depth=2)
    assert not any("blocks" in name or "body" in name for name in plain.state_dict())
    assert len(plain.state_dict()) == 8
    x = KEY.fold("x").normal((ROWS, *pixels))
    for block in deep.modules():
        if isinstance(block, Block):
            nn.init.zeros_(block.body[-1].weight)
            nn.init.zeros_(block.body[-1].bias)
    own = [value for name, value in deep.state_dict().items() if "body" not in name]
    plain.load_state_dict(dict(zip(plain.state_dict(), own, strict=True)))
    assert torch.allclose(plain(x), deep(x), atol=1e-6)


def test_no_depth() -> None:
    refused("the depth is 0; expected a whole number of at least 1", lambda: networks.Residual(2, 2, depth=0))
