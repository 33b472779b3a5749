"""Target spaces, embeddings of models and potentials, against closed forms, autodiff and Fisher informations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from exact.test_embeddings import EVENT, EXACT, LATENT, MEAN, Box, fisher
from exact.test_embeddings import Z as AT
from support import refused
from torch import Tensor, nn

from vaelid import geometry, likelihoods, networks
from vaelid.geometry import Embedding, Flat, Hyperbolic, Product, Stretched, Target
from vaelid.likelihoods import Likelihood, PredictedScale
from vaelid.model import VAE
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key

KEY, DOUBLE, EPS = Key(17), torch.float64, torch.finfo(torch.float64).eps
BETA = torch.tensor([2.0, 0.5], dtype=DOUBLE)
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own

# width of coordinates, and the target; of a stretched one the last coordinate is V ≥ 0
TARGETS: dict[str, tuple[int, Target]] = {
    "flat": (3, Flat()),
    "hyperbolic": (4, Hyperbolic(BETA)),
    "hyperbolic, one β": (2, Hyperbolic(3.0)),
    "product": (7, Product([Flat(), Hyperbolic(BETA)], [3, 4], [0.3, 1.7])),
    "product of flat ones": (3, Product([Flat(), Flat()], [1, 2], [2.0, 0.25])),
    "stretched": (4, Stretched(Flat(), 0.7)),
    "stretched hyperbolic": (5, Stretched(Hyperbolic(BETA), 2.5)),
    "stretched product": (8, Stretched(Product([Flat(), Hyperbolic(BETA)], [3, 4], [0.3, 1.7]), 0.4)),
}
CURVED = ["hyperbolic", "hyperbolic, one β", "product"]


def drawn(name: str, *shape: int) -> tuple[Target, Callable[[str], Tensor]]:
    """A target, and random points or tangents of it by name; the potential of a point is above 0."""
    width, target = TARGETS[name]

    def normal(which: str) -> Tensor:
        found = 0.6 * KEY.fold(name, len(which), *which.encode()).normal((*shape, width), dtype=DOUBLE)
        return torch.cat((found[..., :-1], found[..., -1:].abs() + 0.1), -1) if isinstance(target, Stretched) else found

    return target, normal


def metric_of(target: Target, p: Tensor) -> Tensor:
    """g at one point p (D,), (D, D), from the residual of equal points: ½ ∂²|r(p, q)|²/∂q² at q = p."""
    return torch.func.hessian(lambda q: 0.5 * target.residual(p, q).square().sum())(p)


def close(found: Tensor, expected: Tensor, steps: float = 1e3) -> None:
    """To some rounding errors of the largest number."""
    size = max(float(expected.abs().max()), 1e-3)
    torch.testing.assert_close(found, expected, rtol=0, atol=steps * EPS * size)


# -- targets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_pull_is_the_derivative(name: str) -> None:
    target, draw = drawn(name, 5)
    p, q = draw("p"), draw("q")
    dp, dq = (drawn(name, 5, 3)[1](which) for which in ("dp", "dq"))
    at_p, at_q = target.pull(p, q, dp, dq)
    for axis in range(3):
        close(at_p[:, axis], torch.func.jvp(lambda p: target.residual(p, q), (p,), (dp[:, axis],))[1])
        close(at_q[:, axis], torch.func.jvp(lambda q: target.residual(p, q), (q,), (dq[:, axis],))[1])


@pytest.mark.parametrize("name", TARGETS)
def test_whitened_tangents(name: str) -> None:
    """They are the derivative of the residual at p = q, and have the length that the metric gives."""
    target, draw = drawn(name, 5)
    p, v = draw("p"), draw("v")
    white = target.whiten(p, v)
    close(white, torch.func.jvp(lambda q: target.residual(p, q), (p,), (v,))[1])
    close(white, -torch.func.jvp(lambda q: target.residual(q, p), (p,), (v,))[1])
    for row in range(5):
        close(white[row].square().sum(), v[row] @ metric_of(target, p[row]) @ v[row])
    several = target.whiten(p.unsqueeze(1), torch.stack((v, 2 * v), 1))  # as `metric` calls it
    close(several[:, 1], 2 * white)


@pytest.mark.parametrize("name", TARGETS)
def test_residual_is_antisymmetric(name: str) -> None:
    target, draw = drawn(name, 5)
    close(target.residual(draw("p"), draw("q")), -target.residual(draw("q"), draw("p")))
    assert target.residual(draw("p"), draw("p")).abs().max() == 0


@pytest.mark.parametrize("name", [name for name in TARGETS if "stretched" not in name])
def test_residual_has_the_length_of_the_distance(name: str) -> None:
    """|r| − d = O(h³), so |r|² − d² = O(h⁴): halving the step divides it by 16; in flat targets they are equal."""
    target, draw = drawn(name, 5)
    p, v = draw("p"), draw("v")
    apart = []
    for h in (0.02, 0.01):
        q = p + h * v
        apart.append(target.residual(p, q).square().sum(-1) - target.squared(p, q))
    if "flat" in name:
        assert max(float(x.abs().max()) for x in apart) < 1e3 * EPS
    else:
        torch.testing.assert_close((apart[0] / apart[1]).log2(), torch.full((5,), 4.0, dtype=DOUBLE), rtol=0, atol=0.1)
        assert bool((apart[1] > 0).all())  # 2 √β sinh(s / 2√β) ≥ s


@pytest.mark.parametrize("name", ["stretched", "stretched hyperbolic", "stretched product"])
def test_stretched_residual(name: str) -> None:
    """Its squared length is that of the straight way in coordinates, up to the fourth order."""
    target, draw = drawn(name, 4)
    p, v = draw("p"), draw("v")
    nodes, weights = np.polynomial.legendre.leggauss(16)
    apart = []
    for h in (0.1, 0.05):
        at = torch.from_numpy(h * (nodes + 1) / 2)[:, None, None]
        speed = target.whiten(p + at * v, v.expand(16, *v.shape)).square().sum(-1).sqrt()
        length = h * (torch.from_numpy(weights / 2)[:, None] * speed).sum(0)
        apart.append((target.residual(p, p + h * v).norm(dim=-1) - length).abs())
    ratio = (apart[0] / apart[1]).log2()
    torch.testing.assert_close(ratio, torch.full((4,), 3.0, dtype=DOUBLE), rtol=0, atol=0.3)


def half_plane(p: Tensor, q: Tensor, beta: Tensor) -> Tensor:
    """Σ β arccosh²(1 + (Δx²/β + Δσ²) / 2σσ′): with y = x/√β, ds² = β (dy² + dσ²)/σ²."""
    (x, r), (y, s) = p.chunk(2, -1), q.chunk(2, -1)
    one, other = r.exp(), s.exp()
    inside = 1 + ((y - x) ** 2 / beta + (other - one) ** 2) / (2 * one * other)
    return (beta * torch.acosh(inside) ** 2).sum(-1)


@pytest.mark.parametrize("size", [0.1, 1.0, 20.0])
def test_hyperbolic_distances(size: float) -> None:
    target, draw = drawn("hyperbolic", 50)
    p, q = size * draw("p"), size * draw("q")
    expected = half_plane(p, q, BETA)
    # arccosh(1 + u) loses the digits of u that 1 + u does not hold
    torch.testing.assert_close(target.squared(p, q), expected, rtol=1e-12, atol=0 if size > 0.5 else 1e-12)
    torch.testing.assert_close(target.squared(p, q), target.squared(q, p), rtol=1e-13, atol=0)
    assert bool((target.squared(p, p) == 0).all())


def test_hyperbolic_triangles_and_motions() -> None:
    """The triangle inequality; the same distance after x ↦ c x + b, σ ↦ c σ."""
    target, draw = drawn("hyperbolic", 200)
    p, q, r = (2 * draw(name) for name in ("p", "q", "r"))
    d = lambda a, b: target.squared(a, b).sqrt()  # noqa: E731
    assert bool((d(p, r) <= d(p, q) + d(q, r) + 1e-12).all())
    moved = [torch.cat((3.7 * x[:, :2] - 1.2, x[:, 2:] + math.log(3.7)), 1) for x in (p, q)]
    torch.testing.assert_close(d(*moved), d(p, q), rtol=1e-12, atol=0)


def test_hyperbolic_far_apart() -> None:
    """e^±40 in scale, 10¹⁰ in location: finite, and what the closed form of the vertical line says."""
    for dtype, error in ((DOUBLE, 1e-13), (torch.float32, 1e-6)):
        p, q = (
            torch.tensor([[1.0, -40.0], [1e10, 0.0]], dtype=dtype),
            torch.tensor([[1.0, 40.0], [0.0, 0.0]], dtype=dtype),
        )
        target = Hyperbolic(2.0)
        expected = torch.tensor([2 * 80.0**2, 2 * math.acosh(1 + 1e20 / 4) ** 2], dtype=dtype)
        torch.testing.assert_close(target.squared(p, q), expected, rtol=error, atol=0)
        assert bool(target.residual(p, q).isfinite().all())


def test_weights_of_a_product() -> None:
    width, target = TARGETS["product"]
    _, draw = drawn("product", 6)
    p, q = draw("p"), draw("q")
    assert width == 7
    expected = 0.3 * (q - p)[:, :3].square().sum(-1) + 1.7 * half_plane(p[:, 3:], q[:, 3:], BETA)
    close(target.squared(p, q), expected)


@pytest.mark.parametrize("name", ["stretched", "stretched hyperbolic"])
def test_stretched_distances_are_bounded_below(name: str) -> None:
    target, draw = drawn(name, 20)
    p, q = draw("p"), draw("q")
    close(target.squared(p, q), target.base.squared(p[:, :-1], q[:, :-1]))
    assert bool((target.residual(p, q).square().sum(-1) >= target.squared(p, q)).all())
    refused("curvature under a potential", lambda: target.connection(p, q, q))


@pytest.mark.parametrize("name", CURVED)
def test_christoffel_symbols(name: str) -> None:
    """Γᵏ(u, v) = ½ gᵏˡ (∂ᵤ g(v, ·) + ∂ᵥ g(u, ·) − ∂ g(u, v))ₗ."""
    target, draw = drawn(name, 4)
    p, u, v = draw("p"), draw("u"), draw("v")
    found = target.connection(p, u, v)
    for row in range(4):
        at, a, b = p[row], u[row], v[row]
        change = torch.func.jacfwd(lambda p: metric_of(target, p))(at)  # (i, j, k): ∂ₖ gᵢⱼ
        lowered = 0.5 * (
            torch.einsum("ijk,j,k->i", change, b, a) + torch.einsum("ijk,j,k->i", change, a, b)
            - torch.einsum("ijk,i,j->k", change, a, b)
        )  # fmt: skip
        close(found[row], torch.linalg.solve(metric_of(target, at), lowered))
    close(target.connection(p, v, u), found)


def test_flat_targets_have_no_connection() -> None:
    for name in ("flat", "product of flat ones"):
        target, draw = drawn(name, 2)
        assert target.connection(draw("p"), draw("u"), draw("v")) is None
        assert target.ambient(draw("p"), draw("u"), draw("v")).tolist() == [0, 0]


@pytest.mark.parametrize("beta", [0.5, 2.0, 7.0])
def test_curvature_of_a_hyperbolic_plane(beta: float) -> None:
    """⟨R(u, v) v, u⟩ = −(|u|²|v|² − ⟨u, v⟩²) / β."""
    target = Hyperbolic(beta)
    p, u, v = (KEY.fold("plane", place).normal((6, 2), dtype=DOUBLE) for place in range(3))
    a, b = target.whiten(p, u), target.whiten(p, v)
    area = a.square().sum(1) * b.square().sum(1) - (a * b).sum(1).square()
    close(target.ambient(p, u, v), -area / beta)
    plane = Embedding(lambda z: z, target=target)
    expected = torch.full((6,), -1 / beta, dtype=DOUBLE)
    torch.testing.assert_close(geometry.sectional_curvature(plane, p, u, v), expected, rtol=1e-9, atol=0)


def test_curvature_of_products() -> None:
    """Of planes under weights: w ⟨R(u, v) v, u⟩ adds; a factor times a flat direction is flat."""
    _, target = TARGETS["product"]
    _, draw = drawn("product", 6)
    p, u, v = draw("p"), draw("u"), draw("v")
    expected = 1.7 * Hyperbolic(BETA).ambient(p[:, 3:], u[:, 3:], v[:, 3:])
    close(target.ambient(p, u, v), expected)
    within = Embedding(lambda z: torch.cat((z[:, :1], 0 * z[:, :2], z[:, 1:]), 1), target=target, latent=5)
    z = draw("p")[:, :5]
    flat, plane = (torch.eye(5, dtype=DOUBLE)[i].expand(6, -1) for i in (0, 1))
    scale = torch.eye(5, dtype=DOUBLE)[3].expand(6, -1)
    mixed = geometry.sectional_curvature(within, z, flat, plane)
    torch.testing.assert_close(mixed, torch.zeros(6, dtype=DOUBLE), rtol=0, atol=1e-9)
    alone = geometry.sectional_curvature(within, z, plane, scale)
    torch.testing.assert_close(alone, torch.full((6,), -1 / (1.7 * 2.0), dtype=DOUBLE), rtol=1e-9, atol=0)


# -- embeddings of models ----------------------------------------------------------------------------------------------


def model(likelihood: Likelihood) -> VAE:
    encoder = networks.MLP(4, 2 * LATENT, (4,)).double()
    return VAE(StandardNormal(LATENT), likelihood, DiagonalNormal(encoder)).double()


def boxed(box: Box) -> tuple[VAE, Likelihood]:
    likelihood = box.build()
    return model(likelihood), likelihood


def information(likelihood: Likelihood, z: Tensor) -> Tensor:
    """The Fisher information of a density by tanh-sinh on either side of its median, where a Laplace has a kink."""
    t = (torch.arange(-124, 124, dtype=DOUBLE) + 0.5) * (3.1 / 124)
    half = 0.5 * torch.sigmoid(math.pi * torch.sinh(t))
    u = torch.cat((half, 1 - half)).view(-1, 1, 1)
    weight = ((3.1 / 124) * math.pi * torch.cosh(t) * half * (1 - 2 * half)).repeat(2)
    torch.testing.assert_close(weight.sum(), torch.tensor(1.0, dtype=DOUBLE), rtol=0, atol=1e-12)
    x = likelihood(z).icdf(u.expand(-1, *EVENT))
    score = torch.func.jacfwd(lambda z: likelihood(z).cell_log_prob(x))(z)
    return torch.einsum("p,pija,pijb->ab", weight, score, score)


@pytest.mark.parametrize("name", [name for name in MEAN if name != "zero-inflated"])
def test_metric_of_a_predicted_scale_is_the_fisher_information(name: str) -> None:
    vae, likelihood = boxed(MEAN[name])
    found = geometry.embedding(vae)
    assert isinstance(found.target, Hyperbolic)
    assert type(likelihood).__name__ in found.name
    expected = information(likelihood, AT)
    torch.testing.assert_close(geometry.metric(found, AT[None])[0], expected, rtol=1e-8, atol=0)
    v = torch.tensor([[0.3, -2.0]], dtype=DOUBLE)
    torch.testing.assert_close(
        geometry.speed(found, AT[None], v)[0], (v[0] @ expected @ v[0]).sqrt(), rtol=1e-8, atol=0
    )


@pytest.mark.parametrize("degrees", [0.3, 1.0, 30.0])
def test_students_t_of_any_degrees(degrees: float) -> None:
    box = Box(2, lambda net, e: likelihoods.StudentT(net, e, PredictedScale(), degrees), "Student's t")
    vae, likelihood = boxed(box)
    found = geometry.metric(geometry.embedding(vae), AT[None])[0]
    torch.testing.assert_close(found, information(likelihood, AT), rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", EXACT)
def test_metric_of_other_likelihoods(name: str) -> None:
    vae, likelihood = boxed(EXACT[name])
    found = geometry.embedding(vae)
    assert isinstance(found.target, Flat)
    assert "Fisher–Rao" in found.name
    expected = fisher(EXACT[name], likelihood, AT)
    torch.testing.assert_close(geometry.metric(found, AT[None])[0], expected, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(
        geometry.log_volume(found, AT[None])[0], 0.5 * torch.linalg.slogdet(expected).logabsdet, rtol=0, atol=1e-7
    )


def test_where_there_is_no_narrow_embedding() -> None:
    """The mean stands in, and the name says so."""
    wide = Box(1, lambda net, e: likelihoods.Ordinal(net, 25, e), "ordinal")
    for vae, why in ((boxed(MEAN["zero-inflated"])[0], "is known"), (boxed(wide)[0], "is narrow")):
        found = geometry.embedding(vae)
        assert "mean" in found.name
        assert why in found.name
        torch.testing.assert_close(found(AT[None]), geometry.mean_embedding(vae)(AT[None]), rtol=0, atol=0)


def test_mean_and_moments() -> None:
    """JμᵀJμ, and JμᵀJμ + JσᵀJσ."""
    vae, likelihood = boxed(MEAN["gaussian"])
    mean, spread = (
        torch.func.jacfwd(lambda z, of=of: getattr(likelihood(z), of).flatten())(AT) for of in ("loc", "scale")
    )
    close(geometry.metric(geometry.mean_embedding(vae), AT[None])[0], mean.T @ mean)
    close(geometry.metric(geometry.moments_embedding(vae), AT[None])[0], mean.T @ mean + spread.T @ spread)
    bernoulli, box = boxed(EXACT["bernoulli"])
    j = torch.func.jacfwd(lambda z: box(z).mean.flatten())(AT)
    root = torch.func.jacfwd(lambda z: (box(z).mean * (1 - box(z).mean)).sqrt().flatten())(AT)
    close(geometry.metric(geometry.moments_embedding(bernoulli), AT[None])[0], j.T @ j + root.T @ root)


def test_moments_of_a_saturated_decoder() -> None:
    """Where the variance underflows, its root has no slope, and the metric no NaN."""
    vae, _ = boxed(EXACT["bernoulli"])
    found = geometry.metric(geometry.moments_embedding(vae), 1e6 * AT[None])
    assert bool(found.isfinite().all())


def test_ensembles_and_joints() -> None:
    vaes = [boxed(EXACT[name])[0] for name in ("gaussian", "bernoulli", "poisson")]
    parts = [geometry.embedding(vae) for vae in vaes]
    each = torch.stack([geometry.metric(part, AT[None])[0] for part in parts])
    z = AT[None]
    close(geometry.metric(geometry.ensemble(parts), z)[0], each.mean(0))
    close(geometry.metric(geometry.joint(parts), z)[0], each.sum(0))
    weights = [0.5, 2.0, 3.0]
    found = geometry.joint(parts, weights)
    close(geometry.metric(found, z)[0], torch.tensordot(torch.tensor(weights, dtype=DOUBLE), each, 1))
    assert all(part.name in found.name for part in parts)
    plane = geometry.embedding(boxed(MEAN["laplace"])[0])
    curved = geometry.metric(plane, z)[0]
    mixed = geometry.joint([parts[0], plane, parts[1]], weights)
    close(geometry.metric(mixed, z)[0], 0.5 * each[0] + 2 * curved + 3 * each[1])
    close(geometry.metric(geometry.ensemble([plane, plane, parts[2]]), z)[0], (2 * curved + each[2]) / 3)
    nested = geometry.joint([mixed, parts[2]], [1.0, 4.0])
    close(geometry.metric(nested, z)[0], 0.5 * each[0] + 2 * curved + 3 * each[1] + 4 * each[2])
    p, q = mixed(z), mixed(-z)
    separate = [w * f.target.squared(f(z), f(-z)) for w, f in zip(weights, (parts[0], plane, parts[1]), strict=True)]
    close(mixed.target.squared(p, q), torch.stack(separate).sum(0))
    functions = geometry.joint([torch.sin, lambda z: 2 * z], [1.0, 0.25])
    close(geometry.metric(functions, z)[0], torch.diag(AT.cos() ** 2 + 1))


def test_what_cannot_be_joined() -> None:
    part = geometry.embedding(boxed(EXACT["bernoulli"])[0])
    refused("0 embeddings", lambda: geometry.joint([]))
    refused("0 embeddings", lambda: geometry.ensemble([]))
    refused("2 weights for 1", lambda: geometry.joint([part], [1.0, 2.0]))
    refused("a weight", lambda: geometry.joint([part], [0.0]))
    refused("2 and 3 latents", lambda: geometry.joint([part, replace(part, latent=3)]))
    refused("embeddings", lambda: geometry.joint([geometry.MetricField(lambda z: z)]))
    refused("latent size", lambda: geometry.joint([Embedding(lambda z: z, target=Hyperbolic(1.0)), torch.sin]))


# -- potentials --------------------------------------------------------------------------------------------------------

POINTS = KEY.fold("points").normal((40, LATENT), dtype=DOUBLE)


def potentials() -> dict[str, Callable[[Tensor], Tensor]]:
    gaussian, bernoulli = boxed(MEAN["gaussian"])[0], boxed(EXACT["bernoulli"])[0]
    means = [geometry.mean_embedding(vae) for vae in (gaussian, bernoulli)]
    return {
        "decoder variance": geometry.decoder_variance(gaussian, POINTS),
        "disagreement": geometry.disagreement(means, POINTS),
        "distance from the data": geometry.off_data(POINTS, 0.5),
        "distance from the data, own scale": geometry.off_data(POINTS),
    }


def test_potentials_are_one_on_average() -> None:
    far = torch.cat((POINTS, 100 * POINTS))
    for name, potential in potentials().items():
        if potential.name != "distance from the data":
            torch.testing.assert_close(potential(POINTS).mean(), torch.tensor(1.0, dtype=DOUBLE), rtol=1e-12, atol=0)
        assert bool((potential(far) >= 0).all())
        assert potential(far).shape == (80,)
        named = geometry.with_potential(torch.sin, potential, 0.5)
        assert named.name == f"sin, times 1 + 0.5 × {potential.name}"
        assert name.split(",")[0] in named.name


def test_potentials_in_closed_form() -> None:
    found = potentials()
    gaussian, bernoulli = boxed(MEAN["gaussian"])[1], boxed(EXACT["bernoulli"])[1]
    variance = lambda z: gaussian(z).scale.square().flatten(1).sum(1)  # noqa: E731
    close(found["decoder variance"](-POINTS), variance(-POINTS) / variance(POINTS).mean())
    apart = lambda z: 0.5 * (gaussian(z).loc - bernoulli(z).mean).square().flatten(1).sum(1)  # noqa: E731
    close(found["disagreement"](-POINTS), apart(-POINTS) / apart(POINTS).mean())


def test_distance_from_the_data_in_closed_form() -> None:
    """−log of a mixture of normals at the points, from its largest value on them, in units of ½ d."""
    for scale in (0.5, None):
        apart = torch.cdist(POINTS, POINTS)
        width = scale or float(apart.sort(1).values[:, 5].mean())

        def density(z: Tensor, width: float = width) -> Tensor:
            normal = torch.distributions.MultivariateNormal(POINTS, width**2 * torch.eye(LATENT, dtype=DOUBLE))
            mixture = torch.distributions.Categorical(torch.ones(len(POINTS), dtype=DOUBLE))
            return torch.distributions.MixtureSameFamily(mixture, normal).log_prob(z)

        potential = geometry.off_data(POINTS, scale)
        z = 2 * POINTS
        expected = (density(POINTS).max() - density(z)).clamp_min(0) / (0.5 * LATENT)
        torch.testing.assert_close(potential(z), expected, rtol=0, atol=1e-11 * float(expected.max()))
    far = 1e4 * POINTS[:1]
    nearest = (far - POINTS).square().sum(1).min()
    torch.testing.assert_close(potential(far)[0] * 0.5 * LATENT, nearest / (2 * width**2), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["gaussian", "predicted"])
def test_metric_under_a_potential(name: str) -> None:
    """(1 + λV) G, whatever the target; several potentials multiply."""
    box = EXACT["gaussian"] if name == "gaussian" else MEAN["gaussian"]
    base = geometry.embedding(boxed(box)[0])
    plain = geometry.metric(base, POINTS[:5])
    first, second = geometry.off_data(POINTS), potentials()["decoder variance"]
    under = geometry.with_potential(base, first, 0.8)
    stretch = 1 + 0.8 * first(POINTS[:5])
    close(geometry.metric(under, POINTS[:5]), stretch[:, None, None] * plain)
    twice = geometry.with_potential(under, second, 2.0)
    stretch = stretch * (1 + 2 * second(POINTS[:5]))
    close(geometry.metric(twice, POINTS[:5]), stretch[:, None, None] * plain)
    assert "off" not in twice.name
    assert twice.name.count("times 1 +") == 2


def test_what_cannot_be_a_potential() -> None:
    refused("strength", lambda: geometry.with_potential(torch.sin, geometry.off_data(POINTS), 0.0))
    refused(
        "a metric alone", lambda: geometry.with_potential(geometry.MetricField(lambda z: z), geometry.off_data(POINTS))
    )
    refused("disagreement of 1", lambda: geometry.disagreement([torch.sin], POINTS))
    refused("disagreement of decoders", lambda: geometry.disagreement([torch.sin, torch.sin], POINTS))
    refused("scale", lambda: geometry.off_data(POINTS, 0.0))
    refused("has shape", lambda: geometry.off_data(POINTS[0]))
    refused("InputTypeError|not a model|a Linear", lambda: geometry.decoder_variance(nn.Linear(2, 2), POINTS))
