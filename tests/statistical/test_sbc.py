"""Simulation-based calibration (Talts et al. 2018): for (z, x) from the model, the rank of z among draws from p(z|x)
is uniform.
"""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import vaelid as vd
from vaelid.evidence import Simulated, simulate
from vaelid.evidence.posterior import posterior
from vaelid.likelihoods import FixedScale, Gaussian
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal

KEY, ROWS, LATENT, SIZE, DRAWS, BINS = vd.Key(17), 600, 2, 3, 76, 11


@pytest.fixture(scope="module")
def tiny() -> tuple[vd.VAE, Simulated]:
    """A decoder with one hidden layer, an encoder that nobody trained, and rows simulated from the model."""
    with KEY.seeding():
        decoder = nn.Sequential(nn.Linear(LATENT, 8), nn.Tanh(), nn.Linear(8, SIZE))
        encoder = nn.Linear(SIZE, 2 * LATENT)
        with torch.no_grad():
            decoder[0].weight.mul_(3)
            decoder[2].weight.mul_(2)
        likelihood = Gaussian(decoder, (SIZE,), FixedScale(0.4))
        model = vd.VAE(StandardNormal(LATENT), likelihood, DiagonalNormal(encoder)).double()
    return model, simulate(model, ROWS, KEY.fold("simulated"))


def p_values(model: vd.VAE, simulated: Simulated, draws: Tensor) -> list[float]:
    """Chi-square tests of ranks among ``draws`` (sample, row, d), for each latent and for log p(x, z)."""
    with torch.no_grad():
        problem = model.given(simulated.batch)
        true, drawn = problem.log_joint(simulated.z.unsqueeze(0))[0], problem.log_joint(draws)
    ranks = [(draws[..., j] < simulated.z[:, j]).sum(0) for j in range(LATENT)]
    ranks.append((drawn < true).sum(0))
    assert (DRAWS + 1) % BINS == 0
    counts = [torch.bincount(rank * BINS // (DRAWS + 1), minlength=BINS) for rank in ranks]
    return [float(stats.chisquare(count.numpy()).pvalue) for count in counts]


@pytest.mark.parametrize("start", ["both", "posterior"])
def test_hamiltonian_draws_are_calibrated(tiny: tuple[vd.VAE, Simulated], start: str) -> None:
    """Four chains, every fifth draw of each, so that ranks among them are close to ranks among independent draws."""
    model, simulated = tiny
    found = posterior(model, simulated.batch, samples=DRAWS, chains=4, thin=5, start=start, key=KEY)
    assert found.worst_ess.median() > 0.7 * DRAWS
    assert min(p_values(model, simulated, found.z)) > 0.01


def test_draws_from_a_poor_encoder_are_not(tiny: tuple[vd.VAE, Simulated]) -> None:
    model, simulated = tiny
    with torch.no_grad():
        problem = model.given(simulated.batch)
        draws = problem.start.push(problem.noise(KEY.fold("q"), DRAWS))[0]
    assert max(p_values(model, simulated, draws)) < 1e-6
