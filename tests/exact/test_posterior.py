"""Draws from p(z|x) against closed forms and quadrature, in float64; R-hat, effective draws and k-hat against ArviZ."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from arviz_stats.base.array import array_stats
from scipy import stats
from support import refused
from torch import Tensor, nn

import vaelid as vd
from vaelid.errors import InputTypeError
from vaelid.evidence.chains import effective_draws, pareto_k, r_hat
from vaelid.evidence.posterior import Posterior, posterior, predictive
from vaelid.likelihoods import FixedScale, Gaussian
from vaelid.posteriors import DiagonalNormal, Planar
from vaelid.priors import Mixture, StandardNormal

KEY, SIGMA, LATENT, SIZE = vd.Key(3), 0.7, 2, 4
WEIGHT = KEY.fold("W").normal((SIZE, LATENT), dtype=torch.float64)
OFFSET = KEY.fold("b").normal((SIZE,), dtype=torch.float64)


class Line(nn.Module):
    """x = W z + b, moved by the covariates where there are any; NaN where they are negative."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        x = z @ WEIGHT.to(z).T + OFFSET.to(z)
        return x if context is None else x + torch.where(context < 0, torch.nan, context)


class Curve(nn.Module):
    """From two latents to a ring and a wave."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack((z.square().sum(-1), torch.sin(2 * z[..., 0]) + z[..., 1], z[..., 0] * z[..., 1]), -1)


class Jagged(nn.Module):
    """A decoder with slopes that no step follows."""

    def forward(self, z: Tensor) -> Tensor:
        return 1e6 * torch.sin(1e9 * z).repeat_interleave(2, -1)


class Fixed(nn.Module):
    """An encoder that says the same of every row: mean and log-scale, LATENT each."""

    def __init__(self, *heads: float) -> None:
        super().__init__()
        self.heads = nn.Parameter(torch.tensor(heads, dtype=torch.float64))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.heads.expand(len(x), -1)


def model(decoder: nn.Module, size: int = SIZE, encoder: nn.Module | None = None, sigma: float = SIGMA) -> vd.VAE:
    """A standard normal prior, the decoder, normal noise, and a q that is wrong about every row."""
    encoder = Fixed(0.5, -0.5, -0.3, 0.1) if encoder is None else encoder
    return vd.VAE(
        StandardNormal(LATENT), Gaussian(decoder, (size,), FixedScale(sigma)), DiagonalNormal(encoder)
    ).double()


def simulated(rows: int) -> Tensor:
    z, noise = KEY.fold("z").normal((rows, LATENT), dtype=torch.float64), KEY.fold("x").normal((rows, SIZE)).double()
    return z @ WEIGHT.T + OFFSET + SIGMA * noise


def exact(x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (row, d) and covariance (row, d, d) of p(z|x): precision I + Wᵀ S W / σ², S the observed cells."""
    seen = torch.ones_like(x) if seen is None else seen.double()
    precision = torch.eye(LATENT).double() + torch.einsum("rj,jk,jl->rkl", seen, WEIGHT, WEIGHT) / SIGMA**2
    return torch.linalg.solve(precision, ((x - OFFSET) * seen) @ WEIGHT / SIGMA**2), precision.inverse()


def error(found: Posterior, values: Tensor) -> Tensor:
    """Standard error of the mean over draws of ``values`` (sample, *cell), from their effective sample size."""
    chains = values.unflatten(0, (found.chains, -1))
    return values.std(0) / effective_draws(chains).sqrt()


def agrees(found: Posterior, values: Tensor, expected: Tensor) -> None:
    """The mean over draws of each cell is within 4 standard errors of its expectation, and all cells together are as
    far from theirs as chance says.
    """
    off = (values.mean(0) - expected) / error(found, values)
    assert off.abs().max() < 4
    assert off.square().mean() < 1 + 4 * math.sqrt(2 / off.shape[0])  # at most as many independent ones as rows


@pytest.mark.parametrize("start", ["posterior", "prior", "both"])
def test_mean_and_covariance_are_those_of_the_normal_posterior(start: str) -> None:
    x = simulated(8)
    found = posterior(model(Line()), x, start=start, key=KEY)
    assert found.z.shape == (1000, 8, LATENT)
    assert found.samples == 1000
    assert not found.warnings
    mean, covariance = exact(x)
    agrees(found, found.z, mean)
    centred = found.z - mean
    agrees(
        found,
        torch.einsum("srk,srl->srkl", centred, centred)[:, :, [0, 0, 1], [0, 1, 1]],
        covariance[:, [0, 0, 1], [0, 1, 1]],
    )
    torch.testing.assert_close(found.mean, found.z.mean(0))
    torch.testing.assert_close(found.sd, found.z.std(0))
    assert (found.worst_ess > 200).all()


def test_r_hat_and_effective_draws_are_arviz_s() -> None:
    found = posterior(model(Line()), simulated(3), samples=200, chains=5, key=KEY)
    chains = found.z.unflatten(0, (5, 40)).permute(2, 3, 0, 1).numpy()
    np.testing.assert_array_equal(found.r_hat.numpy(), array_stats.rhat(chains))
    np.testing.assert_array_equal(found.ess.numpy(), array_stats.ess(chains))
    assert torch.equal(found.worst_r_hat, found.r_hat.max(1).values)


@pytest.mark.parametrize("draws", [4, 7, 8, 11, 40])
def test_chain_diagnostics_equal_arviz_s(draws: int) -> None:
    noise = KEY.fold("chains").normal((3, draws, 20), dtype=torch.float64)
    for values in (noise, noise.cumsum(1), noise.sign(), noise + torch.arange(3).view(3, 1, 1)):
        by_cell = values.permute(2, 0, 1).numpy()
        with np.errstate(all="ignore"):
            hat, ess = array_stats.rhat(by_cell), array_stats.ess(by_cell)
        varied = by_cell.max((1, 2)) > by_cell.min((1, 2))
        np.testing.assert_array_equal(r_hat(values).numpy()[varied], hat[varied])
        np.testing.assert_array_equal(effective_draws(values).numpy()[varied], ess[varied])
    log_weight = 3 * KEY.fold("w").normal((50 * draws, 6))
    np.testing.assert_array_equal(
        pareto_k(log_weight).numpy(), array_stats.psislw(-log_weight.double().numpy(), axis=0)[1]
    )


def test_pareto_k_is_the_shape_of_the_tail() -> None:
    """Weights (1 − U)^(−k) have a Pareto tail of shape k; the estimate's error is about (1 + k) / √tail."""
    uniform = KEY.fold("pareto").uniform((100_000, 4), dtype=torch.float64)
    k = torch.tensor([0.2, 0.5, 0.7, 1.2], dtype=torch.float64)
    tail = 3 * math.sqrt(100_000)
    assert ((pareto_k(-k * torch.log1p(-uniform)) - k).abs() < 4 * (1 + k) / math.sqrt(tail)).all()


def test_what_cannot_be_said_of_chains_is_nan() -> None:
    draws = KEY.fold("chains").normal((4, 20, 5), dtype=torch.float64)
    draws[0, 3, 0], draws[1, 1, 1], draws[:, :, 2] = torch.nan, torch.inf, 1.0
    draws[:, :, 3] = torch.arange(4.0).double()[:, None]
    assert r_hat(draws).isnan().tolist() == [True, True, True, False, False]
    assert r_hat(draws)[3] == torch.inf
    assert effective_draws(draws).isnan().tolist() == [True, True, True, False, False]
    for few in (draws[:1], draws[:, :3]):
        assert r_hat(few).isnan().all()
    assert effective_draws(draws[:, :3]).isnan().all()
    assert not effective_draws(draws[:1, :, 4]).isnan().any()
    log_weight = KEY.fold("w").normal((100, 6), dtype=torch.float64)
    log_weight[0, 0], log_weight[1, 1], log_weight[:, 2], log_weight[:, 3] = torch.nan, torch.inf, -torch.inf, 2.0
    log_weight[:50, 4] = -torch.inf
    assert pareto_k(log_weight).isnan().tolist() == [True, True, True, True, False, False]
    assert pareto_k(log_weight[:24]).isnan().all()


def test_modes_have_their_shares() -> None:
    """Two modes twenty of their standard deviations apart, q at one of them: p(mode k|x) ∝ π_k N(x; a_k, S).

    Chains do not cross, so the share rests on where they begin; rows with chains in both modes warn. From q alone the
    other mode is never seen, and nothing of the chains says so.
    """
    prior, rows, sd = Mixture(LATENT, 2), 150, 0.3
    centre = torch.tensor([[3.0, 0.0], [-3.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        prior.logits.copy_(torch.tensor([0.0, 1.0]))
        prior.loc.copy_(centre)
        prior.log_scale.fill_(math.log(sd))
    encoder = Fixed(3.0, 0.0, math.log(sd), math.log(sd))
    two = vd.VAE(prior, Gaussian(Line(), (SIZE,), FixedScale(9.0)), DiagonalNormal(encoder)).double()
    x = (torch.tensor([0.5, 0.2], dtype=torch.float64) @ WEIGHT.T + OFFSET).expand(rows, -1)
    spread = sd**2 * WEIGHT @ WEIGHT.T + 81 * torch.eye(SIZE, dtype=torch.float64)
    log_mode = [stats.multivariate_normal(WEIGHT @ a + OFFSET, spread).logpdf(x[0]) for a in centre]
    share = float(torch.softmax(torch.tensor(log_mode) + torch.tensor([0.0, 1.0]), 0)[0])
    found = posterior(two, x, samples=40, chains=4, key=KEY)
    right = (found.z[..., 0] > 0).double().mean(0)
    assert abs(right.mean() - share) < 4 * right.std() / math.sqrt(rows)
    both = ((right > 0) & (right < 1)).nonzero()[:, 0].tolist()
    assert len(both) > rows / 2
    assert set(both) <= set(found.warnings)
    assert "R-hat" in found.warnings[both[0]][0]
    blind = posterior(two, x[:20], samples=40, start="posterior", key=KEY)
    assert (blind.z[..., 0] > 0).all()


@pytest.fixture(scope="module")
def curved() -> tuple[vd.VAE, Tensor, Posterior]:
    """A nonlinear model, six rows of it and draws from their posteriors."""
    curve = model(Curve(), 3)
    x = vd.evidence.simulate(curve, 6, KEY.fold("curve")).batch.x
    return curve, x, posterior(curve, x, samples=4000, chains=20, key=KEY)


def test_nonlinear_posteriors_are_those_of_quadrature(curved: tuple[vd.VAE, Tensor, Posterior]) -> None:
    """Mean, variance and the mass below the 0.9 quantile, on a grid of 501² points."""
    curve, x, found = curved
    line = torch.linspace(-5, 5, 501, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        log_joint = curve.given(curve.batch(x)).log_joint(grid.unsqueeze(1).expand(-1, len(x), -1))
    mass = log_joint.softmax(0)
    mean = mass.T @ grid
    agrees(found, found.z, mean)
    agrees(found, (found.z - mean).square(), mass.T @ grid.square() - mean.square())
    marginal = mass.view(501, 501, -1).sum(1)
    below = marginal.cumsum(0)
    cut = (below < 0.9).sum(0)
    edge = line[cut] + 0.01
    agrees(found, (found.z[..., 0] < edge).double(), below.gather(0, cut.unsqueeze(0))[0])


def test_predictive_draws_have_the_moments_of_the_model() -> None:
    """x'|x ~ N(W m + b, W C Wᵀ + σ² I)."""
    x, line = simulated(5), model(Line())
    found = posterior(line, x, samples=2000, key=KEY)
    drawn = predictive(line, found, KEY.fold("predictive"))
    assert drawn.shape == (2000, 5, SIZE)
    mean, covariance = exact(x)
    expected = mean @ WEIGHT.T + OFFSET
    agrees(found, drawn, expected)
    variance = (WEIGHT @ covariance @ WEIGHT.T).diagonal(dim1=1, dim2=2) + SIGMA**2
    agrees(found, (drawn - expected).square(), variance)
    fewer = predictive(line, found, KEY.fold("predictive"), samples=8)
    assert fewer.shape == (8, 5, SIZE)
    noise = KEY.fold("predictive").uniform_rows(torch.arange(5), 8, SIZE, dtype=torch.float64)
    torch.testing.assert_close(fewer, line.decode(found.z[::250]).icdf(noise))


def test_mask_and_covariates_count() -> None:
    """Hidden cells say nothing; a row without a finite density has no draws, says so, and leaves the others alone."""
    x, seen = simulated(6), torch.rand(6, SIZE, generator=KEY.generator()) < 0.6
    context = KEY.fold("c").uniform((6, 1), dtype=torch.float64)
    context[4] = -1.0
    line = model(Line())
    batch = vd.Batch(x + context, mask=seen, context=context, row_id=torch.arange(10, 16))
    found = posterior(line, batch, key=KEY)
    fine = [0, 1, 2, 3, 5]
    mean, _ = exact(x, seen)
    agrees(found, found.z[:, fine], mean[fine])
    agrees(found, predictive(line, found, KEY)[:, fine], (mean @ WEIGHT.T + OFFSET + context)[fine])
    assert found.z[:, 4].isnan().all()
    assert found.row.tolist() == list(range(10, 16))
    assert list(found.warnings) == [14]
    assert "not finite" in found.warnings[14][0]
    assert "1,000 draws per row from 4 chains" in str(found)
    assert "1 rows with a warning" in str(found)


def test_chains_that_stand_still_say_so() -> None:
    found = posterior(model(Jagged()), simulated(2), samples=40, key=KEY)
    assert all("no chain ever moved" in found.warnings[row][0] for row in (0, 1))
    assert found.acceptance.max() == 0


def test_a_row_has_the_same_draws_whatever_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    line, x, told = model(Line()), simulated(7), []
    whole = posterior(line, x, samples=40, key=KEY)
    monkeypatch.setattr(sys.modules["vaelid.evidence.annealing"], "PASS", 32)
    pieces = posterior(line, x, samples=40, key=KEY, on_progress=lambda *said: told.append(said))
    torch.testing.assert_close(pieces.z, whole.z)
    assert told == [("posterior", done, 7) for done in (2, 4, 6, 7)]
    assert pieces.decoder_rows == whole.decoder_rows
    one = posterior(line, line.batch(x).take(torch.tensor([5])), samples=40, key=KEY)
    torch.testing.assert_close(one.z[:, 0], whole.z[:, 5])
    assert not torch.equal(posterior(line, x, samples=40, key=KEY.fold("other")).z, whole.z)


@pytest.mark.parametrize("start", ["posterior", "prior"])
def test_decoder_rows_are_those_spent(start: str) -> None:
    """Pilot and annealing, then the chains."""
    spent = 0

    class Counted(Line):
        def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
            nonlocal spent
            spent += z[..., 0].numel()
            return super().forward(z, context)

    counted = model(Counted())
    batch = counted.batch(simulated(3))
    spent = 0
    found = posterior(counted, batch, samples=40, thin=2, start=start, key=KEY)
    assert found.decoder_rows == spent


def test_refusals() -> None:
    line, x = model(Line()), simulated(2).numpy()
    refused("samples is 0", lambda: posterior(line, x, samples=0))
    refused("samples is 2.5", lambda: posterior(line, x, samples=2.5), InputTypeError)
    refused("samples=10 from chains=4.*Ask for samples=8", lambda: posterior(line, x, samples=10))
    refused("chains is 0", lambda: posterior(line, x, chains=0))
    refused("thin is 0", lambda: posterior(line, x, thin=0))
    refused("leapfrogs is -1", lambda: posterior(line, x, leapfrogs=-1))
    refused("start='middle'", lambda: posterior(line, x, start="middle"))
    refused("NaN", lambda: posterior(line, np.full((2, SIZE), np.nan)))
    found = posterior(line, x, samples=8, key=KEY)
    refused("samples=9; expected at most 8", lambda: predictive(line, found, KEY, samples=9))


def test_a_posterior_without_an_inverse_starts_from_itself() -> None:
    x = simulated(4)
    heads = (0.2, 0.1, 0.0, -0.2, *(0.5 * KEY.fold("planar").normal((10,))).tolist())
    line = Gaussian(Line(), (SIZE,), FixedScale(SIGMA))
    planar = vd.VAE(StandardNormal(LATENT), line, Planar(Fixed(*heads), LATENT, layers=2)).double()
    refused("start='both'.*Take start='posterior'", lambda: posterior(planar, x, key=KEY), InputTypeError)
    found = posterior(planar, x, start="posterior", key=KEY)
    agrees(found, found.z, exact(x)[0])
