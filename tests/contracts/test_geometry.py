"""Geodesics and what follows from them over every kind of function and model, and what is refused, in one line."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from exact.test_embeddings import EXACT, LATENT, Box
from support import refused
from torch import Tensor, nn

from vaelid import geometry, networks
from vaelid.errors import InputTypeError
from vaelid.geometry import MetricField, Status
from vaelid.geometry.georce import georce
from vaelid.model import VAE
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key

KEY, DOUBLE = Key(29), torch.float64
A, B = KEY.fold("a").normal((5, 2), dtype=DOUBLE), KEY.fold("b").normal((5, 2), dtype=DOUBLE)
POINTS = KEY.fold("points").normal((30, 2), dtype=DOUBLE)
FIELD = MetricField(lambda z: (1 + z.square().sum(1))[:, None, None] * torch.eye(z.shape[1], dtype=z.dtype))
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own


def bowl(z: Tensor) -> Tensor:
    """A paraboloid."""
    return torch.cat((z, 0.5 * z.square().sum(1, keepdim=True)), 1)


def model(box: Box) -> VAE:
    with KEY.fold("encoder").seeding():
        encoder = networks.MLP(4 * (3 if box.family == "categorical" else 1), 2 * LATENT, (4,))
    return VAE(StandardNormal(LATENT), box.build(), DiagonalNormal(encoder)).double().requires_grad_()


def honest(found: geometry.Geodesics) -> None:
    """Shapes, finite numbers where a search converged, bounds in order, no graph, a reason for everything."""
    n = len(found.path)
    for name in ("status", "iterations", "decrement", "energy", "length", "chord", "error", "straight_energy"):
        value = getattr(found, name)
        assert value.shape == (n,)
        assert not value.requires_grad
    assert not found.path.requires_grad
    done = found.converged
    for value in (found.length, found.energy, found.error, found.chord, found.distance, found.path.flatten(1).sum(1)):
        assert bool(value[done].isfinite().all())
    length, error = found.length[done], found.error[done]
    assert bool((found.chord[done] <= length + error + 1e-5 * length).all())
    # rounding of the dtype may add to a straight line's energy
    assert bool((found.energy[done] <= (1 + 1e-4) * found.straight_energy[done] + 1e-12).all())
    assert len(found.reasons()) == n
    assert str(found)


def same(found: geometry.Geodesics, other: geometry.Geodesics, rows: Any = slice(None)) -> None:
    """To rounding: products over other numbers of rows may be summed in another order."""
    assert torch.equal(found.status[rows], other.status)
    for name in ("path", "length", "energy", "chord"):
        torch.testing.assert_close(getattr(found, name)[rows], getattr(other, name), rtol=1e-9, atol=1e-9)


# -- endpoints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("f", "starts"), [(bowl, 1), (bowl, 3), (torch.tanh, 1), (torch.tanh, 3), (FIELD, 1)])
def test_identical_endpoints(f: Any, starts: int) -> None:
    for scale in (1.0, 1e3):  # far out, where rounding must not look like a way
        a = (scale * A).float()
        found = geometry.geodesic(f, a, torch.cat((a[:2], B[2:].float())), starts=starts, segments=8)
        honest(found)
        assert bool(found.converged[:2].all())
        for name in ("length", "energy", "chord", "distance", "error"):
            assert getattr(found, name)[:2].tolist() == [0, 0]
        assert bool((found.length[2:] > 0).all())
        assert bool((found.path[:2] == a[:2, None]).all())


def test_identical_endpoints_elsewhere() -> None:
    graph = geometry.Graph.build(bowl, POINTS)
    found = geometry.geodesic(bowl, A, A, graph=graph)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.length, torch.zeros(5, dtype=DOUBLE), rtol=0, atol=1e-6)
    velocity, _ = geometry.log_map(bowl, A, A, segments=8)
    torch.testing.assert_close(velocity, torch.zeros_like(A), rtol=0, atol=1e-9)
    shot = geometry.exp_map(bowl, A, 0 * A, steps=2)
    assert torch.equal(shot.end, A)
    mean = geometry.frechet_mean(bowl, A[:1])
    torch.testing.assert_close(mean.mean, A[0], rtol=0, atol=1e-9)
    assert mean.variance == pytest.approx(0, abs=1e-12)
    assert mean.status == Status.CONVERGED


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("size", [30.0, 1e3, 1e8])
def test_endpoints_far_off(size: float, dtype: torch.dtype) -> None:
    """Of a decoder that is saturated there, whose Jacobian may vanish to the last bit."""
    net = networks.MLP(2, 6, (8,)).to(dtype)
    for f in (lambda z: net(z).sigmoid(), torch.tanh, lambda z: net(z).exp()):
        honest(geometry.geodesic(f, size * A.to(dtype), size * B.to(dtype), segments=8, iterations=10))


def broken(z: Tensor) -> Tensor:
    return bowl(z) / (z[:, :1] < 50)  # infinite and NaN beyond


def test_a_function_that_is_never_finite() -> None:
    found = geometry.geodesic(lambda z: z * torch.nan, A, B)
    assert set(found.status.tolist()) == {int(Status.BROKEN)}
    assert set(found.reasons()) == {"the function is not finite at or between the endpoints"}
    assert not bool(found.converged.any())
    text = str(found)
    assert text.startswith("5 geodesics, 0 converged")
    assert "5: the function is not finite" in text


@pytest.mark.parametrize("options", [{}, {"starts": 3}], ids=["one start", "three"])
def test_one_pair_that_fails(options: dict[str, Any]) -> None:
    """Leaves the others as they are, and says why."""
    b = B.clone()
    b[2, 0] = 100
    found = geometry.geodesic(broken, A, b, **options)
    honest(found)
    others = torch.tensor([0, 1, 3, 4])
    same(found, geometry.geodesic(broken, A[others], b[others], **options), others)
    same(found, geometry.geodesic(bowl, A[others], b[others], **options), others)
    assert found.converged.tolist() == [True, True, False, True, True]
    assert "not finite" in found.reasons()[2]


def test_one_pair_that_fails_elsewhere() -> None:
    """Under a metric, through a graph, in matrices of distances and among neighbours."""
    field = MetricField(lambda z: FIELD.function(z) / (z[:, 0] < 50)[:, None, None])
    b = B.clone()
    b[2, 0] = 100
    others = torch.tensor([0, 1, 3, 4])
    found = geometry.geodesic(field, A, b)
    assert found.converged.tolist() == [True, True, False, True, True]
    same(found, geometry.geodesic(FIELD, A[others], b[others]), others)
    found = geometry.geodesic(broken, A, b, graph=geometry.Graph.build(broken, POINTS))
    assert found.converged.tolist() == [True, True, False, True, True]
    z = torch.cat((A, torch.tensor([[100.0, 0.0]], dtype=DOUBLE)))
    table = geometry.distances(broken, z)
    assert table.converged[:5, :5].all()
    assert not table.converged[:5, 5].any()
    assert bool(table.length[:5, :5].isfinite().all())
    assert table.converged_share == pytest.approx(20 / 30)
    near = geometry.nearest(broken, A, z, k=2, among=6)
    assert not near.converged.any()
    assert bool((near.index != 5).all())
    assert near.index[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_iterations_run_out() -> None:
    found = geometry.geodesic(lambda z: torch.sin(3 * z), A, B, iterations=0)
    assert "the iterations ran out" in "".join(found.reasons())
    assert found.iterations.tolist() == [0] * 5
    honest(found)


def test_few_pairs_and_latents() -> None:
    one = geometry.geodesic(bowl, A[:1], B)
    honest(one)
    same(one, geometry.geodesic(bowl, A[:1].expand(5, -1), B))
    same(geometry.geodesic(bowl, B, A[:1]), geometry.geodesic(bowl, B, A[:1].expand(5, -1)))
    line = geometry.geodesic(lambda z: torch.cat((z.cos(), z.sin()), 1), [[0.0]], [[2.0]])
    honest(line)
    assert line.length.item() == pytest.approx(2.0, abs=1e-5)
    assert line.path.shape == (1, 33, 1)


def test_many_latents() -> None:
    """64: speeds, lengths, metrics and paths."""
    net = networks.MLP(64, 30, (40,)).double()
    z, v, w = (0.3 * KEY.fold("many", place).normal((3, 64), dtype=DOUBLE) for place in range(3))
    metric = geometry.metric(net, z)
    assert metric.shape == (3, 64, 64)
    torch.testing.assert_close(geometry.speed(net, z, v), torch.einsum("ni,nij,nj->n", v, metric, v).sqrt())
    path = geometry.geodesic(net, z, w, segments=8)
    honest(path)
    straight = torch.stack([z + t * (w - z) for t in torch.linspace(0, 1, 9, dtype=DOUBLE)], 1)
    assert bool((path.length <= geometry.length(net, straight) + 1e-6).all())
    assert bool((geometry.energy(net, straight) >= 0.5 * geometry.length(net, straight) ** 2).all())
    assert bool((geometry.log_volume(net, z) == -math.inf).any() or (geometry.log_volume(net, z) < -100).any())


# -- modules and closures ----------------------------------------------------------------------------------------------


def noisy() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Tanh(), nn.Linear(8, 4)).double()


def test_module_in_training_mode() -> None:
    """It is used in evaluation mode and left as it was, running statistics and gradients included."""
    net = noisy()
    net[3].eval()
    before, modes = copy.deepcopy(net.state_dict()), [child.training for child in net.modules()]
    found = geometry.geodesic(net, A, B)
    geometry.metric(net, A)
    geometry.sectional_curvature(net, A, B, B.flip(1))
    geometry.exp_map(net, A, 0.1 * B, steps=1)
    geometry.log_map(net, A, B, segments=8)
    geometry.frechet_mean(net, A)
    honest(found)
    assert [child.training for child in net.modules()] == modes
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    same(found, geometry.geodesic(copy.deepcopy(net).eval(), A, B))


def test_closures_over_modules_in_training_mode() -> None:
    net = noisy()
    refused("call .eval()", lambda: geometry.geodesic(lambda z: net(z), A, B))
    statistics = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    refused("BatchNorm into evaluation mode", lambda: geometry.geodesic(lambda z: statistics(z), A, B))
    refused("BatchNorm into evaluation mode", lambda: geometry.metric(lambda z: statistics(z), A[:1]))
    chance = nn.Dropout()
    refused("depend on chance", lambda: geometry.geodesic(lambda z: chance(bowl(z)), A, B))
    refused("points beside it", lambda: geometry.metric(lambda z: z - z.mean(0), A))


def test_parameters_that_need_gradients() -> None:
    """Nothing of them gets into a result."""
    net = networks.MLP(2, 4, (6,)).double()
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    found = geometry.geodesic(net, a, b, segments=8)
    honest(found)
    graph = geometry.Graph.build(net, POINTS.clone().requires_grad_())
    results = [
        geometry.metric(net, a), geometry.speed(net, a, b), geometry.log_volume(net, a),
        geometry.length(net, found.path), geometry.exp_map(net, a, b, steps=1).path,
        geometry.log_map(net, a, b, segments=8)[0], *geometry.distance_gradient(net, found),
        geometry.parallel_transport(net, found.path, a), geometry.frechet_mean(net, a).path,
        geometry.sectional_curvature(net, a, b, b.flip(1)), graph.embedded, geometry.distances(net, a).length,
        geometry.nearest(net, a, b, among=2).length, georce(FIELD, found.path, 1e-3, 2).nodes,
    ]  # fmt: skip
    assert not any(result.requires_grad for result in results)
    assert a.grad is None
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


# -- what is taken and what is refused ---------------------------------------------------------------------------------


def test_numbers_of_many_kinds() -> None:
    expected = geometry.geodesic(bowl, torch.tensor([[0.0, 1.0], [1.0, 2.0]]), torch.tensor([[2.0, 1.0], [0.0, 0.0]]))
    a, b = [[0, 1], [1, 2]], [[2, 1], [0, 0]]
    kinds: list[Callable[[Any], Any]] = [
        lambda x: x, np.array, torch.tensor, lambda x: np.array(x, np.uint8),
        lambda x: torch.tensor(x, dtype=torch.int8), lambda x: np.array(x, np.float32, order="F"),
        lambda x: tuple(map(tuple, x)),
    ]  # fmt: skip
    for kind in kinds:
        found = geometry.geodesic(bowl, kind(a), kind(b))
        assert found.path.dtype == torch.float32
        same(found, expected)
    double = geometry.geodesic(bowl, np.array(a, float), np.array(b, float))
    assert double.path.dtype == DOUBLE
    net = networks.MLP(2, 3, (4,)).double()
    assert geometry.geodesic(net, a, b).path.dtype == DOUBLE  # as the module has it
    assert geometry.metric(net, A.float()).dtype == DOUBLE


def test_arrays_that_cannot_be_written() -> None:
    """As columns of a frame may be; there is no warning."""
    a = A.numpy().copy()
    a.flags.writeable = False
    assert torch.equal(geometry.metric(bowl, a), geometry.metric(bowl, A))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    refused(f"a in {name}.*float32 or float64", lambda: geometry.geodesic(bowl, A.to(dtype), B), error=InputTypeError)
    refused(f"b in {name}", lambda: geometry.geodesic(bowl, A, B.to(dtype)), error=InputTypeError)
    refused(f"z in {name}", lambda: geometry.metric(bowl, A.to(dtype)), error=InputTypeError)
    refused(f"returned {name}", lambda: geometry.metric(lambda z: bowl(z).to(dtype), A), error=InputTypeError)
    net = networks.MLP(2, 3, (4,)).to(dtype)
    refused(f"{name}.*float32 or float64", lambda: geometry.geodesic(net, A, B), error=InputTypeError)


def test_endpoints_that_are_not_numbers() -> None:
    a = A.clone()
    a[3, 1] = math.nan
    refused("a holds numbers that are not finite in row 3", lambda: geometry.geodesic(bowl, a, B))
    refused("b holds numbers that are not finite in row 0", lambda: geometry.geodesic(bowl, B, a / 0))
    refused("z holds .* row 3", lambda: geometry.distances(bowl, a))
    refused("points holds .* row 3", lambda: geometry.Graph.build(bowl, a))
    for odd in ("text", [["a", "b"]], None, [[1, 2], [3]], A.to(torch.complex64), A > 0, {"a": 1}):
        refused("a ", lambda odd=odd: geometry.geodesic(bowl, odd, B))


def test_shapes() -> None:
    for odd in (A[0], A[None], A[:0], A[:, :0], torch.tensor(1.0)):
        refused(r"a has shape .*\(n, d\)", lambda odd=odd: geometry.geodesic(bowl, odd, B))
        refused(r"b has shape .*\(n, d\)", lambda odd=odd: geometry.geodesic(bowl, A, odd))
    refused("5 points a and 3 points b", lambda: geometry.geodesic(bowl, A, B[:3]))
    refused("unlike sizes", lambda: geometry.geodesic(bowl, A, B[:, :1]))
    refused("unlike sizes", lambda: geometry.speed(bowl, A, torch.ones(5, 3)))
    refused("5 points z and 2 points v", lambda: geometry.speed(bowl, A, B[:2]))
    refused("a path of shape", lambda: geometry.length(bowl, A[0]))
    refused("a path of shape", lambda: geometry.length(bowl, A[None, :1]))
    refused("a path of shape", lambda: geometry.energy(bowl, A[None, None]))
    refused("path holds", lambda: geometry.length(bowl, A[None] / 0))
    net = networks.MLP(2, 3, (4,)).double()
    refused("cannot take z of shape", lambda: geometry.geodesic(net, torch.ones(2, 3), torch.ones(2, 3)))
    vae = model(EXACT["bernoulli"])
    f = geometry.embedding(vae)
    refused(
        r"a has shape \(2, 3\); expected \(n, 2\)", lambda: geometry.geodesic(f, torch.ones(2, 3), torch.ones(2, 3))
    )


@pytest.mark.parametrize("odd", ["text", [[1, 2], [3]], None], ids=str)
def test_paths_that_are_none(odd: Any) -> None:
    refused("path", lambda: geometry.length(bowl, odd))


@pytest.mark.parametrize("shape", [(3, 2), (5, 1), (5, 2, 3), (3, 2, 2), (3,), ()], ids=str)
def test_shapes_of_tangents(shape: tuple[int, ...]) -> None:
    refused("w ", lambda: geometry.parallel_transport(bowl, torch.stack((A, B), 1), torch.ones(shape)))


def test_one_point_and_many_tangents() -> None:
    """One point goes with each of many, also where the first operation is elementwise."""
    for f in (bowl, lambda z: torch.cat((z.sin(), z.exp() * z.flip(1)), 1)):
        many = A[:1].expand(5, -1).contiguous()
        torch.testing.assert_close(geometry.speed(f, A[:1], B), geometry.speed(f, many, B))
        torch.testing.assert_close(
            geometry.sectional_curvature(f, A[:1], B, B.flip(1)), geometry.sectional_curvature(f, many, B, B.flip(1))
        )
        shot = geometry.exp_map(f, A[:1], 0.1 * B, steps=1)
        torch.testing.assert_close(shot.end, geometry.exp_map(f, many, 0.1 * B, steps=1).end)
        same(geometry.geodesic(f, A[:1], B, segments=8), geometry.geodesic(f, many, B, segments=8))


def test_fewest_segments() -> None:
    found = geometry.geodesic(bowl, A, B, segments=4)
    honest(found)
    assert bool(found.converged.all())
    assert geometry.frechet_mean(bowl, A, segments=4).path.shape == (5, 5, 2)


USES: dict[str, Callable[[Any, Tensor], Any]] = {
    "geodesic": lambda f, z: geometry.geodesic(f, z, z.flip(0), segments=8).length,
    "curvature": lambda f, z: geometry.sectional_curvature(f, z, z.flip(0), z.flip(1)),
    "exp": lambda f, z: geometry.exp_map(f, z, z.flip(1), steps=1).end,
    "log": lambda f, z: geometry.log_map(f, z, z.flip(0), segments=8)[0],
    "transport": lambda f, z: geometry.parallel_transport(f, torch.stack((z, z.flip(0)), 1), z),
    "mean": lambda f, z: geometry.frechet_mean(f, z, segments=8).mean,
    "graph": lambda f, z: geometry.Graph.build(f, z).embedded,
}


@pytest.mark.parametrize("name", USES)
def test_functions_in_another_precision(name: str) -> None:
    """Of float32 points in float64, and the other way round."""
    expected = USES[name](bowl, A)
    for f, z in ((lambda z: bowl(z.double()), A.float()), (lambda z: bowl(z.float()), A)):
        torch.testing.assert_close(USES[name](f, z).double(), expected.double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("segments", [0, 2, 3, 6, 33, 4.0, True, "32"])
def test_segments(segments: Any) -> None:
    refused("segments", lambda: geometry.geodesic(bowl, A, B, segments=segments))


def test_other_options() -> None:
    for name, odd in {"tolerance": 0, "iterations": -1, "starts": 0}.items():
        refused(name, lambda name=name, odd=odd: geometry.geodesic(bowl, A, B, **{name: odd}))
    refused("12 segments.*multiple of 8", lambda: geometry.log_map(bowl, A, B, segments=12))
    refused("steps", lambda: geometry.exp_map(bowl, A, B, steps=0))
    refused("k = 3", lambda: geometry.nearest(bowl, A, B, k=3, among=2))
    refused("among = 20", lambda: geometry.nearest(bowl, A, B))
    refused("the weights|weight", lambda: geometry.frechet_mean(bowl, A, [1, 2]))
    refused("weight", lambda: geometry.frechet_mean(bowl, A, [1, 1, 1, 1, -1]))


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a tuple": (lambda z: (z, z), "returned a tuple"),
    "an array": (lambda z: z.numpy() if type(z) is Tensor else z, "returned a ndarray"),
    "nothing": (lambda z: None, "returned a NoneType"),
    "one number per row": (lambda z: z.sum(1), "returned shape"),
    "one number": (lambda z: z.sum(), "returned shape"),
    "other rows": (lambda z: z[:1].expand(3, -1), "returned shape"),
    "complex numbers": (lambda z: z * 1j, "returned complex128"),
    "whole numbers": (lambda z: z.long(), "returned int64"),
    "an error": (lambda z: z @ torch.ones(3, 3, dtype=DOUBLE), "cannot take z of shape"),
    "no coordinates": (lambda z: z[:, :0], "no coordinates"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_that_return(name: str) -> None:
    f, said = FUNCTIONS[name]
    refused(said, lambda: geometry.geodesic(f, A, B))
    refused(said, lambda: geometry.metric(f, A))


def test_what_is_no_function() -> None:
    refused("a int", lambda: geometry.geodesic(3, A, B), error=InputTypeError)
    refused("a str", lambda: geometry.metric("decoder", A), error=InputTypeError)
    refused(r"VAE|embedding\(model\)", lambda: geometry.geodesic(model(EXACT["bernoulli"]), A, B))
    refused("a Linear.*vaelid model", lambda: geometry.embedding(nn.Linear(2, 2)), error=InputTypeError)


def test_decoders_of_images() -> None:
    net = networks.ConvDecoder(2, (1, 8, 8), channels=(4,), hidden=8).double()
    flat = geometry.geodesic(lambda z: net(z).flatten(1), A, B)
    same(geometry.geodesic(net, A, B), flat)
    honest(flat)
    torch.testing.assert_close(geometry.metric(net, A), geometry.metric(lambda z: net(z).flatten(1), A))
    geometry.sectional_curvature(net, A, B, B.flip(1))


def test_words() -> None:
    found = geometry.geodesic(bowl, A, B)
    text = str(found)
    assert text.splitlines()[0] == "5 geodesics, 5 converged; bowl"
    assert text.splitlines()[1].startswith("medians: chord ")
    assert len(text.splitlines()) == 2
    assert found.reasons() == ["converged"] * 5
    assert len({status.reason for status in Status}) == 4
    points = found.points([0, 0.5, 1])
    assert points.shape == (5, 3, 2)
    torch.testing.assert_close(points[:, ::2], found.path[:, ::32])
    torch.testing.assert_close(found.points(0.5)[:, 0], found.path[:, 16])
