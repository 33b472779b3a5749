"""Geodesics against closed forms: distances, orders of refinement, invariances, several minima, potentials; float64."""

from __future__ import annotations

import math

import pytest
import torch
from geometry_cases import (
    DOUBLE,
    EMBEDDED,
    LEVELS,
    PAIRS,
    SPACES,
    TIGHT,
    arcs,
    categorical_model,
    circle,
    gaussian_distance,
    gaussian_model,
    hyperbolic,
    linear,
    linear_pairs,
    meridian,
    normal,
    order,
    paraboloid,
    paraboloid_lines,
    poisson_model,
    richardson,
    roll,
    roll_distance,
    solved,
    sphere,
    torus,
    uniform,
    vanish,
)
from torch import Tensor

from vaelid import geometry
from vaelid.geometry import Embedding, Graph, MetricField, Status, curves, distances, geodesic, with_potential
from vaelid.geometry.manifold import prepare
from vaelid.geometry.newton import minimise

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own
ROUNDING = 1e-13  # a few hundred units in the last place, for sums over 64 segments


def point(*x: float) -> Tensor:
    return torch.tensor([x], dtype=DOUBLE)


def polar(angle: Tensor) -> Tensor:
    return torch.stack((angle.cos(), angle.sin()), -1)


# -- closed forms and orders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_distances_and_their_orders(name: str) -> None:
    """√(2E) of order 2; of order 4 its extrapolation, and the length, whose nodes are off by N⁻² across the path."""
    _, _, exact = SPACES[name].pairs()
    found = [solved(name, n) for n in LEVELS]
    for error, expected in (
        ([g.distance - exact for g in found], 2),
        ([d - exact for d in richardson([g.distance for g in found])], 4),
    ):
        assert vanish(error) if name == "linear" else abs(order(error) - expected) < 0.05
    lengths = [g.length - exact for g in found]
    assert vanish(lengths) or order(lengths) > 3.95
    assert vanish([g.error for g in found]) or abs(order([g.error for g in found]) - 4) < 0.05


@pytest.mark.parametrize("name", [name for name, space in SPACES.items() if space.chords])
def test_chord_energy_of_equal_segments(name: str) -> None:
    """Where all points are alike the least chord energy is known for every N: that of N equal arcs."""
    space = SPACES[name]
    _, _, exact = space.pairs()
    for n in LEVELS:
        torch.testing.assert_close(solved(name, n).distance, space.chords(exact, n), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", SPACES)
def test_bracket(name: str) -> None:
    """chord ≤ d ≤ length + error, from N = 8 on; a curved target has a chord as long as the distance in it."""
    _, _, exact = SPACES[name].pairs()
    for n in LEVELS:
        found = solved(name, n)
        assert (found.chord <= exact * (1 + ROUNDING)).all()
        assert (exact <= found.length + found.error + ROUNDING).all()
        if name in ("half-plane", "Gaussian", "linear"):
            torch.testing.assert_close(found.chord, exact, rtol=1e-12, atol=0)
        elif isinstance(SPACES[name].f, MetricField):
            assert not found.chord.any()
        else:
            assert (found.chord < found.distance).all()


def test_chord_sum_on_a_circle() -> None:
    """−L³ / 24N², the next term being L⁵ / 1920N⁴, of which extrapolation leaves a quarter with the other sign."""
    far = 1.397
    coarse, fine = (float(geodesic(circle, point(0), point(far), segments=n).distance) for n in (16, 32))
    assert coarse - far == pytest.approx(-(far**3) / (24 * 16**2), abs=far**5 / (1920 * 16**4))
    assert coarse - far == pytest.approx(-4.44e-4, abs=5e-7)
    assert (4 * fine - coarse) / 3 - far == pytest.approx(-(far**5) / (4 * 1920 * 16**4), rel=1e-3)
    assert (4 * fine - coarse) / 3 - far == pytest.approx(-1.06e-8, abs=5e-11)


def test_linear_decoder_takes_one_step() -> None:
    """None on any level from the straight line, which is the geodesic; one from a curve within the first radius of
    steps; two from each bent start, which is as far off as the ends are apart."""
    a, b, exact = linear_pairs()
    for starts in (1, 2, 3):
        found = geodesic(linear, a, b, starts=starts, tolerance=1e-12)
        assert (found.iterations <= 2 * (starts - 1)).all()
        assert found.minima.tolist() == [1] * PAIRS
        torch.testing.assert_close(found.length, exact, rtol=ROUNDING, atol=0)
    f, _ = prepare(linear, a=a)
    line = curves.straight(a, b, 32)
    start = line.clone()
    start[:, 1:-1] += (
        0.3 * (b - a).norm(dim=1)[:, None, None] * uniform("off", PAIRS * 31, *2 * [(-1, 1)]).view(PAIRS, 31, 2)
    )
    found = minimise(f, start, 1e-20, 10)
    assert found.iterations.tolist() == [1] * PAIRS
    torch.testing.assert_close(found.nodes, line, rtol=0, atol=1e-11)


# -- likelihoods -------------------------------------------------------------------------------------------------------


def family(name: str) -> tuple[Embedding, Tensor, Tensor, Tensor, list[Tensor]]:
    """The embedding of a model, pairs, their distance, and √(2E) in closed form on each level."""
    model = {"categorical": categorical_model, "Poisson": poisson_model}.get(name, gaussian_model)(
        {"categorical": 4, "Poisson": 3, "Gaussian": 1, "Gaussians": 2}[name]
    )
    a, b = (0.7 * normal(f"{name} {end}", PAIRS, model.prior.latent) for end in "ab")
    p, q = model.decode(a), model.decode(b)
    if name == "categorical":
        exact = 2 * torch.acos((p.probs * q.probs).sqrt().sum((1, 2)))
        chords = [arcs(2.0)(exact, n) for n in LEVELS]
    elif name == "Poisson":
        exact = 2 * (p.mean.sqrt() - q.mean.sqrt()).norm(dim=1)
        chords = [exact for _ in LEVELS]
    else:
        each = gaussian_distance(model, a, b)
        exact = each.norm(dim=1)
        chords = [hyperbolic(2.0)(each, n).norm(dim=1) for n in LEVELS]
    return geometry.embedding(model), a, b, exact, chords


@pytest.mark.parametrize("name", ["categorical", "Poisson", "Gaussian", "Gaussians"])
def test_families(name: str) -> None:
    """2 arccos Σ √(pq); 2 |Δ√λ|; √2 arccosh(1 + (Δμ²/2 + Δσ²) / 2σ₁σ₂), a root of a sum of squares over features."""
    f, a, b, exact, chords = family(name)
    found = [geodesic(f, a, b, segments=n, tolerance=TIGHT) for n in LEVELS]
    for g, expected in zip(found, chords, strict=True):
        assert g.converged.all()
        torch.testing.assert_close(g.distance, expected, rtol=1e-12, atol=0)
    assert (found[-1].length - exact).abs().max() < 1e-11
    assert order([g.length - exact for g in found[:3]]) > 3.95
    if name != "categorical":
        torch.testing.assert_close(found[0].chord, exact, rtol=1e-12, atol=0)
    assert "Fisher–Rao" in found[0].metric


# -- invariances -------------------------------------------------------------------------------------------------------


BENT = torch.tensor([[2.0, 1.5], [-1.0, 2.5]], dtype=DOUBLE)


def bend(z: Tensor) -> Tensor:
    """A diffeomorphism of the plane: the identity and a contraction."""
    return z + 0.25 * torch.sin(z @ BENT.T)


def unbend(w: Tensor) -> Tensor:
    z = w.clone()
    for _ in range(300):
        z = w - 0.25 * torch.sin(z @ BENT.T)
    torch.testing.assert_close(bend(z), w, rtol=0, atol=1e-14)
    return z


@pytest.mark.parametrize("name", ["linear", "sphere", "half-plane", "paraboloid", "torus", "roll"])
def test_coordinates_do_not_matter(name: str) -> None:
    """Chord energies see φ alone and are the same for every N; lengths of splines in z agree to their order."""
    assert 0.25 * torch.linalg.matrix_norm(BENT, 2) < 0.8
    space = SPACES[name]
    a, b, _ = space.pairs()
    f = Embedding(lambda z: space.embedding(bend(z)), target=space.embedding.target)
    apart = []
    for n in LEVELS[1:]:
        found = geodesic(f, unbend(a), unbend(b), segments=n, tolerance=TIGHT)
        assert found.converged.all()
        plain = solved(name, n)
        torch.testing.assert_close(found.distance, plain.distance, rtol=1e-12, atol=0)
        moved = bend(found.path.flatten(0, 1)).view_as(plain.path)
        torch.testing.assert_close(moved, plain.path, rtol=0, atol=1e-5)  # √TIGHT times how far flat directions reach
        apart.append(found.length - plain.length)
    assert order(apart) > 3.5


@pytest.mark.parametrize("name", SPACES)
def test_symmetry(name: str) -> None:
    a, b, _ = SPACES[name].pairs()
    back, found = geodesic(SPACES[name].f, b, a, segments=16, tolerance=TIGHT), solved(name, 16)
    torch.testing.assert_close(back.distance, found.distance, rtol=1e-12, atol=0)
    torch.testing.assert_close(back.length, found.length, rtol=1e-9, atol=0)  # of first order in the path's √TIGHT
    torch.testing.assert_close(back.path.flip(1), found.path, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", EMBEDDED)
def test_constant_speed(name: str) -> None:
    """Chords of one length: exactly where all points are alike, else up to the order of refinement."""
    space, spread = SPACES[name], []
    for n in LEVELS:
        nodes = solved(name, n).path
        phi = space.embedding(nodes.flatten(0, 1)).view(PAIRS, n + 1, -1)
        steps = space.embedding.target.residual(phi[:, :-1], phi[:, 1:]).norm(dim=2)
        spread.append((steps.amax(1) - steps.amin(1)) / steps.mean(1))
    if space.chords or name == "torus":  # paths of `torus_pairs` are circles
        assert max(x.max() for x in spread) < 10 * math.sqrt(TIGHT)
    else:
        assert abs(order(spread) - 2) < 0.1


@pytest.mark.parametrize("name", SPACES)
def test_energy_is_never_above_that_of_the_straight_line(name: str) -> None:
    a, b, _ = SPACES[name].pairs()
    for iterations in (0, 1, 2, 100):
        found = geodesic(SPACES[name].f, a, b, segments=8, iterations=iterations)
        assert (found.energy <= found.straight_energy * (1 + ROUNDING)).all()
        assert ((found.status == int(Status.CONVERGED)) | (found.status == int(Status.MORE))).all()


@pytest.mark.parametrize("name", ["sphere", "Gaussian", "roll", "half-plane, metric"])
def test_pairs_do_not_disturb_one_another(name: str) -> None:
    a, b, _ = SPACES[name].pairs()
    many = solved(name, 16)
    for i in range(0, PAIRS, 3):
        one = geodesic(SPACES[name].f, a[i : i + 1], b[i : i + 1], segments=16, tolerance=TIGHT)
        assert one.iterations[0] == many.iterations[i]
        torch.testing.assert_close(one.length[0], many.length[i], rtol=1e-12, atol=0)
        torch.testing.assert_close(one.path[0], many.path[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["sphere", "half-plane"])
def test_georce_finds_the_same(name: str) -> None:
    """By the midpoint rule: other errors of order 2 in nodes and energy, the same length up to order 4."""
    plain = [solved(name, n) for n in LEVELS]
    alone = [solved(f"{name}, metric", n) for n in LEVELS]
    both = list(zip(plain, alone, strict=True))
    assert abs(order([p.distance - m.distance for p, m in both]) - 2) < 0.05
    assert abs(order([(p.path - m.path).flatten(1).abs().amax(1) for p, m in both]) - 2) < 0.05
    assert order([p.length - m.length for p, m in both]) > 3.9


def test_triangle_inequality() -> None:
    """Of the matrix of distances, in closed form as well."""
    z = uniform("triangle", 10, (-1, 1), (-1, 1))
    exact = torch.acos((sphere(z) @ sphere(z).T).clamp(-1, 1)).fill_diagonal_(0)
    found = distances(sphere, z, segments=16, tolerance=1e-10)
    assert found.converged_share == 1
    assert torch.equal(found.length, found.length.T)
    assert found.violations(0) == (0, 45)
    torch.testing.assert_close(found.length, exact, rtol=0, atol=1e-6)  # order 4: h⁴ with h = π / 16 is 1e-3, over 1440
    assert (found.chord <= exact + ROUNDING).all()
    torch.testing.assert_close(found.chord, torch.cdist(sphere(z), sphere(z)), rtol=0, atol=1e-7)


# -- surfaces ----------------------------------------------------------------------------------------------------------


def test_meridians_of_the_paraboloid() -> None:
    """½ r √(1 + 4r²) + ¼ asinh 2r from the apex to r; the difference of two on one side, the sum across the apex."""
    near, far, angle = uniform("meridian", PAIRS, (0.1, 0.4), (0.6, 1.5), (-3, 3)).unbind(1)
    apex, one, two = torch.zeros(PAIRS, 2, dtype=DOUBLE), near[:, None] * polar(angle), far[:, None] * polar(angle)
    cases = (apex, two, meridian(far)), (one, two, meridian(far) - meridian(near)), (-one, one, 2 * meridian(near))
    for a, b, exact in cases:
        found = geodesic(paraboloid, a, b, segments=64, tolerance=TIGHT)
        assert found.converged.all()
        torch.testing.assert_close(found.length, exact, rtol=1e-7, atol=0)  # (1 / 64)⁴ = 6e-8
        torch.testing.assert_close((4 * found.distance - geodesic(
            paraboloid, a, b, segments=32, tolerance=TIGHT).distance) / 3, exact, rtol=1e-7, atol=0)  # fmt: skip


@pytest.mark.parametrize("name", ["paraboloid", "torus"])
def test_clairaut(name: str) -> None:
    """N ρᵢ ρᵢ₊₁ sin Δθ is the same for all segments, by symmetry; on the paraboloid its limit is c · d."""
    f = {"paraboloid": paraboloid, "torus": torus}[name]
    a, b, exact = SPACES["paraboloid"].pairs()
    limit = []
    for n in LEVELS:
        path = geodesic(f, a, b, segments=n, tolerance=TIGHT).path
        x, y, _ = f(path.flatten(0, 1)).view(PAIRS, n + 1, 3).unbind(2)
        constant = n * (x[:, :-1] * y[:, 1:] - y[:, :-1] * x[:, 1:])
        assert ((constant.amax(1) - constant.amin(1)) < 1e-5 * constant.abs().amax(1)).all()  # √TIGHT per node, by N
        limit.append(constant.mean(1) - paraboloid_lines()[0] * exact)
    assert name == "torus" or abs(order(limit) - 2) < 0.05


def test_few_segments_leap_through_the_swiss_roll() -> None:
    """With N = 8 and 16 chords skip a turn, √(2E) falls far below d although the search converged, and `error` shows
    it: above a tenth of the length. With N = 32 none does."""
    a, b = uniform("leap a", 12, (2, 6), (0, 2)), uniform("leap b", 12, (8, 14), (0, 2))
    exact, leapt = roll_distance(a, b), []
    for n in (8, 16, 32):
        found = geodesic(roll, a, b, segments=n)
        assert found.converged.all()
        short = found.distance < 0.9 * exact
        leapt.append(int(short.sum()))
        assert (found.error[short] > 0.1 * found.length[short]).all()
        assert (found.error[~short] < 0.01 * found.length[~short]).all()
        torch.testing.assert_close(found.length[~short], exact[~short], rtol=1e-3, atol=0)  # the default tolerance
    assert leapt[0] > leapt[1] > leapt[2] == 0


# -- several minima ----------------------------------------------------------------------------------------------------


def test_opposite_points_of_the_sphere_are_a_tie() -> None:
    """Every half great circle is as short; points a radian away from that have one way alone."""
    found = geodesic(sphere, point(1, 0), point(-1, 0), starts=3, tolerance=1e-8)
    assert found.converged.all()
    assert found.minima >= 2
    assert found.tie.all()
    assert found.length.item() == pytest.approx(math.pi, abs=1e-6)
    found = geodesic(sphere, point(1, 0), polar(point(math.pi - 1)[0]), starts=3, tolerance=1e-8)
    assert found.minima.tolist() == [1]
    assert not found.tie.any()
    assert found.length.item() == pytest.approx(math.pi - 1, abs=1e-6)


def hill(z: Tensor) -> Tensor:
    return torch.cat((z, 3 * torch.exp(-z.square().sum(1, keepdim=True))), 1)


def test_two_ways_round_a_hill() -> None:
    """Equal on a level through its top; one is shorter above it, and a straight start finds the one on its side."""
    a, b = torch.cat((point(-2, 0), point(-2, 0.3))), torch.cat((point(2, 0), point(2, 0.3)))
    found = geodesic(hill, a, b, starts=5, tolerance=1e-8)
    assert found.converged.all()
    assert (found.minima >= 2).all()
    assert found.tie.tolist() == [True, False]
    assert found.path[1, 16, 1] > 0.5
    one = geodesic(hill, a[1:], b[1:], tolerance=1e-8)
    torch.testing.assert_close(one.length, found.length[1:], rtol=1e-6, atol=0)
    mirrored = geodesic(hill, a[1:] * point(1, -1), b[1:] * point(1, -1), starts=5, tolerance=1e-8)
    torch.testing.assert_close(mirrored.length, found.length[1:], rtol=1e-6, atol=0)


def test_saddles_are_no_minima() -> None:
    """Straight over the hill is a saddle by symmetry; the two ways round it are minima of one length."""

    def hill(z: Tensor) -> Tensor:
        return torch.cat((z, 3 * torch.exp(-z.square().sum(-1, keepdim=True))), -1)

    over = geodesic(hill, point(-2, 0), point(2, 0), tolerance=1e-10)
    around = geodesic(hill, point(-2, 0), point(2, 0), starts=3, tolerance=1e-10)
    assert over.converged.all()
    assert (over.path[..., 1] == 0).all()
    assert around.length < 0.8 * over.length
    assert around.minima.tolist() == [2]
    assert around.tie.tolist() == [True]


# -- potentials --------------------------------------------------------------------------------------------------------


def test_a_potential_in_closed_form() -> None:
    """(1 + λ|z|²) |dz|²: rays z″ = λz of length ∫ (1 + λ|z|²) dτ, shortest since the curvature is below 0."""
    strength = 0.8
    root = math.sqrt(strength)
    z = uniform("ray", PAIRS, (-1, 1), (-1, 1))
    tau, angle = uniform("ray at", PAIRS, (0.3, 1.2), (-3, 3)).unbind(1)
    w = (1 + strength * z.square().sum(1)).sqrt()[:, None] * polar(angle) / root
    end = z * torch.cosh(root * tau)[:, None] + w * torch.sinh(root * tau)[:, None]
    double = torch.sinh(2 * root * tau) / (4 * root)
    squares = z.square().sum(1) * (double + tau / 2) + w.square().sum(1) * (double - tau / 2)
    exact = tau + strength * (squares + (z * w).sum(1) * torch.sinh(root * tau).square() / root)
    f = with_potential(lambda z: z, lambda z: z.square().sum(1), strength)
    found = [geodesic(f, z, end, segments=n, tolerance=TIGHT) for n in LEVELS]
    assert abs(order([g.distance - exact for g in found]) - 2) < 0.05
    assert abs(order([d - exact for d in richardson([g.distance for g in found])]) - 4) < 0.05
    assert order([g.length - exact for g in found]) > 3.9
    torch.testing.assert_close(found[0].chord, (end - z).norm(dim=1), rtol=ROUNDING, atol=0)
    assert (found[0].chord < exact).all()


RING = polar(uniform("ring", 40, (-math.pi, math.pi))[:, 0])
ANGLE, GAP = torch.tensor([[0.0, 1.0, -2.5, 0.5], [2.0, 2.4, -2.2, 2.6]], dtype=DOUBLE)


@pytest.mark.parametrize("by_graph", [False, True])
def test_paths_stay_on_a_ring_of_data(by_graph: bool) -> None:
    """Without a potential they are straight, at best cos ½Δ from the centre; with one they are longer than the chord,
    but not than the arc, and stay where the potential is worth what it adds."""
    a, b = polar(ANGLE), polar(ANGLE + GAP)
    plain = geodesic(lambda z: z, a, b)
    torch.testing.assert_close(plain.length, 2 * (0.5 * GAP).sin().abs(), rtol=ROUNDING, atol=0)
    torch.testing.assert_close(plain.path.norm(dim=2).amin(1), (0.5 * GAP).cos(), rtol=1e-12, atol=0)
    f = with_potential(lambda z: z, geometry.off_data(RING, 0.2), 3.0)
    found = geodesic(f, a, b, graph=Graph.build(f, RING) if by_graph else None)
    assert found.converged.all()
    arc = polar(ANGLE[:, None] + GAP[:, None] * torch.linspace(0, 1, 129, dtype=DOUBLE))
    assert (found.length <= geometry.length(f, arc) + found.error).all()
    assert (found.length < geometry.length(f, plain.path)).all()
    assert (found.length > plain.length).all()
    assert (found.path.norm(dim=2) > 0.8).all()
    back = geodesic(f, b, a, graph=Graph.build(f, RING) if by_graph else None)
    torch.testing.assert_close(back.length, found.length, rtol=1e-3, atol=0)  # the default tolerance
    assert "distance from the data" in found.metric


def test_distances_with_a_potential_satisfy_the_triangle_inequality() -> None:
    z = torch.cat((0.9 * polar(torch.linspace(0.2, 2.8, 5, dtype=DOUBLE)), point(0, 0), point(-0.4, -1.2)))
    f = with_potential(lambda z: z, geometry.off_data(RING, 0.3), 2.0)
    found = distances(f, z, neighbours=3)
    assert found.converged_share == 1
    assert torch.equal(found.length, found.length.T)
    assert found.violations(1e-3) == (0, 21)  # the default tolerance
    assert (found.length >= torch.cdist(z, z)).all()
