"""Probabilistic PCA as a VAE: evidence, posterior, ELBO and the limit of the importance-weighted bound are exact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from vaelid.diagnostics import evaluate
from vaelid.evidence import importance
from vaelid.likelihoods import FixedScale, LearnedScale
from vaelid.model import VAE
from vaelid.objectives import ELBO, IWAE
from vaelid.random import Key
from vaelid.types import Batch

KEY = Key(11)
SCALES = {
    "fixed": lambda ppca: FixedScale(ppca.sigma),
    "learned scalar": lambda ppca: LearnedScale(),
    "learned per feature": lambda ppca: LearnedScale((len(ppca.mean),)),
}
WRONG = {"shift": 0.3, "stretch": 1.4}  # a posterior with heavier tails than the exact one: bounded weights


def close(value: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool((value - expected).abs().max() < tolerance)


@pytest.mark.parametrize("scale", SCALES)
class TestExactPosterior:
    """log w = log p(x) whatever the noise, and so do all means of it."""

    @pytest.fixture
    def model(self, ppca: Any, scale: str) -> VAE:
        return ppca.model(scale=SCALES[scale](ppca))

    def test_log_weight(self, ppca: Any, model: VAE) -> None:
        problem = model.given(Batch(ppca.x))
        ordinary = problem.noise(KEY, 64)
        for u in (ordinary, 10 * ordinary, torch.zeros_like(ordinary)):
            log_weight = problem.trace(u).log_weight
            assert log_weight.shape == (64, 16)
            assert close(log_weight, ppca.log_evidence(), 1e-9)

    @pytest.mark.parametrize(
        "objective", [ELBO(samples=3, analytic_kl=False), IWAE(samples=1), IWAE(samples=7)], ids=repr
    )
    def test_bounds(self, ppca: Any, model: VAE, objective: ELBO | IWAE) -> None:
        problem = model.given(Batch(ppca.x))
        outcome = objective(problem, problem.noise(KEY, objective.samples), 0)
        assert outcome.bound is not None
        assert close(outcome.bound, ppca.log_evidence(), 1e-9)
        assert abs(outcome.surrogate - ppca.log_evidence().mean()) < 1e-9

    def test_importance(self, ppca: Any, model: VAE) -> None:
        found = importance(model, ppca.x, 100, KEY)
        assert close(found.log_evidence, ppca.log_evidence(), 1e-9)
        assert close(found.ess, torch.tensor(100.0), 1e-9)
        assert found.mc_se.max() < 1e-6  # √ of the rounding of 1/ESS − 1/K

    def test_analytic_elbo(self, ppca: Any, model: VAE) -> None:
        """With noise ±1 in every sign the mean over draws of a quadratic is its mean over N(0, I): no error is left."""
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * ppca.latent)
        u = signs[:, None].expand(-1, len(ppca.x), -1)
        bound = ELBO(samples=len(u))(model.given(Batch(ppca.x)), u, 0).bound
        assert close(bound, ppca.log_evidence(), 1e-9)
        assert close(ppca.elbo(model), ppca.log_evidence(), 1e-9)

    def test_evaluation(self, ppca: Any, model: VAE) -> None:
        found = evaluate(model, ppca.x, samples=10)
        truth = ppca.log_evidence()
        assert abs(found.iwae.value - truth.mean()) < 1e-9
        assert abs(found.iwae.se - truth.std() / 4) < 1e-9
        assert found.iwae_mc_se < 1e-6
        assert close(found.per_row.kl, ppca.kl(model), 1e-12)


def test_wrong_posterior_elbo(ppca: Any) -> None:
    """KL exactly; the reconstruction within 4 standard errors of its closed form, over 4000 draws per row."""
    model = ppca.model(**WRONG)
    problem = model.given(Batch(ppca.x))
    u = problem.noise(KEY, 4000)
    trace = problem.trace(u)
    for analytic in (True, False):
        outcome = ELBO(samples=4000, analytic_kl=analytic)(problem, u, 0)
        draws = trace.log_likelihood if analytic else trace.log_weight
        se = draws.std(0) / math.sqrt(4000)
        assert ((outcome.bound - ppca.elbo(model)).abs() < 4 * se).all()
        assert (se < 0.1).all()
        if analytic:
            assert close(outcome.terms["rate"], ppca.kl(model).sum(1), 1e-12)
        assert close(outcome.bound, outcome.terms["reconstruction"] - outcome.terms["rate"], 1e-12)
    assert (ppca.elbo(model) < ppca.log_evidence()).all()


def test_gap_is_the_divergence_from_the_exact_posterior(ppca: Any) -> None:
    """log p(x) − ELBO = KL(q(z|x) ‖ p(z|x))."""
    exact, wrong = ppca.model().given(Batch(ppca.x)).start, ppca.model(**WRONG).given(Batch(ppca.x)).start
    ratio = wrong.scale / exact.scale
    divergence = 0.5 * (ratio**2 + ((wrong.loc - exact.loc) / exact.scale) ** 2 - 1 - 2 * ratio.log()).sum(1)
    assert close(ppca.log_evidence() - ppca.elbo(ppca.model(**WRONG)), divergence, 1e-12)


def test_bound_rises_with_samples(ppca: Any) -> None:
    """On the same draws L_2K is above the mean of the two halves' L_K, by Jensen; strictly, if q is not exact."""
    model = ppca.model(**WRONG)
    problem = model.given(Batch(ppca.x))
    u, below = problem.noise(KEY, 256), None
    for size in (1, 2, 4, 16, 64, 256):
        pieces = [IWAE(samples=size)(problem, part, 0).bound for part in u.split(size)]
        level = torch.stack(pieces).mean(0)
        assert below is None or (level > below).all()
        below = level


def test_limit_is_the_evidence(ppca: Any) -> None:
    found = importance(ppca.model(**WRONG), ppca.x, 20_000, KEY)
    assert ((found.log_evidence - ppca.log_evidence()).abs() < 4 * found.mc_se).all()
    assert (found.mc_se > 0).all()
    assert (found.mc_se < 0.02).all()
    assert (found.ess < 20_000).all()


def test_mc_se_is_calibrated(ppca: Any) -> None:
    """Over 200 keys, 199 · spread² / mc_se² ~ χ²(199) for every row; bounds at 1e-4 over all rows, both sides."""
    model, batch, samples = ppca.model(**WRONG), Batch(ppca.x), 400
    runs = [importance(model, batch, samples, KEY.fold(i)) for i in range(200)]
    spread = torch.stack([run.log_evidence for run in runs]).var(0)
    reported = torch.stack([run.mc_se for run in runs]).square().mean(0)
    statistic = (199 * spread / reported).numpy()
    low, high = stats.chi2.ppf([0.5e-4 / 16, 1 - 0.5e-4 / 16], 199)
    assert (statistic > low).all()
    assert (statistic < high).all()
    # and over all rows together, whose noise is independent
    low, high = stats.chi2.ppf([0.5e-4, 1 - 0.5e-4], 199 * 16)
    assert low < statistic.sum() < high


def test_log_joint(ppca: Any) -> None:
    model = ppca.model(**WRONG)
    problem = model.given(Batch(ppca.x))
    trace = problem.trace(problem.noise(KEY, 5))
    z = trace.groups[0].z.detach()
    eye = torch.eye(ppca.latent, dtype=torch.float64)
    covariance = torch.cat((torch.cat((eye, ppca.weight.T), 1), torch.cat((ppca.weight, ppca.covariance), 1)))
    mean = torch.cat((torch.zeros(ppca.latent, dtype=torch.float64), ppca.mean))
    both = torch.cat((z, ppca.x.expand(5, -1, -1)), dim=-1)
    expected = torch.from_numpy(stats.multivariate_normal(mean.numpy(), covariance.numpy()).logpdf(both.numpy()))
    assert close(problem.log_joint(z), expected, 1e-9)
    assert close(trace.log_joint, expected, 1e-9)


def test_log_posterior(ppca: Any) -> None:
    """log q from the noise agrees with SciPy at z."""
    problem = ppca.model(**WRONG).given(Batch(ppca.x))
    group = problem.trace(problem.noise(KEY, 5)).groups[0]
    q = problem.start
    expected = stats.norm(q.loc.detach().numpy(), q.scale.detach().numpy()).logpdf(group.z.detach().numpy()).sum(-1)
    assert np.abs(group.log_posterior.detach().numpy() - expected).max() < 1e-12


def test_noise_of_inverts_trace(ppca: Any) -> None:
    problem = ppca.model(**WRONG).given(Batch(ppca.x))
    u = problem.noise(KEY, 32)
    assert close(problem.noise_of(problem.trace(u).groups[0].z), u, 1e-12)


def test_start_from_prior(ppca: Any) -> None:
    """Weights are p(x|z) then, and their mean is p(x)."""
    batch = Batch(ppca.x)
    problem = ppca.model().given(batch, start="prior")
    trace = problem.trace(problem.noise(KEY, 20_000))
    assert torch.equal(trace.log_weight, trace.log_likelihood)
    ratio = (trace.log_weight - ppca.log_evidence()).exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / math.sqrt(20_000)).all()


@pytest.mark.parametrize("hidden", [0.0, math.nan])
def test_observed_cells_only(ppca: Any, hidden: float) -> None:
    """With a mask, log p is that of the observed cells; what the others hold does not matter."""
    mask = KEY.uniform(tuple(ppca.x.shape)) < 0.7
    x = torch.where(mask, ppca.x, hidden)
    model = ppca.model(stretch=3.0)
    problem = model.given(Batch(x, mask))
    trace = problem.trace(problem.noise(KEY, 20_000))
    z, sigma = trace.groups[0].z[:50], ppca.sigma
    cells = stats.norm((z @ ppca.weight.T + ppca.mean).detach().numpy(), sigma).logpdf(ppca.x.numpy())
    expected = torch.from_numpy((cells * mask.numpy()).sum(-1))
    assert close(trace.log_likelihood[:50], expected, 1e-9)
    truth = torch.tensor(
        [
            stats.multivariate_normal(ppca.mean[m].numpy(), ppca.covariance[m][:, m].numpy()).logpdf(row[m].numpy())
            for row, m in zip(ppca.x, mask, strict=True)
        ]
    )
    ratio = (trace.log_weight - truth).exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / math.sqrt(20_000)).all()
    trace.log_weight.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_mask_through_the_front_door(ppca: Any) -> None:
    """`VAE.batch` takes NaN where the mask says that nothing was observed."""
    mask = KEY.uniform(tuple(ppca.x.shape)) < 0.7
    model = ppca.model()
    holes = np.where(mask.numpy(), ppca.x.numpy(), np.nan)
    direct = importance(model, Batch(ppca.x, mask), 10, KEY)
    through = importance(model, model.batch(holes, mask.numpy()), 10, KEY)
    assert torch.equal(direct.log_evidence, through.log_evidence)


def test_posterior_is_diagonal(ppca: Any) -> None:
    """What makes the oracle exact: Wᵀ W, and with it the posterior's precision, is diagonal."""
    gram = ppca.weight.T @ ppca.weight
    assert close(gram, torch.diag(gram.diag()), 1e-12)
