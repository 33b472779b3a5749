"""Known spaces, float64: maps z → φ or metrics, pairs of points with their distance, and curvatures, in closed form."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.integrate import quad
from torch import Tensor, nn

from vaelid import likelihoods
from vaelid.geometry import Embedding, Geodesics, Hyperbolic, MetricField, geodesic
from vaelid.likelihoods import Likelihood, PredictedScale
from vaelid.model import VAE
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key

KEY, PAIRS, DOUBLE = Key(23), 8, torch.float64
R, r = 2.0, 0.7  # of the torus
WEIGHT = KEY.fold("W").normal((2, 5), dtype=DOUBLE)  # of the linear decoder
LEVELS = (8, 16, 32, 64)
TIGHT = 1e-14  # tolerance: paths are exact to √TIGHT, lengths to TIGHT, relative, up to a factor near conjugate points

Pairs = tuple[Tensor, Tensor, Tensor]  # a, b (n, d), and their distance (n,)


def normal(name: str, n: int, d: int) -> Tensor:
    return KEY.fold(name).normal((n, d), dtype=DOUBLE)


def uniform(name: str, n: int, *ranges: tuple[float, float]) -> Tensor:
    """(n, d) in a box."""
    low, high = torch.tensor(ranges, dtype=DOUBLE).T
    return low + (high - low) * KEY.fold(name).uniform((n, len(ranges)), dtype=DOUBLE)


def order(errors: Sequence[Tensor]) -> float:
    """Slope of log error over log N from the last level but one to the last, N doubled, median over pairs.

    Pairs without any error, 0 / 0, have none.
    """
    assert all(error.isfinite().all() for error in errors)
    return float((errors[-2] / errors[-1]).abs().log2().nanmedian())


def vanish(errors: Sequence[Tensor], rounding: float = 1e-13) -> bool:
    """Whether errors are rounding on all levels: curves whose chart is such that nothing is left to refine."""
    return max(float(error.abs().max()) for error in errors) < rounding


def richardson(values: Sequence[Tensor]) -> list[Tensor]:
    """(4 d_N − d_N/2) / 3 of each level and the one before."""
    return [(4 * fine - coarse) / 3 for coarse, fine in itertools.pairwise(values)]


# -- maps --------------------------------------------------------------------------------------------------------------


def linear(z: Tensor) -> Tensor:
    return z @ WEIGHT


def circle(z: Tensor) -> Tensor:
    return torch.cat((z.cos(), z.sin()), 1)


def sphere(z: Tensor) -> Tensor:
    """The inverse stereographic chart of the unit sphere, from the north pole."""
    square = z.square().sum(-1, keepdim=True)
    return torch.cat((2 * z, square - 1), -1) / (square + 1)


def chart(x: Tensor) -> Tensor:
    """Stereographic coordinates of points of the sphere."""
    return x[..., :2] / (1 - x[..., 2:])


def paraboloid(z: Tensor) -> Tensor:
    return torch.cat((z, z.square().sum(1, keepdim=True)), 1)


def torus(z: Tensor) -> Tensor:
    u, v = z.T
    out = R + r * v.cos()
    return torch.stack((out * u.cos(), out * u.sin(), r * v.sin()), 1)


def roll(z: Tensor) -> Tensor:
    """The Swiss roll."""
    u, v = z.T
    return torch.stack((u * u.cos(), u * u.sin(), v), 1)


def _upper(z: Tensor) -> Tensor:
    return torch.stack((z[:, 0], z[:, 1].log()), 1)


half_plane = Embedding(_upper, "the half-plane", 2, target=Hyperbolic(1.0))
half_plane_metric = MetricField(lambda z: torch.eye(2, dtype=z.dtype) / z[:, 1, None, None].square())
gaussian_family = Embedding(_upper, "N(μ, σ²) at (μ, σ)", 2, target=Hyperbolic(2.0))
sphere_metric = MetricField(
    lambda z: torch.eye(2, dtype=z.dtype) * (2 / (1 + z.square().sum(1)))[:, None, None].square()
)


# -- real likelihoods --------------------------------------------------------------------------------------------------


def model_of(likelihood: Likelihood, latent: int, size: int) -> VAE:
    """A model around a likelihood; its encoder plays no part."""
    encoder = nn.Linear(size, 2 * latent)
    model = VAE(StandardNormal(latent), likelihood, DiagonalNormal(encoder)).double()
    return model.requires_grad_(False)


def gaussian_model(features: int) -> VAE:
    """N(μ, σ²) per feature; latents are (μ₁ …, ρ₁ …), of which the network makes network outputs as they are."""
    network = nn.Linear(2 * features, 2 * features)
    model = model_of(likelihoods.Gaussian(network, (features,), PredictedScale()), 2 * features, features)
    network.weight.copy_(torch.eye(2 * features))
    network.bias.zero_()
    model.likelihood.unit.copy_(torch.linspace(1, 2, features))
    return model


def gaussian_distance(model: VAE, a: Tensor, b: Tensor) -> Tensor:
    """Of every feature, (n, features): √2 arccosh(1 + (Δμ²/2 + Δσ²) / 2σ₁σ₂)."""
    p, q = model.decode(a), model.decode(b)
    gap = (p.loc - q.loc).square() / 2 + (p.scale - q.scale).square()
    return math.sqrt(2) * torch.acosh(1 + gap / (2 * p.scale * q.scale))


def categorical_model(classes: int) -> VAE:
    """One cell with one latent per class but one: z are logits, the last class's 0."""
    network = nn.Linear(classes - 1, classes)
    model = model_of(likelihoods.Categorical(network, classes), classes - 1, classes)
    network.weight.copy_(torch.eye(classes, classes - 1))
    network.bias.zero_()
    return model


def poisson_model(features: int) -> VAE:
    """Log means are the latents."""
    network = nn.Linear(features, features)
    model = model_of(likelihoods.Poisson(network, (features,)), features, features)
    network.weight.copy_(torch.eye(features))
    network.bias.zero_()
    return model


# -- pairs of points and their distance --------------------------------------------------------------------------------


def linear_pairs() -> Pairs:
    a, b = normal("linear a", PAIRS, 2), normal("linear b", PAIRS, 2)
    return a, b, ((b - a) @ WEIGHT).norm(dim=1)


def circle_pairs() -> Pairs:
    a, step = uniform("circle", PAIRS, (-3, 3), (0.5, 2.5)).split(1, 1)
    return a, a + step, step[:, 0]


def sphere_pairs() -> Pairs:
    """At most 2.2 apart, below the π at which a great circle is no longer the shortest way."""
    a, b = uniform("sphere a", PAIRS, (-1, 1), (-1, 1)), uniform("sphere b", 200, (-1.5, 1.5), (-1.5, 1.5))
    apart = torch.acos(sphere(a) @ sphere(b).T)
    index = ((apart > 0.5) & (apart < 2.2)).int().argmax(1)
    return a, b[index], apart.gather(1, index[:, None])[:, 0]


def half_plane_pairs(beta: float = 1.0) -> Pairs:
    """Of the metric (β_x dx² + β dy²) / y²; β_x is 1."""
    a, b = (uniform(f"half-plane {end}", PAIRS, (-1.5, 1.5), (0.4, 2.5)) for end in "ab")
    gap = ((a - b)[:, 0].square() / beta + (a - b)[:, 1].square()) / (2 * a[:, 1] * b[:, 1])
    return a, b, math.sqrt(beta) * torch.acosh(1 + gap)


def meridian(radius: Tensor) -> Tensor:
    """Length of the paraboloid's meridian from the apex."""
    return 0.5 * radius * (1 + 4 * radius.square()).sqrt() + 0.25 * torch.asinh(2 * radius)


def paraboloid_lines() -> tuple[Tensor, ...]:
    """Geodesics by nearest distance c to the axis, first t, how far in t, and the angle of the nearest point."""
    return uniform("paraboloid", PAIRS, (0.3, 1), (-0.6, 0.2), (0.4, 1.0), (-3, 3)).unbind(1)


def paraboloid_pairs() -> Pairs:
    """On geodesics with nearest distance c to the axis, by t with r² = c² + t²: length ∫ √(1 + 4c² + 4t²) dt."""
    c, start, step, turn = paraboloid_lines()
    ends = start, start + step
    k = (1 + 4 * c.square()).sqrt()
    a, b = (_clairaut(c, t, turn) for t in ends)
    near, far = (0.5 * t * (k.square() + 4 * t.square()).sqrt() + 0.25 * k.square() * torch.asinh(2 * t / k)
                 for t in ends)  # fmt: skip
    return a, b, far - near


def _clairaut(c: Tensor, t: Tensor, turn: Tensor) -> Tensor:
    """θ = ∫ c √(1 + 4c² + 4t²) / (c² + t²) dt, by quadrature."""
    angle = [
        quad(lambda s, c=c: c * math.sqrt(1 + 4 * c * c + 4 * s * s) / (c * c + s * s), 0, end, epsabs=1e-13)[0]
        for c, end in zip(c.tolist(), t.tolist(), strict=True)
    ]
    place = torch.tensor(angle, dtype=DOUBLE) + turn
    return (c.square() + t.square()).sqrt()[:, None] * torch.stack((place.cos(), place.sin()), 1)


def torus_pairs() -> Pairs:
    """Half along meridians, half along the inner equator, which is shortest since the curvature is below 0 there."""
    v, step = uniform("torus v", PAIRS // 2, (-2, 0), (0.5, 2)).T
    u, turn = uniform("torus u", PAIRS // 2, (-2, 0), (0.3, 1)).T
    along, across = torch.stack((u, v), 1), torch.stack((u, torch.full_like(u, math.pi)), 1)
    moved = torch.cat((torch.stack((0 * step, step), 1), torch.stack((turn, 0 * turn), 1)))
    a = torch.cat((along, across))
    return a, a + moved, torch.cat((r * step, (R - r) * turn))


def roll_pairs() -> Pairs:
    a, b = uniform("roll a", PAIRS, (3, 5), (0, 2)), uniform("roll b", PAIRS, (5.5, 8), (0, 2))
    return a, b, roll_distance(a, b)


def roll_distance(a: Tensor, b: Tensor) -> Tensor:
    """√(Δs² + Δv²), s = ½ (u √(1 + u²) + asinh u)."""
    s, t = (0.5 * (z[:, 0] * (1 + z[:, 0].square()).sqrt() + torch.asinh(z[:, 0])) for z in (a, b))
    return torch.hypot(t - s, (b - a)[:, 1])


@dataclass(frozen=True, eq=False)
class Space:
    """A map or metric, with what is known of it in closed form."""

    f: Any
    pairs: Callable[[], Pairs]
    chords: Callable[[Tensor, int], Tensor] | None = None  # √(2E) of N equal segments, where the space is homogeneous
    curvature: Callable[[Tensor], Tensor] | None = None  # of z (n, 2)

    @property
    def embedding(self) -> Embedding:
        return self.f if isinstance(self.f, Embedding) else Embedding(self.f)


def arcs(radius: float = 1.0) -> Callable[[Tensor, int], Tensor]:
    """N chords of a great circle: 2 r N sin(d / 2rN), short of d by d³ / 24 r² N²."""
    return lambda d, n: 2 * radius * n * torch.sin(d / (2 * radius * n))


def hyperbolic(beta: float) -> Callable[[Tensor, int], Tensor]:
    """N residuals of a hyperbolic plane: 2 √β N sinh(d / 2√β N), above d."""
    root = math.sqrt(beta)
    return lambda d, n: 2 * root * n * torch.sinh(d / (2 * root * n))


SPACES = {
    "linear": Space(linear, linear_pairs, lambda d, n: d, lambda z: 0 * z[:, 0]),
    "circle": Space(circle, circle_pairs, arcs()),
    "sphere": Space(sphere, sphere_pairs, arcs(), lambda z: 1 + 0 * z[:, 0]),
    "half-plane": Space(half_plane, half_plane_pairs, hyperbolic(1), lambda z: -1 + 0 * z[:, 0]),
    "Gaussian": Space(gaussian_family, lambda: half_plane_pairs(2.0), hyperbolic(2), lambda z: -0.5 + 0 * z[:, 0]),
    "paraboloid": Space(paraboloid, paraboloid_pairs, None, lambda z: 4 / (1 + 4 * z.square().sum(1)).square()),
    "torus": Space(torus, torus_pairs, None, lambda z: z[:, 1].cos() / (r * (R + r * z[:, 1].cos()))),
    "roll": Space(roll, roll_pairs, None, lambda z: 0 * z[:, 0]),
    "sphere, metric": Space(sphere_metric, sphere_pairs),
    "half-plane, metric": Space(half_plane_metric, half_plane_pairs),
}
EMBEDDED = [name for name, space in SPACES.items() if not isinstance(space.f, MetricField)]
PLANES = [name for name, space in SPACES.items() if space.curvature is not None]  # embeddings of two latents


@functools.cache
def solved(name: str, segments: int) -> Geodesics:
    """Geodesics between the pairs of a space, converged: what a step would still gain is below TIGHT of the energy."""
    a, b, _ = SPACES[name].pairs()
    found = geodesic(SPACES[name].f, a, b, segments=segments, tolerance=TIGHT)
    assert found.converged.all(), found.reasons()
    return found
