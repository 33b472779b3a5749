"""Samples of transports and the gradients through them, at fixed seeds: KS tests and means within 4 standard errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor
from transport_cases import ALL, INVERTIBLE, case

from vaelid.distributions import Normal
from vaelid.random import Key
from vaelid.transports import MixtureOfNormals, Planar
from vaelid.types import Transport

KEY, SAMPLES = Key(21), 20_000


def draw(q: Transport, name: str, rows: int = 2) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return q.push(KEY.fold(name).normal((SAMPLES, rows, q.size), dtype=torch.float64))


@pytest.mark.parametrize("name", INVERTIBLE)
def test_samples_follow_the_density(name: str) -> None:
    """In one dimension, against the distribution function that the density sums to."""
    q = case(name, 1).make()
    z, _ = draw(q, name)
    points = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    with torch.no_grad():
        density = q.log_prob(points[:, None, None].expand(-1, 2, 1)).exp().numpy()
    for row in range(2):
        cdf = np.cumsum(density[:, row]) * float(points[1] - points[0])
        found = stats.kstest(z[:, row, 0].numpy(), lambda x, cdf=cdf: np.interp(x, points.numpy(), cdf))
        assert found.pvalue > 1e-3


@pytest.mark.parametrize("name", ["mixture", "mixture of full"])
def test_mixture_samples_are_those_of_its_components(name: str) -> None:
    """Against drawing a component and then from it: two-sample KS tests of coordinates and of a projection."""
    q = case(name, batch=()).make()
    z = draw(q, name, rows=1)[0][:, 0]
    pick = np.random.default_rng(0).choice(3, SAMPLES, p=special.softmax(q.logits.detach().numpy()))
    with torch.no_grad():
        own, _ = q.components.push(KEY.fold("components").normal((SAMPLES, 3, 3), dtype=torch.float64))
    other = own[torch.arange(SAMPLES), torch.from_numpy(pick)]
    for view in (*torch.eye(3, dtype=torch.float64), torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)):
        assert stats.ks_2samp((z @ view).numpy(), (other @ view).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("name", ALL)
def test_samples_and_log_q_agree(name: str) -> None:
    """E_q[r(z) / q(z)] = 1 for any other density r, here a normal narrower than q."""
    q = case(name).make()
    z, log_q = draw(q, name)
    r = Normal(z.mean(0), 0.5 * z.std(0))
    ratio = (r.log_prob(z) - log_q).exp()
    error = ratio.std(0) / SAMPLES**0.5
    assert (error < 0.1).all()
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all()


@pytest.mark.parametrize("what", ["logits", "means", "scales"])
def test_pathwise_gradients_of_a_mixture_are_unbiased(what: str) -> None:
    """∇ E_q[f] within 4 standard errors of ∇ Σ_k w_k E_k[f], for f = sin z₁ + cos z₂, which has a closed form:

    E sin z = e^(−s²/2) sin m and E cos z = e^(−s²/2) cos m for z ~ N(m, s²).
    """
    leaves = case("mixture", 2, batch=()).leaves
    index = ["logits", "means", "scales"].index(what)
    logits, loc, log_scale = leaves
    damp = (-0.5 * (2 * log_scale).exp()).exp()
    exact = logits.softmax(0) @ (damp[:, 0] * loc[:, 0].sin() + damp[:, 1] * loc[:, 1].cos())
    (expected,) = torch.autograd.grad(exact, leaves[index])

    groups = 200
    own = [leaf.detach().expand(groups, *leaf.shape).clone().requires_grad_() for leaf in leaves]
    q = MixtureOfNormals(own[0], Normal(own[1], own[2].exp()))
    z, _ = q.push(KEY.fold("pathwise").normal((200, groups, 2), dtype=torch.float64))
    (found,) = torch.autograd.grad((z[..., 0].sin() + z[..., 1].cos()).mean(0).sum(), own[index])
    error = found.std(0) / groups**0.5
    assert (error < 0.1).all()
    assert ((found.mean(0) - expected).abs() < 4 * error).all()


def test_planar_with_small_parameters_is_nearly_its_base() -> None:
    small = case("planar").make()
    assert isinstance(small, Planar)
    near = Planar(small.base, 1e-3 * small.u, 1e-3 * small.w, small.b)
    z, log_q = draw(near, "planar")
    assert (z - draw(small.base, "planar")[0]).abs().max() < 0.02
    assert (log_q - small.base.log_prob(z)).abs().max() < 0.1
