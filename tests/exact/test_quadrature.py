"""Quadrature against closed forms of probabilistic PCA and against SciPy's adaptive rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from vaelid.distributions import Normal
from vaelid.errors import InputError, InputTypeError
from vaelid.evidence import quadrature
from vaelid.likelihoods import Bernoulli, FixedScale, Gaussian
from vaelid.model import VAE
from vaelid.networks import MLP
from vaelid.posteriors import DiagonalNormal, Planar
from vaelid.priors import Mixture, StandardNormal
from vaelid.types import Batch

DOUBLE = torch.float64


def test_log_evidence_of_a_linear_model(ppca) -> None:
    grid = quadrature(ppca.model(shift=0.3, stretch=0.7), ppca.x)
    assert torch.allclose(grid.log_evidence, ppca.log_evidence(), atol=1e-9)
    assert ((grid.log_evidence - ppca.log_evidence()).abs() <= grid.error).all()
    assert (grid.error < 1e-6).all()
    assert grid.frame.shape == (16, 2, 2)
    assert grid.nodes.shape == (16, 200**2, 2)
    assert grid.log_weight.shape == grid.log_joint.shape == grid.log_posterior.shape == (16, 200**2)
    assert torch.allclose(
        (grid.log_posterior + grid.log_weight).logsumexp(1), torch.zeros(16, dtype=DOUBLE), atol=1e-12
    )


def test_kl_and_elbo_of_a_linear_model(ppca) -> None:
    model = ppca.model(shift=0.3, stretch=0.7)
    grid, q = quadrature(model, ppca.x), model.given(model.batch(ppca.x)).start
    elbo = ppca.elbo(model).detach()
    kl, kl_error = grid.kl(q)
    bound, bound_error = grid.elbo(q)
    assert torch.allclose(kl, ppca.log_evidence() - elbo, atol=1e-6)
    assert (kl_error < 1e-5).all()
    assert torch.allclose(bound, elbo, atol=1e-6)
    assert (bound_error < 1e-5).all()
    assert ((kl - ppca.log_evidence() + elbo).abs() <= kl_error).all()
    again, _ = grid.kl(lambda z: q.log_prob(z.transpose(0, 1)).T)
    assert torch.equal(kl, again)


def test_mass_of_q_outside_the_box_is_counted(ppca) -> None:
    model = ppca.model()
    grid = quadrature(model, ppca.x[:1])
    scale = torch.full((1, 2), 0.2, dtype=DOUBLE)
    far = Normal(grid.frame[:, 1], scale)  # at a corner: a quarter of it is inside
    value, error = grid.kl(far)
    slope, offset, spread = ppca.posterior()
    exact_q = Normal(ppca.x[:1] @ slope.T + offset, spread.expand(1, 2))
    exact = float(
        (exact_q.scale / scale).log().sum()
        + 0.5 * ((scale**2 + (far.loc - exact_q.loc) ** 2) / exact_q.scale**2).sum()
        - 1
    )
    assert abs(float(value) - exact) > 1
    assert float(error) > 0.7 * exact


def test_a_frame_that_cuts_the_posterior_says_so(ppca) -> None:
    model = ppca.model()
    whole = quadrature(model, ppca.x[:2], frame=[[-6.0, -6.0], [6.0, 6.0]])
    assert torch.allclose(whole.log_evidence, ppca.log_evidence()[:2], atol=1e-9)
    slope, offset, _ = ppca.posterior()
    centre = ppca.x[:2] @ slope.T + offset
    half = quadrature(model, ppca.x[:2], frame=torch.stack((centre, centre + 3), 1))
    short = ppca.log_evidence()[:2] - half.log_evidence
    assert torch.allclose(short, torch.full((2,), math.log(4), dtype=DOUBLE), atol=0.01)
    assert (half.error > 0.9 * short).all()


def test_a_coarse_grid_says_so(ppca) -> None:
    coarse = quadrature(ppca.model(), ppca.x, side=8)
    off = (coarse.log_evidence - ppca.log_evidence()).abs()
    assert (off <= coarse.error).all()
    assert (coarse.error > 1e-3).all()


@pytest.mark.parametrize("latent", [1, 2])
def test_a_curved_model_against_scipy(latent: int) -> None:
    model = _curved(latent)
    x = (torch.rand(2, 5, dtype=DOUBLE) > 0.5).double()
    grid, inner = quadrature(model, x), np.linspace(-8, 8, 1601)

    def density(row: int, first: float) -> float:
        """p(x, z) / p(x), integrated over the second latent by Simpson's rule if there is one."""
        z = np.full((len(inner) if latent == 2 else 1, latent), first)
        if latent == 2:
            z[:, 1] = inner
        with torch.no_grad():
            log_joint = model.given(Batch(x[row : row + 1]), "prior").log_joint(torch.from_numpy(z).unsqueeze(1))[:, 0]
        values = (log_joint - grid.log_evidence[row]).exp().numpy()
        return float(values[0] if latent == 1 else integrate.simpson(values, x=inner))

    for row in range(2):
        value, _ = integrate.quad(lambda first, row=row: density(row, first), -8, 8, epsabs=1e-8, limit=500)
        assert math.log(value) == pytest.approx(0, abs=1e-6)


def test_a_narrow_mode_far_from_the_prior_is_found() -> None:
    decoder, encoder = torch.nn.Linear(2, 3), torch.nn.Linear(3, 4)
    model = VAE(StandardNormal(2), Gaussian(decoder, (3,), FixedScale(1e-3)), DiagonalNormal(encoder)).double()
    x = torch.tensor([[9.0, -8.0, 1.0]], dtype=DOUBLE)
    with torch.no_grad():
        decoder.weight.copy_(torch.eye(3)[:, :2])
        decoder.bias.zero_()
        encoder.weight.zero_()
        encoder.bias.copy_(torch.tensor([9.0, -8.0, math.log(1e-3), math.log(1e-3)]))
    grid = quadrature(model, x)
    variance = torch.tensor([1 + 1e-6, 1 + 1e-6, 1e-6], dtype=DOUBLE)
    exact = Normal(torch.zeros(3, dtype=DOUBLE), variance.sqrt()).log_prob(x)
    assert float(grid.log_evidence) == pytest.approx(float(exact), rel=1e-9)


def test_masked_cells_and_context() -> None:
    model = _curved(2, context=1)
    x, mask = torch.ones(2, 5, dtype=DOUBLE), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 2:] = False
    batch = Batch(x, mask, torch.tensor([[0.0], [2.0]], dtype=DOUBLE))
    both = quadrature(model, batch)
    for row in range(2):
        alone = quadrature(model, batch.take(slice(row, row + 1)))
        assert torch.allclose(both.log_evidence[row], alone.log_evidence[0])
        problem = model.given(batch.take(slice(row, row + 1)), "prior")
        joint = problem.log_joint(both.nodes[row, ::1000].unsqueeze(1))[:, 0]
        assert torch.allclose(joint, both.log_joint[row, ::1000])


def test_an_impossible_row_has_no_evidence() -> None:
    model = _curved(1)
    with torch.no_grad():
        next(model.likelihood.network.parameters()).fill_(math.nan)
    grid = quadrature(model, torch.ones(1, 5, dtype=DOUBLE), frame=[[-1.0], [1.0]])
    assert float(grid.log_evidence) == -math.inf
    assert float(grid.error) == math.inf


def test_refusals(ppca) -> None:
    model = ppca.model()
    with pytest.raises(InputError, match="grid over 3 latents"):
        quadrature(_curved(3), np.ones((1, 5)))
    with pytest.raises(InputError, match="side"):
        quadrature(model, ppca.x, side=4)
    with pytest.raises(InputError, match="a frame of shape"):
        quadrature(model, ppca.x, frame=[[0.0], [1.0]])
    with pytest.raises(InputError, match="without extent"):
        quadrature(model, ppca.x, frame=[[0.0, 0.0], [1.0, 0.0]])
    grid = quadrature(model, ppca.x[:1], side=16)
    with pytest.raises(InputError, match="log q with values of shape"):
        grid.kl(lambda z: z)
    planar = Planar(MLP(5, 4 + 2 * 5, hidden=()), 2, layers=2).double()
    q = planar(torch.ones(1, 5, dtype=DOUBLE))
    with pytest.raises(InputTypeError, match="planar"):
        grid.kl(q)


def _curved(latent: int, context: int = 0) -> VAE:
    """A Bernoulli model with bent decoder and a prior of two lumps."""
    network = MLP(latent, 5, hidden=(8,), context=context)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=1.5)
    encoder = MLP(5, latent, hidden=(8,), heads=2, context=context)
    return VAE(Mixture(latent, 2), Bernoulli(network), DiagonalNormal(encoder)).double()
