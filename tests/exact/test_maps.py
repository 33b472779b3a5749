"""Exponential and logarithmic map, transport, gradients, curvature, means against closed forms; float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from geometry_cases import (
    DOUBLE,
    EMBEDDED,
    PAIRS,
    PLANES,
    SPACES,
    TIGHT,
    R,
    categorical_model,
    gaussian_model,
    half_plane,
    half_plane_metric,
    linear,
    linear_pairs,
    normal,
    order,
    paraboloid,
    poisson_model,
    r,
    solved,
    sphere,
    sphere_metric,
    sphere_pairs,
    torus,
    uniform,
)
from support import refused
from torch import Tensor, nn

from vaelid import geometry
from vaelid.geometry import (
    Embedding,
    Flat,
    Hyperbolic,
    Product,
    Status,
    distance_gradient,
    exp_map,
    frechet_mean,
    geodesic,
    log_map,
    log_volume,
    metric,
    parallel_transport,
    sectional_curvature,
    speed,
    with_potential,
)

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own
STEPS = (8, 16)  # one step of these maps is some 10 ms of Python, whatever the number of points
U, V = normal("u", PAIRS, 2), normal("v", PAIRS, 2)
ACROSS = torch.eye(2, dtype=DOUBLE)


def towards(v: Tensor, f: object, z: Tensor, length: Tensor) -> Tensor:
    """v scaled to a length under the metric."""
    return v * (length / speed(f, z, v))[:, None]


# -- exponential and logarithmic map -----------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [sphere, sphere_metric], ids=["embedding", "metric"])
def test_exp_map_on_the_sphere(f: object) -> None:
    """x cos |w| + w/|w| sin |w| with w = Dφ v; the errors of end, end velocity and speed are of order 4."""
    z, _, length = sphere_pairs()
    v = towards(V, f, z, 0.4 * length)
    x, w = torch.func.jvp(sphere, (z,), (v,))
    size = w.norm(dim=1, keepdim=True)
    torch.testing.assert_close(size[:, 0], 0.4 * length, rtol=1e-12, atol=0)
    end, velocity = x * size.cos() + w / size * size.sin(), w * size.cos() - x * size * size.sin()
    ends, velocities, drifts = [], [], []
    for steps in STEPS:
        shot = exp_map(f, z, v, steps=steps)
        assert shot.path.shape == (PAIRS, steps + 1, 2)
        there, moving = torch.func.jvp(sphere, (shot.end,), (shot.velocity,))
        ends.append((there - end).norm(dim=1))
        velocities.append((moving - velocity).norm(dim=1))
        drifts.append(shot.drift)
    assert abs(order(ends) - 4) < 0.2
    assert order(velocities) > 3.8
    assert order(drifts) > 3.8
    assert drifts[-1].max() < 1e-5


@pytest.mark.parametrize("f", [half_plane, half_plane_metric], ids=["embedding", "metric"])
def test_exp_map_on_the_half_plane(f: object) -> None:
    """x + y (cos α · i eˢ + sin α) / (cos α − sin α · i eˢ), s = |v|/y: from x + iy with velocity s y i e^{2iα}."""
    z = uniform("upper", PAIRS, (-1, 1), (0.5, 2))
    v = towards(V, f, z, uniform("far", PAIRS, (0.5, 2))[:, 0])
    s, alpha = v.norm(dim=1) / z[:, 1], 0.5 * (torch.atan2(v[:, 1], v[:, 0]) - math.pi / 2)
    up = 1j * s.exp()
    exact = z[:, 0] + z[:, 1] * (alpha.cos() * up + alpha.sin()) / (alpha.cos() - alpha.sin() * up)
    errors = [(torch.complex(*exp_map(f, z, v, steps=steps).end.T) - exact).abs() for steps in STEPS]
    assert abs(order(errors) - 4) < 0.3
    assert errors[-1].max() < 1e-5


def test_exp_map_on_the_paraboloid_keeps_clairauts_constant() -> None:
    """r²θ̇ at both ends."""
    z, _, length = SPACES["paraboloid"].pairs()
    v = towards(V, paraboloid, z, length)
    turning = lambda z, v: z[:, 0] * v[:, 1] - z[:, 1] * v[:, 0]  # noqa: E731
    shots = [exp_map(paraboloid, z, v, steps=steps) for steps in STEPS]
    errors = [turning(shot.end, shot.velocity) - turning(z, v) for shot in shots]
    assert order(errors) > 3.8
    assert errors[-1].abs().max() < 1e-6


def test_exp_map_of_a_linear_decoder_is_a_straight_line() -> None:
    a, b, _ = linear_pairs()
    shot = exp_map(linear, a, b - a, steps=4)
    torch.testing.assert_close(shot.end, b, rtol=0, atol=1e-14)
    assert shot.drift.max() < 1e-14


@pytest.mark.parametrize("name", PLANES)
def test_exp_of_log_is_the_identity(name: str) -> None:
    """To order 4; the logarithm is as long as the distance."""
    f = SPACES[name].f
    a, b, exact = SPACES[name].pairs()
    missed, long = [], []
    for steps in STEPS:
        v, found = log_map(f, a, b, segments=steps)
        shot = exp_map(f, a, v, steps=steps)
        missed.append((shot.end - b).norm(dim=1))
        long.append((speed(f, a, v) - exact).abs())
        assert (found.decrement < TIGHT).all()
    assert shot.drift.max() < 1e-4
    if name == "linear":
        assert max(missed[-1].max(), long[-1].max()) < 1e-12
    else:
        assert abs(order(missed) - 4) < 0.3
        assert abs(order(long) - 4) < 0.3


# -- transport ---------------------------------------------------------------------------------------------------------


def test_holonomy_of_the_sphere() -> None:
    """Once round the circle of colatitude θ about the chart's origin a tangent has turned by 2π (1 − cos θ)."""
    colatitude = torch.tensor([0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8], dtype=DOUBLE)
    turned = []
    for n in (16, 32):
        angle = torch.linspace(0, 2 * math.pi, n + 1, dtype=DOUBLE)
        path = (colatitude / 2).tan()[:, None, None] * torch.stack((angle.cos(), angle.sin()), 1)
        x, y = parallel_transport(sphere, path, ACROSS[:1].repeat(len(colatitude), 1)).T
        error = torch.atan2(y, x) - 2 * math.pi * (1 - colatitude.cos())
        turned.append(torch.atan2(error.sin(), error.cos()).abs())
    assert ((turned[0] / turned[1]).log2() > 3.5)[3:].all()
    assert (turned[1] < 1e-5)[:3].all()  # errors of orders 4 and 5 with unlike signs, on the way to the fourth


@pytest.mark.parametrize("name", ["sphere", "sphere, metric", "Gaussian", "paraboloid"])
def test_transport_along_geodesics(name: str) -> None:
    """Lengths and angles are kept to order 4; the geodesic's own velocity arrives as its velocity at the end."""
    f, (a, _, length) = SPACES[name].f, SPACES[name].pairs()
    w = torch.stack((U, V, towards(V, f, a, 0.5 * length)), 1)
    before, lost, apart = w @ metric(f, a) @ w.mT, [], []
    for steps in STEPS:
        shot = exp_map(f, a, w[:, 2], steps=steps)
        carried = parallel_transport(f, shot.path, w)
        lost.append((carried @ metric(f, shot.end) @ carried.mT - before).flatten(1).norm(dim=1))
        apart.append((carried[:, 2] - shot.velocity).norm(dim=1))
    assert order(lost) > 3.7
    assert order(apart) > 2.9  # the spline's velocity is of order 3 near its ends


def test_transport_under_a_flat_metric_changes_nothing_in_the_embedding() -> None:
    a, b, _ = linear_pairs()
    w = torch.stack((U, V), 1)
    torch.testing.assert_close(parallel_transport(linear, torch.stack((a, a + V, b), 1), w), w, rtol=0, atol=1e-14)


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMBEDDED)
def test_distance_gradient_by_central_differences(name: str) -> None:
    """Up to h² of the differences, √TIGHT of the path, and TIGHT / h of the energies."""
    f, (a, b, _) = SPACES[name].f, SPACES[name].pairs()
    h, d = 1e-4, a.shape[1]
    at_a, at_b = distance_gradient(f, solved(name, 16))
    step = h * torch.eye(d, dtype=DOUBLE).repeat(PAIRS, 1)
    a, b = (x.repeat_interleave(d, 0) for x in (a, b))

    def squared(a: Tensor, b: Tensor) -> Tensor:
        return 2 * geodesic(f, a, b, segments=16, tolerance=TIGHT).energy

    for gradient, difference in (
        (at_a, squared(a + step, b) - squared(a - step, b)),
        (at_b, squared(a, b + step) - squared(a, b - step)),
    ):
        torch.testing.assert_close(
            gradient, difference.view(PAIRS, d) / (2 * h), rtol=0, atol=1e-6 * float(gradient.abs().max())
        )


def test_distance_gradient_is_minus_twice_the_logarithm() -> None:
    """∂d²/∂a = −2 G log_a(b), in order 2."""
    a, b, _ = sphere_pairs()
    v, _ = log_map(sphere, a, b, segments=64)
    exact = -2 * (metric(sphere, a) @ v[:, :, None])[..., 0]
    errors = [(distance_gradient(sphere, solved("sphere", n))[0] - exact).norm(dim=1) for n in (8, 16, 32)]
    assert abs(order(errors) - 2) < 0.1


# -- curvature and volume ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANES)
def test_sectional_curvature(name: str) -> None:
    space = SPACES[name]
    z = torch.cat(space.pairs()[:2])
    found = sectional_curvature(space.f, z, U.repeat(2, 1), V.repeat(2, 1))
    torch.testing.assert_close(found, space.curvature(z), rtol=0, atol=1e-11)


def test_curvature_of_families() -> None:
    """√p of a categorical on a sphere of radius 2: ¼; independent Poissons: 0; one Gaussian −½; two, of a plane across
    both, −½ Σ areas² by the whole area²."""
    k = lambda model, d: sectional_curvature(  # noqa: E731
        geometry.embedding(model), *(normal(f"curved {x}", PAIRS, d) for x in "zuv")
    )
    torch.testing.assert_close(k(categorical_model(4), 3), torch.full((PAIRS,), 0.25, dtype=DOUBLE), rtol=0, atol=1e-9)
    torch.testing.assert_close(k(poisson_model(3), 3), torch.zeros(PAIRS, dtype=DOUBLE), rtol=0, atol=1e-9)
    torch.testing.assert_close(k(gaussian_model(1), 2), torch.full((PAIRS,), -0.5, dtype=DOUBLE), rtol=0, atol=1e-9)
    f = geometry.embedding(gaussian_model(2))
    z, u, v = (normal(f"curved {x}", PAIRS, 4) for x in "zuv")
    g = metric(f, z)
    plane = torch.tensor([0, 2])
    squares = lambda g, u, v: torch.linalg.det(torch.stack((u, v), 1) @ g @ torch.stack((u, v), 2))  # noqa: E731
    parts = sum(squares(g[:, i][:, :, i], u[:, i], v[:, i]) for i in (plane, plane + 1))
    torch.testing.assert_close(sectional_curvature(f, z, u, v), -0.5 * parts / squares(g, u, v), rtol=1e-9, atol=1e-12)


def egregium(coordinates: Callable[[Tensor], Tensor], scales: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """K of a surface at z (2,) from its metric alone: ⟨R(e₁, e₂) e₂, e₁⟩ / det G with Christoffel symbols, where the
    target's metric is diagonal in its coordinates, with the squares of ``scales`` there."""

    def g(z: Tensor) -> Tensor:
        frame = scales(coordinates(z))[:, None] * torch.func.jacrev(coordinates)(z)
        return frame.T @ frame

    def gamma(z: Tensor) -> Tensor:
        d = torch.func.jacrev(g)(z)  # ∂_c g_ab at [a, b, c]
        return 0.5 * torch.linalg.inv(g(z)) @ (d.permute(0, 2, 1) + d - d.permute(2, 0, 1)).flatten(1)

    at, moved = gamma(z).view(2, 2, 2), torch.func.jacrev(gamma)(z).view(2, 2, 2, 2)
    turn = moved[:, 1, 1, 0] - moved[:, 0, 1, 1] + at[:, 0] @ at[:, 1, 1] - at[:, 1] @ at[:, 0, 1]
    return (g(z)[0] @ turn) / torch.linalg.det(g(z))


def surface(z: Tensor) -> Tensor:
    """(x₁, x₂, log σ₁, log σ₂, y₁, y₂) of a surface that is curved in every way."""
    u, v = z[..., 0], z[..., 1]
    parts = (u.sin() + v, u * v, 0.5 * u.cos() * v, 0.3 * u - 0.2 * v.square(), u.square(), (u + v).cos())
    return torch.stack(parts, -1)


@pytest.mark.parametrize("target", ["flat", "hyperbolic", "product"])
def test_curvature_is_intrinsic(target: str) -> None:
    """Gauss's equation in the target against the Riemann tensor of G: II does not vanish here."""
    beta = torch.tensor([2.0, 0.7], dtype=DOUBLE)
    planes = lambda x: torch.cat(((-x[2:4]).exp(), beta.sqrt()))  # noqa: E731
    some = {"flat": slice(0, 6), "hyperbolic": slice(0, 4), "product": slice(0, 6)}[target]
    scales = {
        "flat": torch.ones_like,
        "hyperbolic": planes,
        "product": lambda x: torch.cat((math.sqrt(0.4) * planes(x), torch.full_like(x[4:], math.sqrt(3.0)))),
    }[target]
    f = {
        "flat": surface,
        "hyperbolic": Embedding(lambda z: surface(z)[:, :4], target=Hyperbolic(beta)),
        "product": Embedding(surface, target=Product([Hyperbolic(beta), Flat()], [4, 2], [0.4, 3.0])),
    }[target]
    z = normal("surface", 3, 2)
    found = sectional_curvature(f, z, U[:3], V[:3])
    exact = torch.stack([egregium(lambda z: surface(z)[some], scales, at) for at in z])
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-11)
    assert (found.abs() > 1e-3).all()


def test_total_curvature_and_area() -> None:
    """∫ K dA = 0 and ∫ dA = 4π² R r of the torus by the trapezoidal rule, which is exact up to e^{−n}; the sphere's
    area 4π by Gauss's rule over t, |z| = t / (1 − t)."""
    n = 32
    t = torch.arange(n, dtype=DOUBLE) * (2 * math.pi / n)
    z = torch.cartesian_prod(t, t)
    area = log_volume(torus, z).exp() * (2 * math.pi / n) ** 2
    total = sectional_curvature(torus, z, ACROSS[:1], ACROSS[1:]) * area
    assert abs(float(total.sum())) < 1e-10 * float(total.abs().sum())
    assert float(area.sum()) == pytest.approx(4 * math.pi**2 * R * r, rel=1e-12)
    place, weight = np.polynomial.legendre.leggauss(40)
    t = torch.from_numpy((place + 1) / 2)
    radius, turn = t / (1 - t), torch.arange(4, dtype=DOUBLE) * (math.pi / 2) + 0.3
    z = radius[:, None, None] * torch.stack((turn.cos(), turn.sin()), 1)
    density = log_volume(sphere, z.view(-1, 2)).exp().view(40, 4).mean(1)
    found = 2 * math.pi * (density * radius / (1 - t).square() * torch.from_numpy(weight / 2)).sum()
    assert float(found) == pytest.approx(4 * math.pi, rel=1e-12)


def network(activation: nn.Module, sigmoid: bool) -> nn.Module:
    torch.manual_seed(1)
    layers = (nn.Linear(2, 32), activation, nn.Linear(32, 32), activation, nn.Linear(32, 10))
    return nn.Sequential(*layers, *([nn.Sigmoid()] if sigmoid else [])).double()


SECOND_ORDER: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "curvature": lambda f, z: sectional_curvature(f, z, U, V),
    "exp": lambda f, z: exp_map(f, z, V, steps=1),
    "transport": lambda f, z: parallel_transport(f, torch.stack((z, z + V), 1), V),
}


@pytest.mark.parametrize("sigmoid", [False, True], ids=["plain", "sigmoid"])
@pytest.mark.parametrize("call", SECOND_ORDER)
def test_piecewise_linear_networks_are_refused(call: str, sigmoid: bool) -> None:
    """ReLU's second derivative vanishes where it exists; smooth networks and linear decoders pass."""
    z = normal("kinks", PAIRS, 2)
    for activation in (nn.ReLU(), nn.LeakyReLU(0.1)):
        f = network(activation, sigmoid)
        refused("Jacobian .*Sequential.*expected a smooth one.*ReLU.*GELU", lambda f=f: SECOND_ORDER[call](f, z))
        assert geodesic(f, z, z + V, segments=8).length.isfinite().all()
        assert log_volume(f, z).isfinite().all()
    for activation in (nn.GELU(), nn.Tanh(), nn.Identity()):
        SECOND_ORDER[call](network(activation, sigmoid), z)


def test_what_has_no_curvature_is_refused() -> None:
    z = uniform("upper", PAIRS, (-1, 1), (0.5, 2))
    refused("curvature of a metric alone", lambda: sectional_curvature(half_plane_metric, z, U, V))
    refused("one latent dimension", lambda: sectional_curvature(lambda z: z, z[:, :1], U[:, :1], V[:, :1]))
    stretched = with_potential(lambda z: z, lambda z: z.square().sum(1))
    refused("curvature under a potential", lambda: sectional_curvature(stretched, z, U, V))
    refused("metric without an embedding", lambda: log_map(half_plane_metric, z, z + 1))
    refused("mean under a metric alone", lambda: frechet_mean(half_plane_metric, z))
    assert sectional_curvature(sphere, z, U, 2 * U).isnan().all()  # no plane


# -- means -------------------------------------------------------------------------------------------------------------


def karcher(x: Tensor, weight: Tensor) -> tuple[Tensor, float]:
    """Mean of points of the sphere by its fixed point m ← exp_m(Σ w log_m x), and Σ w d²."""
    m = weight @ x
    m = m / m.norm()
    for _ in range(200):
        angle = torch.acos((x @ m).clamp(-1, 1))
        side = x - angle.cos()[:, None] * m
        step = weight @ (angle[:, None] * side / side.norm(dim=1, keepdim=True))
        size = step.norm().clamp_min(1e-300)
        m = m * size.cos() + step / size * size.sin()
    return m, float(weight @ torch.acos(x @ m).square())


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.0, 3.0, 1.0, 0.5]], ids=["equal", "weighted"])
def test_mean_on_the_sphere(weights: list[float] | None) -> None:
    """Mean and variance converge to the fixed point's with order 2, the energy's; there the gradient vanishes."""
    z = uniform("averaged", 6, (-0.9, 0.9), (-0.2, 1.2))
    given = None if weights is None else torch.tensor(weights, dtype=DOUBLE)
    share = torch.ones(6, dtype=DOUBLE) if given is None else given
    share = share / share.sum()
    exact, variance = karcher(sphere(z), share)
    off, spread = [], []
    for n in (8, 16, 32):
        found = frechet_mean(sphere, z, given, segments=n, tolerance=TIGHT)
        assert found.status == Status.CONVERGED
        off.append((sphere(found.mean[None]) - exact).norm(dim=1))
        spread.append(torch.tensor([found.variance - variance], dtype=DOUBLE))
        assert found.variance == pytest.approx(float(share @ found.distance.square()), rel=1e-12)
    assert abs(order(off) - 2) < 0.05
    assert abs(order(spread) - 2) < 0.05
    _, at_mean = distance_gradient(sphere, geodesic(sphere, z, found.mean[None], segments=32, tolerance=TIGHT))
    assert (share @ at_mean).abs().max() < 10 * math.sqrt(TIGHT) * at_mean.abs().max()


def test_mean_of_a_linear_decoder_is_the_arithmetic_one() -> None:
    """In one step: all is quadratic."""
    a, _, _ = linear_pairs()
    weights = torch.arange(1, PAIRS + 1, dtype=DOUBLE)
    for given, share in ((None, torch.full_like(weights, 1 / PAIRS)), (weights, weights / weights.sum())):
        found = frechet_mean(linear, a, given, tolerance=TIGHT)
        assert found.iterations == 1
        torch.testing.assert_close(found.mean, share @ a, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["sphere", "half-plane", "paraboloid", "roll"])
def test_mean_of_two_points_is_in_the_middle(name: str) -> None:
    """The two paths together are the path of twice as many segments between the points, to the last node."""
    f, (a, b, _) = SPACES[name].f, SPACES[name].pairs()
    for i in (0, 5):
        found = frechet_mean(f, torch.stack((a[i], b[i])), segments=32, tolerance=TIGHT)
        whole = solved(name, 64)
        torch.testing.assert_close(found.mean, whole.path[i, 32], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.distance.sum(), whole.distance[i], rtol=math.sqrt(TIGHT), atol=0)
        assert found.variance == pytest.approx(float(whole.energy[i]) / 2, rel=1e-12)
