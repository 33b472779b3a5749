"""Forward-mode derivatives of embeddings, networks and ordinary functions against PyTorch's own transforms."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from exact.test_embeddings import EXACT, MEAN
from support import refused
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from vaelid import geometry, networks
from vaelid.geometry import forward
from vaelid.geometry.curvature import second_derivative
from vaelid.geometry.manifold import prepare
from vaelid.model import VAE
from vaelid.priors import StandardNormal
from vaelid.random import Key

KEY, DOUBLE, EPS = Key(5), torch.float64, torch.finfo(torch.float64).eps
ROWS, LATENT, WIDE = 4, 3, 5
Z = KEY.fold("z").normal((ROWS, LATENT), dtype=DOUBLE)
W, B, V = (
    KEY.fold("weights", place).normal(shape, dtype=DOUBLE)
    for place, shape in enumerate([(WIDE, LATENT), (WIDE,), (6, WIDE)])
)
MAP = KEY.fold("map").normal((2 * 6 * 6, LATENT), dtype=DOUBLE)
KERNEL, TURNED, SHIFT = (
    KEY.fold("kernels", place).normal(shape, dtype=DOUBLE)
    for place, shape in enumerate([(3, 2, 3, 3), (2, 3, 4, 4), (3,)])
)
Function = Callable[[Tensor], Tensor]
PERFORMANCE = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of loops inside vmap
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # PyTorch's own


def hidden(z: Tensor) -> Tensor:
    return functional.linear(z, W, B)


def image(z: Tensor) -> Tensor:
    return functional.linear(z, MAP).view(-1, 2, 6, 6)


def flat(f: Function) -> Function:
    return lambda z: f(z).flatten(1)


def reference(f: Function, z: Tensor) -> Tensor:
    """(n, d, D), by PyTorch's own transform, one axis after the other."""
    axes = forward.axes(z).contiguous()
    return torch.stack([torch.func.jvp(f, (z,), (axis,))[1] for axis in axes], 1).detach()


def agrees(found: Tensor, expected: Tensor, steps: float = 1e3) -> None:
    """To some rounding errors of the largest number."""
    size = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=steps * torch.finfo(found.dtype).eps * max(size, 1e-300))


def fast(f: Function, z: Tensor) -> tuple[Tensor, Tensor]:
    """φ and its Jacobian (n, d, D) by jets, which is what is taken for networks that ship."""
    value, tangents = forward.along(f, z, forward.axes(z))
    return value, tangents.movedim(0, 1)


def right(f: Function, twin: Function | None = None, z: Tensor = Z) -> None:
    """Values and derivatives of ``f``, along axes, one direction and many, are those of ``twin`` by PyTorch."""
    twin = f if twin is None else twin
    with torch.no_grad():
        value = twin(z.clone())
    expected = reference(twin, z)
    given = z.clone()
    manifold = prepare(f, z=given)[0]
    out, jacobian = manifold.jacobian(given)
    assert torch.equal(given, z)
    assert type(out) is type(jacobian) is Tensor
    assert not out.requires_grad
    assert not jacobian.requires_grad
    agrees(out, value)
    agrees(jacobian, expected)
    directions = KEY.fold("directions").normal((2 * z.shape[1] + 1, *z.shape), dtype=z.dtype)
    for some in (directions[:1], directions):
        out, tangents = manifold.along(z.clone(), some)
        agrees(out, value)
        agrees(tangents, torch.einsum("knj,njm->knm", some, expected))


# -- likelihoods and networks that ship --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
def test_embeddings(name: str) -> None:
    likelihood = EXACT[name].build()
    f = lambda z: likelihood.embedding(likelihood(z))  # noqa: E731
    z = torch.cat((Z[:2, :2], 4 * Z[2:, 1:]))
    _, jacobian = fast(f, z)
    agrees(jacobian, torch.stack([torch.func.jacfwd(lambda z: f(z[None])[0])(row) for row in z]).mT, 1e4)
    _, along = forward.derivative(f, z, torch.ones_like(z))
    agrees(along, jacobian.sum(1), 1e4)


@pytest.mark.parametrize("name", MEAN)
def test_means_and_planes(name: str) -> None:
    likelihood = MEAN[name].build()
    right(lambda z: likelihood.embedding(likelihood(z)), z=Z[:, :2])
    if name != "student-t":  # whose variance is infinite
        right(lambda z: likelihood(z).variance.flatten(1).sqrt(), z=Z[:, :2])
    if name != "zero-inflated":
        right(lambda z: torch.cat(likelihood.planes(likelihood(z))[:2], -1), z=Z[:, :2])


def test_mean_over_many_levels() -> None:
    """Differentiated once per cell, not once per direction."""
    likelihood = EXACT["discretised logistic"].build()
    f = geometry.mean_embedding(VAE(StandardNormal(2), likelihood).double())
    twin = lambda z: likelihood(z).mean.flatten(1)  # noqa: E731
    right(f, twin, Z[:, :2])
    assert not prepare(f, z=Z[:, :2])[0].plainly


NETWORKS = {
    "MLP": lambda: networks.MLP(LATENT, 7, (8, 9)),
    "linear": lambda: networks.MLP(LATENT, 7, ()),
    "Residual": lambda: networks.Residual(LATENT, (2, 3), width=8, depth=3, heads=2),
    "ConvDecoder": lambda: networks.ConvDecoder(LATENT, (2, 7, 6), channels=(3, 4), hidden=8),
    "deep ConvDecoder": lambda: networks.ConvDecoder(LATENT, (1, 5, 5), heads=2, channels=(4,), hidden=8, depth=2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    net = NETWORKS[name]().double().requires_grad_(name != "MLP")
    right(flat(net))
    out, jacobian = fast(flat(net.float()), Z.float())
    assert out.dtype == jacobian.dtype == torch.float32
    agrees(jacobian, reference(flat(net), Z.float()), 100)


@pytest.mark.parametrize("make", [networks.MLP, networks.Residual, networks.ConvDecoder])
def test_networks_with_context(make: Callable[..., nn.Module]) -> None:
    net = make(LATENT, (1, 4, 4), context=2).double()
    context = KEY.fold("context").normal((2,), dtype=DOUBLE)
    right(flat(lambda z: net(z, context.expand(len(z), -1))))


def test_large_products_in_single_precision() -> None:
    """Which run through oneDNN where the processor suits."""
    net = networks.MLP(8, 400, (256, 256))
    z = KEY.fold("large").normal((64, 8))
    out, jacobian = fast(net, z)
    net = net.double()
    with torch.no_grad():
        torch.testing.assert_close(out.double(), net(z.double()), rtol=0, atol=1e-5)
    agrees(jacobian.double().float(), reference(net, z.double()).float(), 100)


# -- functions of z ----------------------------------------------------------------------------------------------------


def modules() -> dict[str, Function]:
    """Layers of PyTorch's, in evaluation mode."""
    with KEY.fold("modules").seeding():
        made: dict[str, nn.Module] = {
            "BatchNorm1d": nn.Sequential(nn.Linear(LATENT, WIDE), nn.BatchNorm1d(WIDE), nn.ReLU()),
            "LayerNorm": nn.Sequential(nn.Linear(LATENT, WIDE), nn.LayerNorm(WIDE), nn.ELU(alpha=0.3)),
            "Dropout": nn.Sequential(nn.Linear(LATENT, WIDE), nn.Dropout(), nn.Dropout(inplace=True), nn.SiLU()),
            "PReLU": nn.Sequential(nn.Linear(LATENT, WIDE), nn.PReLU(WIDE), nn.LeakyReLU(0.3)),
            "GLU": nn.Sequential(nn.Linear(LATENT, 6), nn.GLU(), nn.Softmax(1)),
            "weight norm": nn.Sequential(parametrizations.weight_norm(nn.Linear(LATENT, WIDE)), nn.Tanh()),
            "GRU cell": nn.GRUCell(LATENT, WIDE),
            "images": nn.Sequential(
                nn.Linear(LATENT, 32), nn.Unflatten(1, (2, 4, 4)), nn.GroupNorm(2, 2), nn.Upsample(scale_factor=2),
                nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.PixelShuffle(2), nn.MaxPool2d(2),
                nn.ConvTranspose2d(1, 2, 3, stride=2, padding=1, output_padding=1), nn.Flatten(),
            ),
        }  # fmt: skip
    for module in made.values():
        for child in module.modules():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                child.running_mean.copy_(torch.linspace(-1, 1, child.num_features))
                child.running_var.copy_(torch.linspace(0.5, 2, child.num_features))
    return {name: module.double().eval() for name, module in made.items()}


def named_arguments(z: Tensor) -> Tensor:
    h = torch.add(torch.ones(LATENT, dtype=DOUBLE), other=z, alpha=3)
    h = torch.cat(tensors=(torch.sub(input=h, other=z), torch.tanh(input=h)), dim=1)
    return functional.linear(input=h, weight=torch.ones(2, 6, dtype=DOUBLE).triu(), bias=B[:2])


ARITHMETIC: dict[str, Function] = {
    "identity": lambda z: z,
    "constant": lambda z: torch.ones(len(z), 2, dtype=DOUBLE),
    "constant like z": lambda z: torch.ones_like(z) * z.new_tensor([1.0, 2.0, 3.0]),
    "reflected": lambda z: (1 - z) * (2 / z) + 3 * z - (-z) + (1 + z) + 2**z,
    "reflected tensors": lambda z: W[0] - z + W[1] * z + W[2] / z,
    "powers": lambda z: z**2 + z**3.0 + torch.pow(z.exp(), 0.3) + z.exp() ** z,
    "two of z": lambda z: z * z.sin() + z / z.exp() - z * z,
    "wider than z": lambda z: (W[:, None] * z).movedim(0, 1).flatten(1),
    "named arguments": named_arguments,
    "chains": lambda z: z.tanh().exp().square().add(1).log().neg().mul(3).sigmoid(),
    "chain, then more than one use": lambda z: (lambda h: torch.cat((h, h @ V[:3, :3], h.exp()), 1))(z.tanh().exp()),
    "where": lambda z: torch.where(z > 0, z**2, z.exp()) + torch.where(z > 0, z, 0.0),
    "clamp": lambda z: z.clamp(-0.5, 0.5) + torch.maximum(z, z.flip(1)) + torch.minimum(z, z * z) + z.abs(),
    "rounding": lambda z: z.round() * z + torch.div(z, 0.3, rounding_mode="floor") * z + z % 0.7 + z.sign(),
    "control flow": lambda z: z.square() if bool((z > 0).any()) else z,
    "softmax": lambda z: hidden(z).softmax(1) + functional.log_softmax(hidden(z), dim=1),
    "reductions": lambda z: torch.stack((z.sum(1), z.mean(1), z.prod(1), z.logsumexp(1), z.norm(dim=1), z.std(1)), 1),
    "cumulative": lambda z: z.cumsum(1) + z.cumprod(1) + z.logcumsumexp(1) + z.cummax(1).values,
    "products with z": lambda z: torch.cat(((z[:, :, None] @ z[:, None]).flatten(1), z @ W.T, (W @ z.T).T), 1),
    "more products": lambda z: torch.addmm(B, z, W.T) + torch.tensordot(z, W, dims=([1], [1])),
    "a vector": lambda z: torch.mv(z, W[0])[:, None] + torch.stack([torch.dot(row, row.sin()) for row in z])[:, None],
    "einsum": lambda z: torch.einsum("ni,ki,nk->nk", z, W, hidden(z)) + torch.einsum("ni,nj->n", z, z.sin())[:, None],
    "bilinear": lambda z: functional.bilinear(z, z.sin(), torch.stack((W[:3], W[2:]))),
    "weights made of z": lambda z: functional.linear(W, z).T + functional.conv1d(W[:, None], z[:, None])[:, :, 0].T,
    "pieces": lambda z: torch.cat((z, torch.stack([z[:, 0], z[:, 1].sin()], 1), z.chunk(3, 1)[1], z[:, [2, 0]]), 1),
    "more pieces": lambda z: torch.cat((*z.split([1, 2], 1)[::-1], z.unbind(1)[0][:, None], z.roll(1, 1)), 1),
    "rows one by one": lambda z: torch.stack([functional.linear(row, W, B) * row[0] for row in z]),
    "columns unpacked": lambda z: (lambda x, y, w: torch.stack((x * y, y / w), 1))(*z.T),
    "shapes": lambda z: z.unsqueeze(-1).expand(-1, -1, 2).reshape(len(z), 2, 3).permute(0, 2, 1).flatten(1),
    "places": lambda z: z.gather(1, z.argsort(1)) + z.sort(1).values + z.index_select(1, torch.tensor([0, 2, 1])),
    "masks": lambda z: z.masked_fill(z > 0.3, 2.0) + z.triu() + z[z > -100].view(z.shape),
    "scatter": lambda z: torch.zeros(len(z), 4, dtype=DOUBLE).index_add(1, torch.tensor([0, 1, 1]), z.square()),
    "linear algebra": lambda z: torch.linalg.solve(torch.diag_embed(z.exp()) + torch.ones(3, 3, dtype=DOUBLE), z),
    "factors": lambda z: torch.linalg.cholesky(torch.diag_embed(z.exp()) + torch.ones(3, 3, dtype=DOUBLE)).flatten(1),
    "spectrum": lambda z: torch.linalg.eigvalsh(torch.diag_embed(z) + torch.ones(3, 3, dtype=DOUBLE)),
    "normalised": lambda z: functional.normalize(z) + functional.cosine_similarity(z, W[:1])[:, None],
    "kernels": lambda z: torch.exp(-0.5 * (z[:, None] - W).square().sum(2)) @ V.T,
    "distribution": lambda z: torch.distributions.Normal(z, z.exp()).log_prob(W[0]),
    "attention": lambda z: functional.softmax(image(z).flatten(2) @ image(z).flatten(2).mT / 6, -1).flatten(1),
    "attention, three dimensions": flat(lambda z: functional.scaled_dot_product_attention(*[image(z).flatten(2)] * 3)),
    "activations": lambda z: functional.relu6(3 * z) + functional.softsign(z) + functional.hardswish(z),
    "activations' arguments": lambda z: functional.gelu(z, approximate="tanh")
    + functional.softplus(z, beta=3, threshold=5) + functional.celu(z, 0.4) + functional.leaky_relu(z, 0.3),
    "complex": lambda z: torch.exp(1j * z).real + (z * 1j).imag,
}  # fmt: skip
SPECIAL = "erf erfc erfinv expit gammaln digamma i0 i0e i1 i1e ndtr ndtri log_ndtr logit entr sinc erfcx exp2 log1p"
CONVOLUTIONS: dict[str, Function] = {
    "by position": lambda z: functional.conv2d(image(z), KERNEL, SHIFT, 2, 1),
    "by keyword": lambda z: functional.conv2d(image(z), weight=KERNEL, stride=2, bias=SHIFT, dilation=2, padding=2),
    "input by keyword": lambda z: functional.conv2d(input=image(z), weight=KERNEL, bias=SHIFT),
    "padding by name": lambda z: functional.conv2d(image(z), KERNEL, padding="same"),
    "no bias": lambda z: functional.conv2d(image(z), KERNEL, None, 1, (1, 0)) + 1,
    "no bias by keyword": lambda z: functional.conv2d(image(z), KERNEL, bias=None, stride=(1, 2)),
    "groups": lambda z: functional.conv2d(image(z), KERNEL.movedim(1, 0)[:, :1], groups=2),
    "after an activation": lambda z: functional.conv2d(image(z).tanh().exp(), KERNEL, SHIFT),
    "turned by position": lambda z: functional.conv_transpose2d(image(z), TURNED, SHIFT, 2, 1, 1),
    "turned by keyword": lambda z: functional.conv_transpose2d(image(z), TURNED, stride=2, bias=SHIFT),
    "turned, groups": lambda z: functional.conv_transpose2d(image(z), TURNED, None, 1, 0, 0, 2, 2),
    "one dimension": lambda z: functional.conv1d(image(z).flatten(2), KERNEL[..., 0], SHIFT, padding=1),
    "one dimension, turned": lambda z: functional.conv_transpose1d(image(z).flatten(2), TURNED[..., 0], SHIFT, 2),
    "three dimensions": lambda z: functional.conv3d(image(z)[:, :, None], KERNEL[:, :, None], SHIFT),
    "kernel made of z": lambda z: functional.conv2d(W[None, None], z[:, None, None]).movedim(1, 0),
}  # fmt: skip


@PERFORMANCE
@pytest.mark.parametrize("name", [*ARITHMETIC])
def test_functions(name: str) -> None:
    right(ARITHMETIC[name])


@PERFORMANCE
@pytest.mark.parametrize("name", [*modules()])
def test_modules(name: str) -> None:
    right(modules()[name])


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    right(flat(CONVOLUTIONS[name]))


@pytest.mark.parametrize("name", SPECIAL.split())
def test_special_functions(name: str) -> None:
    right(lambda z: getattr(torch.special, name)(z.sigmoid()))


# beside each the same function without the detail at hand
ORDINARY: dict[str, tuple[Function, Function]] = {
    "expanded": (lambda z: z[:, :1].expand(-1, 4) * 2, lambda z: z[:, :1] * z.new_full((4,), 2.0)),
    "broadcast": (
        lambda z: torch.distributions.Normal(z[:, :1], 1.0).cdf(W[0]), lambda z: torch.special.ndtr(W[0] - z[:, :1])
    ),
    "grid": (lambda z: torch.meshgrid(z[:, 0], W[0], indexing="ij")[0].exp(), lambda z: z[:, :1].exp() * W[0] / W[0]),
    "place of the largest": (lambda z: z.gather(1, z.max(1, keepdim=True).indices), lambda z: z.amax(1, keepdim=True)),
    "places in order": (lambda z: z.gather(1, z.sort(1).indices), lambda z: z.sort(1).values),
    "places of some": (lambda z: z.gather(1, z.topk(2).indices), lambda z: z.topk(2).values),
    "one row of weights": (lambda z: functional.linear(z, W[0])[:, None], lambda z: z @ W[:1].T),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_functions(name: str) -> None:
    right(*ORDINARY[name])


# -- PyTorch's own transform, and what both have to keep ---------------------------------------------------------------


TWICE: dict[str, Function] = {
    **{name: ARITHMETIC[name] for name in ("chains", "two of z", "softmax", "kernels", "attention", "linear algebra")},
    "LayerNorm": lambda z: functional.layer_norm(hidden(z), (WIDE,)).tanh(),
    "GroupNorm": lambda z: functional.group_norm(hidden(z) @ V.T, 2).tanh(),
    "InstanceNorm": lambda z: functional.instance_norm(image(z)).flatten(1).tanh(),
    "RMSNorm": lambda z: functional.rms_norm(hidden(z), (WIDE,)).tanh(),
}


WRONG_TWICE = {"linear algebra", "LayerNorm", "InstanceNorm"}  # in PyTorch 2.13


@pytest.mark.parametrize("name", TWICE)
def test_second_derivatives(name: str) -> None:
    """Against forward over reverse mode: PyTorch's forward mode, nested, is silently wrong for some operations.

    What is wrong has to be refused where second derivatives are needed.
    """
    f = TWICE[name]
    u, v = (KEY.fold("second", place).normal(Z.shape, dtype=DOUBLE) for place in range(2))
    found = second_derivative(geometry.Embedding(f), Z, u, v)
    hessian = torch.stack([torch.func.jacfwd(torch.func.jacrev(lambda z: f(z[None])[0]))(row) for row in Z])
    expected = torch.einsum("nmij,ni,nj->nm", hessian, u, v)
    if name in WRONG_TWICE:
        assert (found - expected).norm() > 0.05 * expected.norm()
        refused("second derivative", lambda: geometry.sectional_curvature(f, Z, u, v))
    else:
        agrees(found, expected, 1e4)


def test_one_latent_one_row_many_latents() -> None:
    for rows, latent in ((1, 1), (3, 1), (1, 40)):
        net = networks.MLP(latent, 5, (6,)).double()
        right(net, z=KEY.fold("sizes", latent).normal((rows, latent), dtype=DOUBLE))


def test_rows_do_not_matter_to_one_another() -> None:
    net = NETWORKS["Residual"]().double()
    _, jacobian = fast(flat(net), Z)
    for row in range(ROWS):
        torch.testing.assert_close(fast(flat(net), Z[row : row + 1])[1][0], jacobian[row], rtol=0, atol=1e-14)


def test_saturation() -> None:
    """Derivatives far out are those of PyTorch, 0 where they underflow; never NaN."""
    net = NETWORKS["MLP"]().double()
    for size in (1e2, 1e6):
        right(lambda z: net(z).sigmoid(), z=size * Z)
        right(lambda z: functional.softplus(net(z)).square(), z=size * Z)


def test_derivative_carries_a_graph() -> None:
    """For shooting and curvature; `along` carries none."""
    z = Z.clone().requires_grad_()
    _, tangent = forward.derivative(lambda z: z**3, z, torch.ones_like(z))
    (gradient,) = torch.autograd.grad(tangent.sum(), z)
    agrees(gradient, 6 * Z)
    out, tangents = forward.along(lambda z: z**3, z, torch.ones(1, *Z.shape, dtype=DOUBLE))
    assert not out.requires_grad
    assert not tangents.requires_grad


def test_derivatives_in_several_threads_at_once() -> None:
    """PyTorch counts the levels of its forward mode for the whole process, so that threads must take turns."""

    def slow(z: Tensor) -> Tensor:
        time.sleep(0.002)  # others come in between
        return torch.sin(z @ W.mT)

    def work(_: int) -> list[Tensor]:
        inner = lambda z: forward.derivative(slow, z, torch.ones_like(z))[1]  # noqa: E731
        return [forward.derivative(inner, Z, torch.ones_like(Z))[1] for _ in range(5)]

    wanted = -torch.sin(Z @ W.mT) * W.sum(1).square()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(4)):
            for each in found:
                torch.testing.assert_close(each, wanted)
