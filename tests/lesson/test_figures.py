"""The lesson's figures against a model whose every number is known, and against the library's own functions.

z ~ N(0, I), x | z ~ N(W z + b, σ² I): p(z|x) = N(C Wᵀ (x − b) / σ², C) with C = (I + Wᵀ W / σ²)⁻¹, and
log p(x) = log N(x; b, W Wᵀ + σ² I). W has columns that are not orthogonal, so that the posterior is oblique.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from support import refused
from torch import nn

import vaelid as vd
from vaelid.evidence.quadrature import quadrature
from vaelid.lesson import MODEL, Datum, Ellipse
from vaelid.lesson.approximation import approximation, bar, best, divergence, encoder
from vaelid.lesson.belief import belief
from vaelid.lesson.ellipse import expectation, hermite
from vaelid.lesson.gradients import gradients, moved, noise
from vaelid.model import Problem
from vaelid.random import Key
from vaelid.runs import Run, batch_of

W = np.array([[1.5, 0.2], [0.8, 0.9], [-0.4, 1.1], [0.3, -0.2], [1.0, 1.0]])
B, SIGMA = np.array([0.5, -1.0, 0.0, 2.0, 0.3]), 0.7
COVARIANCE = np.linalg.inv(np.eye(2) + W.T @ W / SIGMA**2)
X = np.array([[1.7, -0.4, 1.2, 1.9, 0.8]])
MEAN = COVARIANCE @ W.T @ (X[0] - B) / SIGMA**2
LOG_EVIDENCE = float(stats.multivariate_normal(B, W @ W.T + SIGMA**2 * np.eye(5)).logpdf(X[0]))
ELLIPSES = [
    Ellipse((float(MEAN[0]), float(MEAN[1])), (0.4, 0.2), -0.6),
    Ellipse((2.0, -3.0), (0.05, 0.9), 1.1),
    Ellipse((-9.0, 11.0), (0.3, 0.3)),
    Ellipse((0.0, 0.0), (1.0, 1.0), 0.3),
    Ellipse((0.4, 0.1), (2.5, 0.01), 0.7),
]


def linear(posterior: vd.posteriors.Posterior | None = None) -> vd.VAE:
    """The model; its q is a diagonal normal that does not depend on x."""
    decoder, network = nn.Linear(2, 5).double(), nn.Linear(5, 4).double()
    with torch.no_grad():
        decoder.weight.copy_(torch.from_numpy(W))
        decoder.bias.copy_(torch.from_numpy(B))
        network.weight.zero_()
        network.bias.copy_(torch.tensor([0.8, -0.3, math.log(0.3), math.log(0.5)], dtype=torch.float64))
    likelihood = vd.likelihoods.Gaussian(decoder, (5,), vd.likelihoods.FixedScale(SIGMA))
    model = vd.VAE(vd.priors.StandardNormal(2), likelihood, posterior or vd.posteriors.DiagonalNormal(network))
    return model.double().eval()


@pytest.fixture(scope="module")
def datum() -> Datum:
    model = linear()
    return Datum.of(model, model.batch(X))


def exact_kl(q: Ellipse) -> float:
    """KL between two normals."""
    apart = MEAN - np.array(q.mean)
    inverse = np.linalg.inv(COVARIANCE)
    logs = np.linalg.slogdet(COVARIANCE)[1] - np.linalg.slogdet(q.covariance)[1]
    return 0.5 * float(np.trace(inverse @ q.covariance) + apart @ inverse @ apart - 2 + logs)


# -- ellipses ----------------------------------------------------------------------------------------------------------


def test_an_ellipse_is_a_normal() -> None:
    q = ELLIPSES[1]
    exact = stats.multivariate_normal(q.mean, q.covariance)
    z = np.random.default_rng(0).normal(size=(7, 2)) + q.mean
    assert q.log_density(torch.from_numpy(z)).numpy() == pytest.approx(exact.logpdf(z), rel=1e-10)
    assert q.entropy == pytest.approx(exact.entropy())
    u = Key(1).normal((200_000, 2), dtype=torch.float64)
    assert np.cov(q.push(u).T.numpy()) == pytest.approx(q.covariance, rel=0.02, abs=0.002)
    again = Ellipse.from_moments(np.array(q.mean), q.covariance)
    assert again.covariance == pytest.approx(q.covariance)
    assert again.sd[0] >= again.sd[1]
    assert abs(again.angle) <= math.pi / 2


def test_gauss_hermite_nodes_integrate_polynomials() -> None:
    u, weight = hermite(6)
    assert float(weight.sum()) == pytest.approx(1)
    assert float((u[:, 0] ** 4 * u[:, 1] ** 6) @ weight) == pytest.approx(3 * 15)
    value, error = expectation(ELLIPSES[0], lambda z: z[:, 0] * z[:, 1], (8, 6))
    q = ELLIPSES[0]
    assert value == pytest.approx(q.covariance[0, 1] + q.mean[0] * q.mean[1])
    assert error < 1e-12


def test_ellipses_that_are_none() -> None:
    refused("standard deviations", lambda: Ellipse.of([0, 0], [1, 0], 0))
    refused("one means|1 means", lambda: Ellipse.of([0], [1, 1], 0))
    refused("finite", lambda: Ellipse.of([0, math.nan], [1, 1], 0))


# -- figure 1 ----------------------------------------------------------------------------------------------------------


def test_belief_is_the_closed_form(datum: Datum) -> None:
    found = belief(datum, 40, [-2.0, -3.0, 4.0, 1.0])
    assert found["log_evidence"] == pytest.approx(LOG_EVIDENCE, abs=1e-9)
    assert abs(found["log_evidence"] - LOG_EVIDENCE) <= found["error"]
    assert found["mode"] == pytest.approx(MEAN, abs=1e-4)
    x, y = -2 + 6 * (np.arange(40) + 0.5) / 40, -3 + 4 * (np.arange(40) + 0.5) / 40
    z = np.stack(np.meshgrid(x, y), -1)  # the first row at the lower end
    assert found["log_prior"] == pytest.approx(stats.multivariate_normal([0, 0]).logpdf(z), rel=1e-5)
    assert found["log_posterior"] == pytest.approx(stats.multivariate_normal(MEAN, COVARIANCE).logpdf(z), rel=1e-5)
    sums = found["log_prior"] + found["log_likelihood"] - found["log_evidence"]
    assert found["log_posterior"] == pytest.approx(sums, rel=1e-5, abs=1e-5)
    assert found["log_prior"].shape == (40, 40)
    assert found["quadrature"].startswith("200 × 200 nodes on [")


def test_the_frames_of_belief_hold_the_posterior(datum: Datum) -> None:
    found = belief(datum, 8)
    x0, y0, x1, y1 = found["frame"]
    assert x1 - x0 == y1 - y0 == 2 * x1 >= 8
    for a, b, c, d in (found["frame"], found["near"]):
        assert a < MEAN[0] - 3 * COVARIANCE[0, 0] ** 0.5 < MEAN[0] + 3 * COVARIANCE[0, 0] ** 0.5 < c
        assert b < MEAN[1] - 3 * COVARIANCE[1, 1] ** 0.5 < MEAN[1] + 3 * COVARIANCE[1, 1] ** 0.5 < d


# -- figures 2 and 3 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", ELLIPSES)
def test_kl_and_elbo_are_the_closed_forms(datum: Datum, q: Ellipse) -> None:
    kl, kl_error = divergence(datum, q)
    assert kl == pytest.approx(exact_kl(q), rel=1e-7, abs=1e-9)
    assert abs(kl - exact_kl(q)) <= kl_error + 1e-12 * kl
    elbo, elbo_error = datum.elbo(q)
    assert elbo == pytest.approx(LOG_EVIDENCE - exact_kl(q), rel=1e-9)
    assert abs(elbo - LOG_EVIDENCE + exact_kl(q)) <= elbo_error + 1e-12 * abs(elbo)


def test_the_best_normal_is_the_posterior(datum: Datum) -> None:
    q, kl, error = best(datum)
    assert q.mean == pytest.approx(tuple(MEAN), abs=1e-4)
    assert q.covariance == pytest.approx(COVARIANCE, rel=1e-3)
    assert abs(kl) < 1e-6 + error


def test_the_encoder_of_the_figure_is_the_models(datum: Datum) -> None:
    found = encoder(datum)
    assert found["mean"] == pytest.approx([0.8, -0.3])
    assert sorted(found["sd"]) == pytest.approx([0.3, 0.5])
    assert abs(math.sin(found["angle"])) == pytest.approx(1)  # the long axis first: that of the second latent
    assert found["kl"] == pytest.approx(exact_kl(datum.q), rel=1e-7)
    grid = quadrature(datum.model, datum.batch)
    kl, error = grid.kl(datum.problem.start)
    assert abs(found["kl"] - float(kl[0])) <= found["kl_error"] + float(error[0]) + 1e-12


def test_a_q_that_is_no_normal_is_shown_by_its_moments() -> None:
    network = nn.Linear(5, 10)
    with torch.no_grad():  # weight 1/2 each, means (−1, ½) and (2, ½), scales e⁻¹
        network.weight.zero_()
        network.bias.copy_(torch.tensor([0.0, 0.0, -1.0, 0.5, 2.0, 0.5, -1.0, -1.0, -1.0, -1.0]))
    model = linear(vd.posteriors.Mixture(network, 2, components=2))
    datum = Datum.of(model, model.batch(X))
    found = encoder(datum)
    assert "no normal" in found["said"]
    assert found["mean"] == pytest.approx([0.5, 0.5], abs=0.1)
    assert found["sd"] == pytest.approx([math.sqrt(2.25 + math.exp(-2)), math.exp(-1)], rel=0.05)
    kl, _ = quadrature(model, datum.batch).kl(datum.problem.start)
    assert abs(found["kl"] - float(kl[0])) <= 4 * found["kl_error"]


@pytest.fixture(scope="module")
def digits() -> list[Datum]:
    run = Run.open(MODEL)
    model, data = run.model(), run.dataset()
    return [Datum.of(model, batch_of(run, model, data, run.split().test[place : place + 1])) for place in (0, 2, 5)]


def test_the_bar_is_level_whatever_q(digits: list[Datum]) -> None:
    rng = np.random.default_rng(3)
    for datum in digits:
        heights = []
        for number in range(12):
            wide = 10 ** rng.uniform(-2, -0.3)
            q = Ellipse.of(
                np.array(datum.q.mean) + rng.normal(size=2) * (0.05 if number % 2 else 1.5),
                [wide, wide * rng.uniform(0.1, 1)],
                rng.uniform(-3, 3),
            )
            found = bar(datum, q)
            assert found["kl"] >= -found["kl_error"]
            assert found["sum"] == found["kl"] + found["elbo"]
            assert found["within"], (q, found)
            assert found["kl_error"] + found["elbo_error"] < 0.05 * max(1.0, found["kl"])
            heights.append(found["sum"])
        assert heights == pytest.approx([found["log_evidence"]] * 12, abs=0.05, rel=1e-3)


def test_figures_are_the_librarys_numbers(digits: list[Datum]) -> None:
    for datum in digits:
        grid = quadrature(datum.model, datum.batch)
        shown = belief(datum, 8)
        assert (shown["log_evidence"], shown["error"]) == (float(grid.log_evidence[0]), float(grid.error[0]))
        q = Ellipse.from_moments(np.array(datum.q.mean), 1.2 * datum.q.covariance)
        kl, error = grid.kl(q.log_density)
        found = approximation(datum, q)
        assert abs(found["kl"] - float(kl[0])) <= found["kl_error"] + float(error[0])
        elbo, error = grid.elbo(q.log_density)
        found = bar(datum, q)
        assert abs(found["elbo"] - float(elbo[0])) <= found["elbo_error"] + float(error[0]) + 1e-4
        evaluated = vd.evaluate(datum.model, datum.batch, samples=20_000)
        terms = evaluated.per_row
        assert shown["elbo"] == pytest.approx(float(terms.elbo[0]), abs=1.0)
        assert float(terms.log_evidence[0]) == pytest.approx(
            shown["log_evidence"], abs=5 * float(terms.mc_se[0]) + 0.01
        )


def test_nothing_is_better_than_the_best(digits: list[Datum]) -> None:
    rng = np.random.default_rng(4)
    for datum in digits:
        q, kl, error = best(datum)
        assert kl < divergence(datum, datum.q)[0]
        for _ in range(10):
            spread = np.linalg.cholesky(q.covariance)
            bent = spread @ (np.eye(2) + 0.1 * rng.normal(size=(2, 2)))
            other = Ellipse.from_moments(np.array(q.mean) + spread @ rng.normal(size=2) * 0.1, bent @ bent.T)
            assert divergence(datum, other)[0] > kl - error - 1e-4


# -- figure 5 ----------------------------------------------------------------------------------------------------------


def test_the_gradient_is_the_closed_form(datum: Datum) -> None:
    found = gradients(datum, [0.5, -1.0], 4000)
    mean, sd = moved(datum)
    exact = -(np.linalg.inv(COVARIANCE) @ (mean - MEAN))[0]  # of −KL(q ‖ p(z|x)) by m₁
    assert found["exact"] == pytest.approx(exact, rel=1e-9)
    assert found["z"] == pytest.approx(mean + sd * [0.5, -1.0])
    for name in ("pathwise", "score", "baseline"):
        estimate = found[name]
        assert abs(estimate["mean"] - exact) < 4 * estimate["se"]
        assert estimate["estimates"].shape == (4000,)
        assert estimate["variance"] == pytest.approx(estimate["estimates"].var(ddof=1), rel=1e-4)
    curvature = np.linalg.inv(COVARIANCE)[0]
    assert found["pathwise"]["variance"] == pytest.approx(((curvature * sd) ** 2).sum(), rel=0.1)
    assert found["ratio"] == found["score"]["variance"] / found["pathwise"]["variance"]


def test_gradients_are_the_objectives_estimators(digits: list[Datum]) -> None:
    for datum in digits:
        found = gradients(datum, [0.0, 0.0], 64)
        mean, sd = moved(datum)
        u = noise(datum, 64).unsqueeze(1).to(datum.model.dtype)
        for name, estimator in (("pathwise", vd.objectives.Pathwise()), ("baseline", vd.objectives.ScoreFunction())):
            loc = torch.tensor(mean, dtype=datum.model.dtype).view(1, 2).requires_grad_()
            q = vd.distributions.Normal(loc, torch.tensor(sd, dtype=datum.model.dtype).view(1, 2))
            problem = Problem(datum.model, datum.batch, datum.problem.prior, q)
            objective = vd.objectives.ELBO(samples=64, analytic_kl=False, gradient=estimator)
            (slope,) = torch.autograd.grad(objective(problem, u, 0).surrogate, loc)
            assert found[name]["mean"] == pytest.approx(float(slope[0, 0]), rel=2e-4, abs=2e-3)
        assert abs(found["pathwise"]["mean"] - found["exact"]) < 4 * found["pathwise"]["se"]
        z = torch.tensor(mean) + torch.tensor(sd) * u[:, 0].double()
        reward = datum.slope(z)[0] - torch.distributions.Normal(torch.tensor(mean), torch.tensor(sd)).log_prob(z).sum(1)
        by_hand = reward * u[:, 0, 0].double() / sd[0]
        assert found["score"]["mean"] == pytest.approx(float(by_hand.mean()), rel=1e-4, abs=1e-3)
        assert found["score"]["variance"] > found["baseline"]["variance"]  # log p(x) is far from 0


def test_a_datum_is_one_row_before_two_latents() -> None:
    model = linear()
    refused("2 rows", lambda: Datum.of(model, model.batch(np.concatenate((X, X)))))
