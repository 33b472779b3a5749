"""Geometry in use: metrics alone, potentials, models, bounded memory, graphs, matrices of distances, seeds."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from contracts.test_geometry import FIELD, KEY, POINTS, A, B, bowl, honest, model, same
from exact.test_embeddings import EXACT, MEAN
from support import refused
from torch import Tensor, nn

import vaelid as vd
from vaelid import geometry
from vaelid.errors import InputError
from vaelid.geometry import MetricField, Status, forward
from vaelid.geometry.blocks import assemble, solve

DOUBLE = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own


# -- metrics without an embedding, and potentials ----------------------------------------------------------------------


def test_shapes_of_a_metric() -> None:
    for odd in (lambda z: z, lambda z: z[:, None] * torch.ones(3, 1), lambda z: torch.eye(2)[None]):
        refused("shape", lambda odd=odd: geometry.geodesic(MetricField(odd), A, B))


def diagonal(last: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack((torch.ones_like(last), last), 1))


def test_one_pair_without_an_inverse() -> None:
    """It leaves the others as they are."""
    b = B.clone()
    b[2, 0] = 100
    found = geometry.geodesic(MetricField(lambda z: diagonal((z[:, 0] < 50).to(z))), A, b)
    assert found.converged.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("last", [0.0, -1.0])
def test_metrics_that_are_not_positive_definite(last: float) -> None:
    field = MetricField(lambda z: diagonal(torch.full_like(z[:, 0], last)))
    with contextlib.suppress(InputError):  # refusing it will do
        assert not bool(geometry.geodesic(field, A, B).converged.any())


def test_what_works_under_a_metric_alone() -> None:
    found = geometry.geodesic(FIELD, A, B, segments=16)
    honest(found)
    assert bool(found.converged.all())
    assert found.chord.tolist() == [0] * 5
    torch.testing.assert_close(
        geometry.speed(FIELD, A, B).square(), torch.einsum("ni,nij,nj->n", B, FIELD.metric(A), B)
    )
    torch.testing.assert_close(geometry.log_volume(FIELD, A), (1 + A.square().sum(1)).log())
    shot = geometry.exp_map(FIELD, A, 0.1 * B, steps=4)
    assert float(shot.drift.max()) < 1e-4
    path = found.path[:2]
    carried = geometry.parallel_transport(FIELD, path, B[:2])
    torch.testing.assert_close(
        geometry.speed(FIELD, path[:, -1], carried), geometry.speed(FIELD, A[:2], B[:2]), rtol=1e-4, atol=0
    )
    table = geometry.distances(FIELD, A[:3], segments=8)
    assert bool(table.converged.all())
    assert geometry.nearest(FIELD, A, B, k=2, among=3, segments=8).index.shape == (5, 2)


REFUSED: dict[str, Callable[[Any], Any]] = {
    "curvature": lambda f: geometry.sectional_curvature(f, A, B, B.flip(1)),
    "log": lambda f: geometry.log_map(f, A, B),
    "mean": lambda f: geometry.frechet_mean(f, A),
    "graph": lambda f: geometry.Graph.build(f, POINTS),
    "gradient": lambda f: geometry.distance_gradient(f, geometry.geodesic(f, A, B)),
    "potential": lambda f: geometry.with_potential(f, geometry.off_data(POINTS)),
    "ensemble": lambda f: geometry.ensemble([f]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_metric_alone_cannot_do(name: str) -> None:
    refused("embedding", lambda: REFUSED[name](FIELD))


def test_under_a_potential() -> None:
    f = geometry.with_potential(bowl, geometry.off_data(POINTS), 2.0)
    plain, found = geometry.geodesic(bowl, A, B), geometry.geodesic(f, A, B)
    honest(found)
    assert bool(found.converged.all())
    assert bool((found.length > plain.length - 1e-6).all())
    assert "times 1 + 2 × distance from the data" in found.metric
    refused("curvature under a potential", lambda: geometry.sectional_curvature(f, A, B, B.flip(1)))
    velocity, path = geometry.log_map(f, A, A + 0.3 * B)
    assert bool((path.decrement < 1e-12).all())
    torch.testing.assert_close(geometry.exp_map(f, A, velocity, steps=8).end, A + 0.3 * B, rtol=0, atol=1e-4)
    mean = geometry.frechet_mean(f, A)
    assert mean.status == Status.CONVERGED
    assert bool(mean.mean.isfinite().all())
    assert geometry.Graph.build(f, POINTS).distances().shape == (30, 30)
    assert bool(geometry.parallel_transport(f, found.path[:, ::8], B).isfinite().all())


@pytest.mark.parametrize("name", ["curvature", "exp", "transport"])
def test_kinks_are_refused(name: str) -> None:
    net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 5)).double()
    path = geometry.geodesic(net, A, B).path
    calls: dict[str, Callable[[], Any]] = {
        "curvature": lambda: geometry.sectional_curvature(net, A, B, B.flip(1)),
        "exp": lambda: geometry.exp_map(net, A, B),
        "transport": lambda: geometry.parallel_transport(net, path, B),
    }
    refused("second derivative says", calls[name])


@pytest.mark.parametrize("norm", [nn.GroupNorm(4, 16), nn.BatchNorm1d(16), nn.RMSNorm(16)], ids=str)
def test_normalised_layers_are_smooth(norm: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(2, 16), norm, nn.Tanh(), nn.Linear(16, 5)).double()
    assert bool(geometry.sectional_curvature(net, A, B, B.flip(1)).isfinite().all())
    shot = geometry.exp_map(net, A, 0.02 * B, steps=8)
    assert float(shot.drift.max()) < 1e-3


# -- models ------------------------------------------------------------------------------------------------------------


BOXES = {**EXACT, **{f"{name}, predicted": box for name, box in MEAN.items()}}


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_models(name: str, dtype: torch.dtype) -> None:
    """Between encoded points; the decrement that is reported holds in float64."""
    vae = model(BOXES[name]).to(dtype)
    vae.train()
    x = vae.sample(8, KEY)
    z = vae.encode(x)
    f = geometry.embedding(vae)
    found = geometry.geodesic(f, z[:4], z[4:], segments=16)
    honest(found)
    assert bool(found.converged.all())
    assert vae.training
    assert vae.likelihood.network.training
    assert all(p.requires_grad and p.grad is None for p in vae.parameters())
    exact, path = geometry.embedding(copy.deepcopy(vae).double()), found.path.double()
    exact = exact.looked_at(path[:, 0])
    system = assemble(exact, path)
    noise = assemble(f.looked_at(found.path[:, 0]), found.path).noise
    assert bool(((found.energy - system.energy).abs() <= noise + 1e-12 * system.energy).all())
    decrement = solve(system.diagonal, system.upper, system.gradient.unsqueeze(-1)).decrement[:, 0]
    assert bool((decrement <= 1.02e-3 * system.energy).all())


def test_models_with_context() -> None:
    x = np.random.default_rng(0).normal(size=(12, 4))
    vae = vd.recipes.vae(x, latent=2, hidden=(8,), context=3, likelihood="gaussian-predicted").double()
    one, other = np.array([0.5, -1, 2]), torch.tensor([3.0, 1.0, 0.0])
    found = [geometry.geodesic(geometry.embedding(vae, context), A, B) for context in (one, other)]
    for each in found:
        honest(each)
        assert bool(each.converged.all())
    assert bool(((found[0].length - found[1].length).abs() > 1e-3 * found[0].length).any())
    p = vae.decode(A, np.tile(one, (5, 1)))
    embedded = geometry.embedding(vae, one)(A)
    torch.testing.assert_close(embedded, torch.cat((p.loc, p.scale.log()), 1))
    torch.testing.assert_close(geometry.mean_embedding(vae, one)(A), p.mean)
    refused("context of shape", lambda: geometry.embedding(vae, np.ones((2, 3))))
    refused("context of shape", lambda: geometry.mean_embedding(vae, np.ones((1, 3)))(A))
    refused("covariates", lambda: geometry.embedding(vae))
    refused("covariates", lambda: geometry.embedding(vae, np.ones(2)))
    variance = geometry.decoder_variance(vae, POINTS, one)
    assert variance(POINTS).mean().item() == pytest.approx(1)


# -- memory ------------------------------------------------------------------------------------------------------------


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pass takes more points than `rows` says, and results do not depend on passes."""
    seen: list[int] = []

    def f(z: Tensor) -> Tensor:
        seen.append(len(z))
        return bowl(z)

    a, b = A.repeat(8, 1), B.repeat(8, 1)
    whole = geometry.geodesic(f, a, b, segments=8)
    metric, near = geometry.metric(f, a), geometry.nearest(f, a[:3], b, among=5, segments=8)
    monkeypatch.setattr(forward, "WORK", 3 * 2 * 16)
    seen.clear()
    same(geometry.geodesic(f, a, b, segments=8), whole)
    assert max(seen) <= 3 * 2 * 16 // 3
    f_rows = geometry.manifold.prepare(f, z=a)[0]
    assert [f_rows.rows(1), f_rows.rows(2), f_rows.rows(10**6)] == [32, 16, 1]
    seen.clear()
    torch.testing.assert_close(geometry.metric(f, a), metric)
    assert max(seen) <= 16
    torch.testing.assert_close(geometry.nearest(f, a[:3], b, among=5, segments=8).length, near.length)
    torch.testing.assert_close(
        geometry.sectional_curvature(bowl, a, b, b.flip(1))[:5], geometry.sectional_curvature(bowl, A, B, B.flip(1))
    )


# -- graphs, matrices, neighbours --------------------------------------------------------------------------------------


def test_graph_of_points_that_repeat() -> None:
    points = torch.cat((POINTS[:5], POINTS[:5], POINTS[:5]))
    graph = geometry.Graph.build(bowl, points, 3)
    apart = graph.distances()
    assert np.isfinite(apart).all()
    np.testing.assert_allclose(apart[:5, :5], apart[5:10, :5], atol=1e-12)
    assert np.allclose(apart, apart.T)
    found = geometry.geodesic(bowl, points[:5], points[10:].flip(0), graph=graph)
    honest(found)
    assert bool(found.converged.all())


def test_graph_of_parts_far_apart() -> None:
    """They are joined by the shortest edges."""
    points = torch.cat((POINTS, POINTS + 100, POINTS - 200))
    graph = geometry.Graph.build(torch.tanh, points, 4)
    assert np.isfinite(graph.distances()).all()
    found = geometry.geodesic(bowl, points[:3], points[30:33], graph=geometry.Graph.build(bowl, points, 4))
    honest(found)


def test_graph_of_few_points() -> None:
    graph = geometry.Graph.build(bowl, POINTS[:3], 10)
    assert graph.neighbours == 2
    chords = torch.stack([(bowl(POINTS[:3]) - bowl(POINTS[i : i + 1])).norm(dim=1) for i in range(3)])
    assert (graph.distances() >= chords.numpy() - 1e-12).all()
    refused("a graph of 1 point", lambda: geometry.Graph.build(bowl, POINTS[:1]))
    refused("neighbours", lambda: geometry.Graph.build(bowl, POINTS, 0))
    honest(geometry.geodesic(bowl, POINTS[:3], POINTS[3:6], graph=graph))
    assert graph.distances(np.array([1])).shape == (1, 3)


def test_graph_of_which_the_endpoints_are_points() -> None:
    graph = geometry.Graph.build(bowl, POINTS)
    found = geometry.geodesic(bowl, POINTS[:6], POINTS[6:12], graph=graph)
    honest(found)
    assert bool(found.converged.all())
    assert torch.equal(found.path[:, 0], POINTS[:6])
    assert torch.equal(found.path[:, -1], POINTS[6:12])
    plain = geometry.geodesic(bowl, POINTS[:6], POINTS[6:12])
    torch.testing.assert_close(found.length, plain.length, rtol=1e-3, atol=0)


def test_graph_of_other_latents() -> None:
    graph = geometry.Graph.build(torch.sin, torch.randn(20, 3, dtype=DOUBLE))
    refused("graph", lambda: geometry.geodesic(bowl, A, B, graph=graph))


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_matrices_of_few_points(n: int) -> None:
    calls: list[tuple[int, int]] = []
    found = geometry.distances(bowl, POINTS[:n], on_progress=lambda done, of: calls.append((done, of)))
    pairs = n * (n - 1) // 2
    assert calls == ([(pairs, pairs)] if pairs else [])
    for name in ("length", "chord", "error"):
        matrix = getattr(found, name)
        assert matrix.shape == (n, n)
        assert matrix.dtype == DOUBLE
        assert torch.equal(matrix, matrix.T)
        assert matrix.diagonal().tolist() == [0] * n
    assert bool(found.converged.all())
    assert found.converged_share == 1
    assert bool((found.chord <= found.length + found.error + 1e-9).all())
    assert found.violations() == (0, pairs)
    assert found.metric == "bowl"


def test_violations_are_counted() -> None:
    length = torch.tensor([[0.0, 1, 5, 2], [1, 0, 1, 2], [5, 1, 0, 1], [2, 2, 1, 0]], dtype=DOUBLE)
    zero = torch.zeros_like(length)
    table = geometry.Distances(length, zero, zero, zero == 0, "by hand")
    assert table.violations() == (1, 6)  # 0–2 is longer than by way of 1
    assert table.violations(slack=1.6) == (0, 6)
    assert table.violations(slack=0.0) == (1, 6)


def test_nearest_of_all() -> None:
    """With as many candidates as points, they are those that the whole matrix gives."""
    near = geometry.nearest(bowl, POINTS[:4], POINTS[4:12], k=8, among=8)
    found = geometry.geodesic(bowl, POINTS[:4].repeat_interleave(8, 0), POINTS[4:12].repeat(4, 1))
    expected = found.length.view(4, 8).sort(1)
    torch.testing.assert_close(near.length, expected.values, rtol=1e-9, atol=0)
    assert torch.equal(near.index, expected.indices)
    assert torch.equal(near.euclidean, torch.cdist(POINTS[:4], POINTS[4:12]).argsort(1))
    assert bool(near.converged.all())
    own = geometry.nearest(bowl, POINTS[:9], POINTS[:9], among=3)
    assert own.index[:, 0].tolist() == list(range(9))
    assert float(own.length.max()) < 1e-12


# -- seeds ------------------------------------------------------------------------------------------------------


def test_identifiability_of_untrained_models() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4))
    models = [vd.recipes.vae(x, latent=2, hidden=(8,), seed=seed) for seed in (0, 1)]
    found = geometry.identifiability(models, x[:5], x[5:10], data=x, segments=8)
    assert found.geodesic.shape == found.euclidean.shape == found.converged.shape == (2, 5)
    assert found.geodesic_variation.shape == (5,)
    expected = found.euclidean.std(0) / found.euclidean.mean(0)
    torch.testing.assert_close(found.euclidean_variation, expected)
    low, high = found.interval()
    assert bool((low <= high).all())
    assert bool((found.geodesic.amin(0) <= low).all())
    text = str(found)
    assert text.startswith("5 pairs in 2 models")
    assert "Fisher–Rao metric of the Gaussian likelihood" in text
    mean = geometry.identifiability(models, x[:5], x[5:10], metric=geometry.mean_embedding, segments=8)
    assert "decoder's mean" in str(mean)
    same_seed = geometry.identifiability([models[0]] * 2, x[:5], x[5:10], segments=8)
    assert float(same_seed.geodesic_variation.max()) == 0
    assert math.isnan(same_seed.t)
    refused("1 model", lambda: geometry.identifiability(models[:1], x[:5], x[5:10]))
    refused("0 models", lambda: geometry.identifiability([], x[:5], x[5:10]))


def test_identifiability_of_one_pair() -> None:
    """There is no t of it, and no warning."""
    x = np.random.default_rng(0).normal(size=(30, 4))
    models = [vd.recipes.vae(x, latent=2, hidden=(8,), seed=seed) for seed in (0, 1)]
    found = geometry.identifiability(models, x[:1], x[1:2], segments=8)
    assert math.isnan(found.t)
    assert "in 2 models" in str(found)
