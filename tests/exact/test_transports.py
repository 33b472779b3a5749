"""Transports against autodiff, finite differences, quadrature and SciPy, in float64 where nothing else is said."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats
from support import refused
from torch import Tensor
from transport_cases import ALL, INVERTIBLE, case

from vaelid import distributions
from vaelid.distributions import Normal
from vaelid.distributions.special import ndtr
from vaelid.errors import InputTypeError
from vaelid.random import Key
from vaelid.transports import FullNormal, MixtureOfNormals, has_kl, kl_cells, tails
from vaelid.types import Transport

KEY, D, BATCH = Key(5), 3, 2
DOUBLE = torch.finfo(torch.float64).eps


def noise(samples: int, d: int = D, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal noise (samples, batch, d); the first rows reach out to ±6."""
    u = KEY.fold("u").normal((samples, BATCH, d), dtype=dtype)
    u[:3] = torch.linspace(-6, 6, 3 * BATCH * d, dtype=dtype).view(3, BATCH, d)
    return u


# -- one rule for all --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_shapes_and_protocol(name: str) -> None:
    q = case(name).make()
    assert isinstance(q, Transport)
    assert q.size == D
    z, log_q = q.push(noise(5))
    assert z.shape == (5, BATCH, D)
    assert log_q.shape == (5, BATCH)


@pytest.mark.parametrize("name", INVERTIBLE)
def test_pull_inverts_push(name: str) -> None:
    """Up to rounding times the condition of the map, which is below 1e5 for these parameters."""
    q, u = case(name).make(), noise(50)
    z, _ = q.push(u)
    assert (q.pull(z) - u).abs().max() < 1e5 * DOUBLE
    assert (q.push(q.pull(z))[0] - z).abs().max() < 1e5 * DOUBLE * z.abs().max()


@pytest.mark.parametrize("name", ALL)
def test_log_q_is_the_change_of_variables(name: str) -> None:
    """log q(T(u)) = log N(u) − log |det ∂T/∂u|, the determinant by automatic differentiation."""
    q, u = case(name).make(), noise(6)
    z, log_q = q.push(u)
    jacobian = torch.autograd.functional.jacobian(lambda v: q.push(v)[0].sum((0, 1)), u)  # rows do not mix
    log_det = torch.linalg.slogdet(jacobian.movedim(0, -2)).logabsdet
    standard = -0.5 * (u.square() + math.log(2 * math.pi)).sum(-1)
    assert torch.allclose(log_q, standard - log_det, rtol=0, atol=1e-9)
    if name in INVERTIBLE:
        assert torch.allclose(q.log_prob(z), log_q, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", INVERTIBLE)
def test_density_integrates_to_one(name: str) -> None:
    """In one dimension by the trapezoidal rule: exact for smooth densities, error O(h²) at the kinks of a spline's."""
    q = case(name, 1).make()
    points = torch.linspace(-30, 30, 30_001, dtype=torch.float64)
    with torch.no_grad():
        mass = q.log_prob(points[:, None, None].expand(-1, BATCH, 1)).exp().sum(0) * float(points[1] - points[0])
    assert (mass - 1).abs().max() < (1e-5 if "spline" in name else 1e-11)


@pytest.mark.parametrize("name", [name for name in INVERTIBLE if "spline" not in name])
def test_density_integrates_to_one_in_the_plane(name: str) -> None:
    q = case(name, 2, batch=()).make()
    points = torch.linspace(-40, 40, 801, dtype=torch.float64)
    z = torch.stack(torch.meshgrid(points, points, indexing="ij"), -1).view(-1, 1, 2)
    with torch.no_grad():
        mass = q.log_prob(z).exp().sum() * float(points[1] - points[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_gradients_against_finite_differences(name: str) -> None:
    """Of z and log q along a random direction in every parameter, u fixed: central differences, error O(h²)."""
    this, u, h = case(name), noise(20)[3:], 1e-5

    def value() -> Tensor:
        z, log_q = this.make().push(u)
        return (torch.sin(z) * torch.arange(1, D + 1)).sum() + 0.3 * log_q.sum()

    gradients = torch.autograd.grad(value(), this.leaves)
    for index, (leaf, gradient) in enumerate(zip(this.leaves, gradients, strict=True)):
        direction = KEY.fold("direction", index).normal(tuple(leaf.shape), dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                leaf.add_(sign * h * direction)
                values.append(float(value()))
                leaf.sub_(sign * h * direction)
        numeric, exact = (values[0] - values[1]) / (2 * h), float((gradient * direction).sum())
        assert numeric == pytest.approx(exact, rel=1e-5, abs=1e-6)
        assert exact != 0


@pytest.mark.parametrize("name", INVERTIBLE)
def test_gradients_of_pull_and_log_prob(name: str) -> None:
    """∂u/∂z is the inverse of ∂z/∂u, and ∂ log q/∂z agrees with finite differences."""
    q = case(name).make()
    u = noise(4)[3, :1].expand(BATCH, -1)
    z, _ = q.push(u[None])
    there = torch.autograd.functional.jacobian(lambda v: q.push(v[None])[0][0].sum(0), u).movedim(0, -2)
    back = torch.autograd.functional.jacobian(lambda v: q.pull(v[None])[0].sum(0), z[0]).movedim(0, -2)
    assert torch.allclose(back @ there, torch.eye(D, dtype=torch.float64).expand(BATCH, -1, -1), atol=1e-9)
    z = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(q.log_prob(z).sum(), z)
    step = 1e-6 * KEY.fold("step").normal(tuple(z.shape), dtype=torch.float64)
    difference = (q.log_prob(z + step) - q.log_prob(z - step)).sum() / 2
    assert torch.allclose(difference, (slope * step).sum(), rtol=1e-6, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # PyTorch's own, at the first jvp
@pytest.mark.parametrize("name", ALL)
def test_forward_mode_agrees_with_reverse_mode(name: str) -> None:
    q, u = case(name).make(), noise(4)
    tangent = KEY.fold("tangent").normal(tuple(u.shape), dtype=torch.float64)
    (z, _), (dz, dlog_q) = torch.func.jvp(q.push, (u,), (tangent,))
    assert torch.equal(z, q.push(u)[0])
    for along, out in ((dz, lambda v: q.push(v)[0]), (dlog_q, lambda v: q.push(v)[1])):
        weight = KEY.fold("weight").normal(tuple(along.shape), dtype=torch.float64)
        (gradient,) = torch.autograd.grad((out(u.requires_grad_()) * weight).sum(), u)
        assert torch.allclose((along * weight).sum(), (gradient * tangent).sum(), rtol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_detach_cuts_the_parameters_and_not_z(name: str) -> None:
    this, u = case(name), noise(5)
    q = this.make()
    fixed = q.detach()
    assert type(fixed) is type(q)
    z, log_q = q.push(u)
    again, log_again = fixed.push(u)
    assert torch.equal(z, again)
    assert torch.equal(log_q, log_again)
    assert not again.requires_grad
    u.requires_grad_()
    (through,) = torch.autograd.grad(fixed.push(u)[1].sum(), u)
    assert torch.equal(through, torch.autograd.grad(q.push(u)[1].sum(), u)[0])
    if name in INVERTIBLE:
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(fixed.log_prob(z).sum(), z)
        assert torch.equal(slope, torch.autograd.grad(q.log_prob(z).sum(), z)[0])
        assert all(g is None for g in torch.autograd.grad(fixed.log_prob(z).sum(), this.leaves, allow_unused=True))


@pytest.mark.parametrize("name", INVERTIBLE)
def test_parameters_without_batch_serve_every_row(name: str) -> None:
    """A prior has one set of parameters for (sample, batch, d)."""
    q, u = case(name, batch=()).make(), noise(5)
    z, log_q = q.push(u)
    assert z.shape == u.shape
    assert torch.allclose(q.pull(z), u, atol=1e-9)
    assert torch.allclose(q.log_prob(z), log_q, atol=1e-9)
    alone, log_alone = q.push(u[2:3, 1:])
    assert torch.allclose(alone, z[2:3, 1:], atol=1e-12)
    assert torch.allclose(log_alone, log_q[2:3, 1:], atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_float32_agrees_with_float64(name: str) -> None:
    """To roundings of float32 times the condition of the map (here at most 1e3)."""
    u = noise(50, dtype=torch.float32)
    single, double = case(name, dtype=torch.float32), case(name)
    with torch.no_grad():
        for leaf, exact in zip(single.leaves, double.leaves, strict=True):
            exact.copy_(leaf)
    (z, log_q), (z64, log_q64) = single.make().push(u), double.make().push(u.double())
    assert z.dtype == log_q.dtype == torch.float32
    scale = 1e3 * torch.finfo(torch.float32).eps
    assert ((z - z64).abs() <= scale * (1 + z64.abs())).all()
    assert ((log_q - log_q64).abs() <= scale * (1 + log_q64.abs())).all()
    gradients = torch.autograd.grad(z.sum() + log_q.sum(), single.leaves)
    assert all(gradient.isfinite().all() for gradient in gradients)


# -- mixtures ----------------------------------------------------------------------------------------------------------


def conditional_cdf(q: MixtureOfNormals, z: np.ndarray, j: int, at: float) -> tuple[float, float]:
    """F_j(at | z_<j) and 1 − F_j by SciPy, for parameters without batch."""
    weight = special.softmax(q.logits.detach().numpy())
    loc, scale = q.components.loc.detach().numpy(), q.components.scale.detach().numpy()
    log_r = np.log(weight) + stats.norm(loc[:, :j], scale[:, :j]).logpdf(z[:j]).sum(1)
    r, normal = special.softmax(log_r), stats.norm(loc[:, j], scale[:, j])
    return float(r @ normal.cdf(at)), float(r @ normal.sf(at))


@pytest.mark.parametrize("spread", [0.5, 3.0, 30.0])
def test_mixture_push_against_root_finding(spread: float) -> None:
    this = case("mixture", batch=())
    with torch.no_grad():
        this.leaves[1].mul_(spread)
    q, u = this.make(), noise(8)[:, 0]
    z = q.push(u[:, None])[0][:, 0].detach().numpy()
    for row, target in zip(z, u.numpy(), strict=True):
        for j, u_j in enumerate(target):
            tail, probability = int(u_j > 0), special.ndtr(-abs(u_j))

            def gap(at: float, row: np.ndarray = row, j: int = j, tail: int = tail, p: float = probability) -> float:
                return math.log(max(conditional_cdf(q, row, j, at)[tail], 1e-300)) - math.log(p)

            root = optimize.brentq(gap, -300, 300, xtol=1e-13, rtol=1e-14)
            assert row[j] == pytest.approx(root, rel=1e-9, abs=1e-9)


def test_full_components_with_diagonal_scale_are_diagonal_components() -> None:
    this, u = case("mixture"), noise(20)
    q = this.make()
    full = MixtureOfNormals(q.logits, FullNormal(q.components.loc, torch.diag_embed(q.components.scale)))
    for one, other in zip(q.push(u), full.push(u), strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_equal_components_are_one_normal() -> None:
    this, u = case("diagonal"), noise(20)
    normal = this.make()
    logits = torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64)
    q = MixtureOfNormals(logits, Normal(*(p.unsqueeze(-2).expand(-1, 3, -1) for p in (normal.loc, normal.scale))))
    for one, other in zip(q.push(u), normal.push(u), strict=True):
        assert torch.allclose(one, other, atol=1e-11)


@pytest.mark.parametrize(
    ("logits", "locs", "log_scales"),
    [(100.0, 3.0, 0.5), (2.0, 100.0, 1.0), (100.0, 1000.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, 3.0)],
    ids=["weights near 0", "far apart", "far apart, weights near 0", "all equal", "scales of many sizes"],
)
def test_mixture_is_finite_and_exact_in_float32(logits: float, locs: float, log_scales: float) -> None:
    """For |u| ≤ 6: values, gradients, and the noise that float64 pulls from the float32 values.

    What is not exact then is t = (z − m) / s with m of the size of z: an error of ε (|z| + |m|) / s in u.
    """
    key, shape = KEY.fold("extreme"), (4, 5, D)
    leaves = [
        (logits * key.fold("w").normal(shape[:2])).requires_grad_(),
        (locs * key.fold("m").normal(shape)).requires_grad_(),
        (log_scales * key.fold("s").normal(shape)).requires_grad_(),
    ]
    u = torch.linspace(-6, 6, 601)[:, None, None].expand(-1, 4, D)
    q = MixtureOfNormals(leaves[0], Normal(leaves[1], leaves[2].exp()))
    z, log_q = q.push(u)
    assert z.isfinite().all()
    assert log_q.isfinite().all()
    for gradient in torch.autograd.grad(z.sum() + log_q.sum(), leaves):
        assert gradient.isfinite().all()
    exact = MixtureOfNormals(leaves[0].double(), Normal(leaves[1].double(), leaves[2].exp().double()))
    eps = torch.finfo(torch.float32).eps
    condition = (z.abs().amax() + leaves[1].abs().amax()) / leaves[2].exp().amin()
    assert (exact.pull(z.double()) - u).abs().max() < 10 * eps * (6 + condition)


# -- KL ----------------------------------------------------------------------------------------------------------------


def test_kl_of_a_full_normal() -> None:
    """The sum is ½ (tr S⁻¹Σ + Δᵀ S⁻¹ Δ − d − log det S⁻¹Σ); the first term is that of the first marginal."""
    this = case("full")
    q, p = this.make(), Normal(torch.tensor([0.5, -1.0, 0.0]).double(), torch.tensor([1.0, 0.3, 2.0]).double())
    cells = kl_cells(q, p)
    assert has_kl(q, p)
    assert cells.shape == (BATCH, D)
    assert (cells >= 0).all()
    covariance, precision = q.scale_tril @ q.scale_tril.mT, torch.diag(p.scale**-2)
    relative, delta = precision @ covariance, q.loc - p.loc
    trace = relative.diagonal(dim1=-2, dim2=-1).sum(-1)
    expected = 0.5 * (trace + (delta.square() / p.scale**2).sum(-1) - D - torch.linalg.slogdet(relative).logabsdet)
    assert torch.allclose(cells.sum(-1), expected, rtol=1e-12)
    first = distributions.kl_cells(Normal(q.loc[:, :1], q.scale[:, :1]), Normal(p.loc[:1], p.scale[:1]))
    assert torch.allclose(cells[:, :1], first)


def test_kl_of_a_full_normal_by_quadrature() -> None:
    q, p = case("full", 2, batch=()).make(), Normal(torch.tensor([0.5, -1.0]).double(), torch.ones(2).double())
    points = torch.linspace(-20, 20, 2001, dtype=torch.float64)
    z = torch.stack(torch.meshgrid(points, points, indexing="ij"), -1).view(-1, 1, 2)
    log_q = q.log_prob(z)
    integral = (log_q.exp() * (log_q - p.log_prob(z))).sum() * 0.02**2
    assert torch.allclose(kl_cells(q, p).sum(), integral, rtol=1e-9)


def test_kl_of_diagonal_normals_is_that_of_the_distributions() -> None:
    q, p = case("diagonal").make(), Normal(torch.zeros(D).double(), torch.ones(D).double())
    assert torch.equal(kl_cells(q, p), distributions.kl_cells(q, p))


@pytest.mark.parametrize(("q", "p"), [("mixture", "diagonal"), ("full", "full"), ("diagonal", "mixture")])
def test_no_closed_form(q: str, p: str) -> None:
    pair = case(q).make(), case(p).make()
    assert not has_kl(*pair)
    refused("has no closed form here; expected a Normal or a FullNormal", lambda: kl_cells(*pair), InputTypeError)


# -- special functions and refusals ------------------------------------------------------------------------------------


def hazard(t: np.ndarray) -> np.ndarray:
    """φ(t) / Φ(t)."""
    return math.sqrt(2 / math.pi) / special.erfcx(-t / math.sqrt(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tails_keep_their_digits(dtype: torch.dtype) -> None:
    """Φ, log Φ, its slope and its inverse against SciPy: relative errors of a few ε, for Φ ~ e^(−t²/2) times t²."""
    eps = torch.finfo(dtype).eps
    t = torch.linspace(-12, 0, 1001, dtype=dtype).requires_grad_()
    x = t.detach().double().numpy()
    assert np.abs(ndtr(t).detach().double().numpy() / special.ndtr(x) - 1).max() < eps * 12**2
    log_p = tails.log_ndtr(t)
    assert np.abs(log_p.detach().double().numpy() / special.log_ndtr(x) - 1).max() < 8 * eps
    (slope,) = torch.autograd.grad(log_p.sum(), t)
    assert np.abs(slope.double().numpy() / hazard(x) - 1).max() < 8 * eps
    log_p = torch.cat((-torch.logspace(6, 0, 1001, dtype=dtype), torch.tensor([math.log(0.5)], dtype=dtype)))
    t = tails.ndtri_exp(log_p.requires_grad_())
    x = t.detach().double().numpy()
    assert np.abs(special.log_ndtr(x) / log_p.detach().double().numpy() - 1).max() < 8 * eps
    (inverse,) = torch.autograd.grad(t.sum(), log_p)
    assert np.abs(inverse.double().numpy() * hazard(x) - 1).max() < 8 * eps


@pytest.mark.parametrize("method", ["pull", "log_prob"])
def test_planar_has_no_inverse(method: str) -> None:
    q = case("planar").make()
    z, _ = q.push(noise(4))
    refused("under a planar posterior.*Take posteriors.Flow", lambda: getattr(q, method)(z), InputTypeError)


def test_planar_layers_are_monotone_whatever_their_parameters() -> None:
    """wᵀû > −1: the determinant never changes sign, and log q stays finite."""
    this = case("planar")
    with torch.no_grad():
        for leaf in this.leaves[2:]:
            leaf.mul_(10)
    q, u = this.make(), noise(200)
    assert q.push(u)[1].isfinite().all()
    jacobian = torch.autograd.functional.jacobian(lambda v: q.push(v)[0].sum((0, 1)), u[:20]).movedim(0, -2)
    assert (torch.linalg.det(jacobian) > 0).all()


def test_importing_flows_leaves_validation_on() -> None:
    """zuko switches PyTorch's validation of arguments off when it is imported; so may others, hence a fresh process."""
    code = "import torch, vaelid; torch.distributions.Normal(0.0, -1.0)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ValueError" in ended.stderr
    assert "scale" in ended.stderr
