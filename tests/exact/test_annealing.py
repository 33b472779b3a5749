"""Annealed importance sampling against models whose log p(x), and every tempered integral, is known in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from evidence_cases import Ladder, LinearGaussian, correlated, fixed_steps, several_modes, z_score
from torch import Tensor

from vaelid import networks, recipes
from vaelid.evidence.annealing import Settings, Start, annealing, backward, forward, reverse_annealing
from vaelid.evidence.importance import importance
from vaelid.evidence.paths import LatentPath, NoisePath, Path
from vaelid.evidence.schedules import Linear, Placed, Schedule, Sigmoid
from vaelid.model import VAE, Problem
from vaelid.random import Key
from vaelid.types import Batch

KEY = Key(41)
BETAS = [0.05, 0.3, 0.7, 1.0]
STARTS: list[Start] = ["posterior", "prior", "both"]
SCHEDULES: list[Schedule] = [Placed(), Linear(), Sigmoid()]


def of_ppca(ppca: Any) -> LinearGaussian:
    one = torch.ones(1, ppca.latent, dtype=torch.float64)
    sigma = torch.full_like(ppca.mean, ppca.sigma)
    return LinearGaussian(ppca.weight, ppca.mean, sigma, ppca.x[:8], one[:, 0], 0 * one, one)


@pytest.fixture(params=["ppca", "correlated"])
def case(request: pytest.FixtureRequest, ppca: Any) -> LinearGaussian:
    return of_ppca(ppca) if request.param == "ppca" else correlated()


def posed(case: LinearGaussian, model: VAE) -> Problem:
    return model.given(Batch(case.x))


def gauss_hermite(n: int = 80) -> tuple[Tensor, Tensor]:
    """Nodes (n², 1, 2) and log weights (n², 1) of an expectation under N(0, I)."""
    node, weight = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(n))
    log_weight = weight.log() - 0.5 * math.log(2 * math.pi)
    return torch.cartesian_prod(node, node).unsqueeze(1), torch.cartesian_prod(log_weight, log_weight).sum(-1, True)


def grid(reach: float, n: int) -> tuple[Tensor, float]:
    """Points (n², 1, 2) of a square around 0, and the log of the area of each: the trapezium rule."""
    line = torch.linspace(-reach, reach, n, dtype=torch.float64)
    return torch.cartesian_prod(line, line).unsqueeze(1), 2 * math.log(2 * reach / (n - 1))


def start_of(problem: Problem, loc: Tensor | None, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean (rows, d) and covariance (d, d), the same for all rows, of a NoisePath's b in z."""
    zero, unit = torch.zeros(1, problem.batch.rows, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    centre = problem.start.push(zero)[0][0]
    root = torch.stack([problem.start.push(zero + column)[0][0, 0] - centre[0] for column in unit], -1)
    if loc is None or scale is None:
        return centre, root @ root.T
    return centre + loc @ root.T, root @ torch.diag(scale[0].square()) @ root.T


class TestPaths:
    """log b + β log w, as the path's states have it, integrates to Z_β."""

    @pytest.mark.parametrize("beta", BETAS)
    @pytest.mark.parametrize("moved", [False, True])
    @pytest.mark.parametrize("full", [False, True])
    def test_from_the_encoder(self, case: LinearGaussian, full: bool, moved: bool, beta: float) -> None:
        problem = posed(case, case.model(shift=0.2, stretch=1.3, full=full))
        loc = scale = None
        if moved:
            loc = 0.3 * KEY.normal((len(case.x), 2), dtype=torch.float64)
            scale = torch.tensor([0.9, 1.2], dtype=torch.float64).expand(len(case.x), -1)
        nodes, log_weight = gauss_hermite()
        path = NoisePath(problem) if loc is None or scale is None else NoisePath(problem).moved(loc, scale)
        state = path.state(nodes.expand(-1, len(case.x), -1))
        torch.testing.assert_close(state.log_base, -0.5 * state.position.square().sum(-1))
        found = (log_weight + beta * state.log_weight).logsumexp(0)
        expected = case.log_tempered(beta, *start_of(problem, loc, scale))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("beta", BETAS)
    def test_from_a_prior_of_several_modes(self, beta: float) -> None:
        case = several_modes()
        problem = case.model().given(Batch(case.x), start="prior")
        points, log_area = grid(5.0, 121)
        state = LatentPath(problem, problem.prior).state(points.expand(-1, len(case.x), -1))
        found = (state.log_base + beta * state.log_weight).logsumexp(0) + log_area
        torch.testing.assert_close(found, case.log_evidence(beta), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("beta", BETAS)
    def test_from_a_normal_prior(self, case: LinearGaussian, beta: float) -> None:
        problem = case.model().given(Batch(case.x), start="prior")
        points, log_area = grid(7.0, 141)
        state = NoisePath(problem).state(points.expand(-1, len(case.x), -1))
        found = (state.log_base + beta * state.log_weight).logsumexp(0) + log_area - math.log(2 * math.pi)
        torch.testing.assert_close(found, case.log_evidence(beta), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("moved", [False, True])
    @pytest.mark.parametrize("name", list(recipes.POSTERIORS))
    def test_every_posterior_ends_at_the_evidence(self, name: str, moved: bool) -> None:
        """∫ N(v) w(T(loc + scale v)) dv = p(x), whatever the transport T."""
        case = correlated(rows=2)
        linear, (outputs, wrap) = case.model(), recipes.POSTERIORS[name]
        encoder = networks.MLP(5, 1, hidden=(8,), heads=outputs(2))
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.mul_(0.5)  # q stays within the reach of the grid
        model = VAE(linear.prior, linear.likelihood, wrap(encoder, 2)).double()
        loc = torch.tensor([[0.5, -0.5]], dtype=torch.float64).expand(2, -1) if moved else None
        scale = torch.tensor([[0.8, 1.1]], dtype=torch.float64).expand(2, -1) if moved else None
        points, log_area = grid(9.0, 161)
        state = NoisePath(posed(case, model), loc, scale).state(points.expand(-1, 2, -1))
        found = (state.log_base + state.log_weight).logsumexp(0) + log_area - math.log(2 * math.pi)
        torch.testing.assert_close(found, case.log_evidence(), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("kind", ["noise", "moved", "prior", "latents"])
    def test_slopes(self, kind: str) -> None:
        """Central differences of the values."""
        case = several_modes()
        model, batch, shape = case.model(shift=0.2), Batch(case.x), (len(case.x), 2)
        problem, prior = model.given(batch), model.given(batch, start="prior")
        loc, scale = KEY.fold("loc").normal(shape, dtype=torch.float64), torch.full(shape, 1.3, dtype=torch.float64)
        path: Path = {
            "noise": NoisePath(problem),
            "moved": NoisePath(problem, loc, scale),
            "prior": NoisePath(prior),
            "latents": LatentPath(prior, prior.prior),
        }[kind]
        at, h = KEY.fold("at").normal((4, *shape), dtype=torch.float64), 1e-5
        state = path.state(at)
        for j, side in enumerate(h * torch.eye(2, dtype=torch.float64)):
            above, below = path.state(at + side), path.state(at - side)
            slope = (above.log_weight - below.log_weight) / (2 * h)
            torch.testing.assert_close(state.weight_slope[..., j], slope, rtol=1e-6, atol=1e-6)
            base = torch.zeros_like(at) if state.base_slope is None else state.base_slope
            expected = torch.zeros_like(slope) if state.base_slope is None else above.log_base - below.log_base
            torch.testing.assert_close(base[..., j], expected / (2 * h), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("start", ["noise", "latents"])
    def test_positions_and_latents(self, start: str) -> None:
        case = several_modes()
        model, batch = case.model(), Batch(case.x)
        z = case.draws(KEY).unsqueeze(0)
        loc, scale = torch.ones_like(z[0]), torch.full_like(z[0], 0.7)
        prior = model.given(batch, start="prior")
        path = NoisePath(model.given(batch), loc, scale) if start == "noise" else LatentPath(prior, prior.prior)
        torch.testing.assert_close(path.latents(path.of(z)), z, rtol=0, atol=1e-9)


class TestExactPosterior:
    """log w = log p(x) of every chain, wherever it starts and however far it steps."""

    @pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
    def test_every_weight_is_the_evidence(self, case: LinearGaussian, schedule: Schedule) -> None:
        problem = posed(case, case.model(full=True))
        path, tuning, settings = NoisePath(problem), fixed_steps(len(case.x), 0.7), Settings(3, 4, schedule)
        lower = forward(path, tuning, 5, settings, KEY)
        upper = backward(path, tuning, 5, settings, 3 * problem.noise(KEY.fold("ends"), 4), KEY)
        for walk in (lower, upper):
            torch.testing.assert_close(walk.log_weight, case.log_evidence().expand(4, -1), rtol=0, atol=1e-9)
            torch.testing.assert_close(walk.acceptance, torch.ones_like(walk.acceptance), rtol=0, atol=1e-9)

    def test_the_scout_costs_little(self, case: LinearGaussian) -> None:
        """A start that a few chains have moved is no longer exact, but close."""
        found = annealing(case.model(full=True), case.x.numpy(), key=KEY)
        assert float(found.mc_se.mean()) < 0.05
        check_lower(found, case.log_evidence())


def check_lower(found: Any, exact: Tensor, largest: float = 0.6) -> None:
    """Within 4 standard errors row by row, over all rows together, and with errors that say something."""
    error = found.log_evidence - exact
    assert (error.abs() <= 4 * found.mc_se).all()
    assert abs(float(error.sum() / found.mc_se.square().sum().sqrt())) <= 4
    assert float(found.mc_se.max()) < largest


class TestLowerBound:
    @pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
    def test_from_the_encoder(self, case: LinearGaussian, schedule: Schedule) -> None:
        found = annealing(case.model(shift=0.3, stretch=1.4), case.x.numpy(), schedule=schedule, key=KEY)
        check_lower(found, case.log_evidence())

    @pytest.mark.parametrize("start", STARTS)
    def test_several_modes(self, start: Start) -> None:
        case = several_modes()
        found = annealing(case.model(stretch=1.2), case.x.numpy(), start=start, chains=32, key=KEY)
        assert len(found.log_weight) == (64 if start == "both" else 32)
        check_lower(found, case.log_evidence())

    @pytest.mark.parametrize(("shift", "stretch"), [(2.0, 1.0), (-1.0, 0.3), (0.0, 4.0)])
    def test_a_poor_encoder_is_recovered_from(self, ppca: Any, shift: float, stretch: float) -> None:
        model = ppca.model(shift=shift, stretch=stretch)
        elbo = importance(model, ppca.x.numpy(), 16, KEY).elbo
        exact = ppca.log_evidence()
        assert float((exact - elbo).min()) > 1.0  # nats, on every row
        found = annealing(model, ppca.x.numpy(), key=KEY)
        check_lower(found, exact)
        assert float((found.log_evidence - exact).abs().mean()) < 0.2

    def test_single_precision(self, case: LinearGaussian) -> None:
        found = annealing(case.model(shift=0.3, stretch=1.4).float(), case.x.numpy(), key=KEY)
        assert found.latents.dtype == torch.float32
        check_lower(found, case.log_evidence())

    def test_the_estimate_is_that_of_its_chains(self, ppca: Any) -> None:
        """log (1/M Σ w) and its standard error by the delta method: the relative standard error of the mean."""
        found = annealing(ppca.model(shift=0.3), ppca.x.numpy(), distributions=5, chains=6, key=KEY)
        weight = found.log_weight.exp()
        mean, error = weight.mean(0), weight.std(0) / math.sqrt(6)
        torch.testing.assert_close(found.log_evidence, mean.log(), rtol=0, atol=1e-10)
        torch.testing.assert_close(found.mc_se, error / mean, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found.ess, weight.sum(0).square() / weight.square().sum(0), rtol=1e-9, atol=0)
        assert found.log_evidence.dtype == torch.float64
        assert found.distributions.tolist() == [5] * 16


def check_upper(found: Any, exact: Tensor) -> None:
    """E[p(x) / estimate] = 1 over rows with a draw of z each: what chains from one draw share, they do not tell."""
    score, error = z_score(exact - found.log_evidence)
    assert abs(score) <= 4
    assert error < 0.2


class TestUpperBound:
    @pytest.mark.parametrize("start", STARTS)
    def test_one_mode(self, start: Start) -> None:
        case = correlated(rows=100)
        model = case.model(shift=0.3, stretch=1.2)
        found = reverse_annealing(model, case.x.numpy(), case.draws(KEY), start=start, chains=8, key=KEY)
        check_upper(found, case.log_evidence())
        torch.testing.assert_close(found.log_evidence, -((-found.log_weight).exp().mean(0)).log(), rtol=0, atol=1e-10)

    @pytest.mark.parametrize("start", STARTS)
    def test_several_modes(self, start: Start) -> None:
        case = several_modes(rows=300)
        model = case.model(stretch=1.2)
        found = reverse_annealing(model, case.x.numpy(), case.draws(KEY), start=start, chains=4, key=KEY)
        check_upper(found, case.log_evidence())


class TestLadder:
    """Two groups of latents, with nothing but a batch, noise, a trace and the inverse transport."""

    @pytest.mark.parametrize("start", STARTS)
    def test_lower(self, start: Start) -> None:
        ladder = Ladder()
        x, _ = ladder.joint(16, KEY)
        found = annealing(ladder, x, start=start, key=KEY)
        assert found.latents.shape == (32 if start == "both" else 16, 16, 3)
        check_lower(found, ladder.log_evidence(x))

    @pytest.mark.parametrize("start", STARTS)
    def test_upper(self, start: Start) -> None:
        ladder = Ladder()
        x, z = ladder.joint(200, KEY)
        found = reverse_annealing(ladder, x, z, start=start, chains=4, key=KEY)
        check_upper(found, ladder.log_evidence(x))
