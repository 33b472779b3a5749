"""Brackets, and what they are made of, against closed forms and quadrature."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evidence_cases import LinearGaussian, correlated, several_modes, z_score
from scipy import stats
from torch import Tensor, nn

import vaelid as vd
from vaelid.distributions import Bernoulli, Binomial, Distribution, Normal
from vaelid.evidence import bennett, crowd, importance
from vaelid.evidence.bracket import CHEAP, bracket
from vaelid.evidence.crowd import Crowd
from vaelid.evidence.result import APPROXIMATE, BOUND, Bracket
from vaelid.evidence.rounds import sampled
from vaelid.evidence.simulation import Simulated
from vaelid.likelihoods import Categorical
from vaelid.model import VAE
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key
from vaelid.types import Batch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.quadrature import truth

KEY, ROWS = Key(61), 16
CASES = {"one mode": correlated(ROWS), "several modes": several_modes(ROWS)}
POOR: dict[str, Any] = {"shift": 2.0, "stretch": 0.5}
HOPELESS: dict[str, Any] = {"shift": 300.0}  # hundreds of standard deviations of p(z|x)


def rows_of(case: LinearGaussian, simulated: bool) -> Batch | Simulated:
    """The rows, with exact draws from p(z|x) beside them, as simulated rows have them, or without."""
    return Simulated(Batch(case.x), case.draws(KEY)) if simulated else Batch(case.x)


def holds(found: Bracket, exact: Tensor, one_mode: bool) -> None:
    """E[p̂ / p] = 1 and E[p / p̂] = 1 over the rows, by their scatter, and no side far off in the mean."""
    for side, ratio in ((found.lower, found.lower - exact), (found.upper, exact - found.upper)):
        score, error = z_score(ratio)
        assert abs(score) <= 4
        assert error < 0.15
        assert float((side - exact).abs().mean()) < 0.4
    if one_mode:  # else an error by the chains' own spread knows nothing of modes that none has seen
        error = (found.lower - exact).abs()
        assert bool((error <= 4 * found.lower_mc_se + 1e-8).all())


class TestOracles:
    @pytest.mark.parametrize("simulated", [False, True], ids=["real", "simulated"])
    @pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
    def test_exact_encoder(self, simulated: bool, single: bool) -> None:
        """Every weight is p(x), and so are both sides."""
        case = CASES["one mode"]
        model = case.model(full=True)
        found = bracket(model.float() if single else model, rows_of(case, simulated), key=KEY)
        for side in (found.lower, found.upper):
            torch.testing.assert_close(side, case.log_evidence(), rtol=0, atol=1e-4 if single else 1e-9)
        assert float(torch.maximum(found.lower_mc_se, found.upper_mc_se).max()) < (
            1e-3 if single else 1e-7
        )  # roots of rounding

    @pytest.mark.parametrize("simulated", [False, True], ids=["real", "simulated"])
    @pytest.mark.parametrize("name", CASES)
    def test_poor_encoder(self, name: str, simulated: bool) -> None:
        case = CASES[name]
        found = bracket(case.model(**POOR), rows_of(case, simulated), key=KEY)
        assert float((case.log_evidence() - found.elbo).min()) > 3  # nats that the ELBO lacks, on every row
        assert set(found.tier) == {"annealing"}
        assert set(found.upper_kind) == {BOUND if simulated else APPROXIMATE}
        holds(found, case.log_evidence(), case.components == 1)
        assert (found.bennett is not None) == simulated
        if found.bennett is not None:
            off = found.bennett - case.log_evidence()
            assert abs(float(off.mean())) <= 4 * float(off.std()) / math.sqrt(ROWS)
            assert float(off.abs().mean()) < 0.2

    @pytest.mark.parametrize("simulated", [False, True], ids=["real", "simulated"])
    @pytest.mark.parametrize("name", CASES)
    def test_hopeless_encoder(self, name: str, simulated: bool) -> None:
        """In single precision, where the start of the chains as q has it is the difference of large numbers."""
        case = CASES[name]
        found = bracket(case.model(**HOPELESS).float(), rows_of(case, simulated), key=KEY)
        assert float((case.log_evidence() - found.elbo).min()) > 1e4
        holds(found, case.log_evidence(), case.components == 1)


@pytest.fixture(scope="module")
def digits() -> tuple[VAE, Batch, Tensor]:
    """A model of real digits with two latents, rows of theirs, and log p(x) by quadrature."""
    data = vd.data.load("digits")
    model = vd.recipes.vae(data, latent=2, hidden=(64, 64))
    vd.fit(model, data, epochs=40, seed=0, progress=False)
    model = model.double()
    batch = model.batch(data.x[::40])
    log_p = truth(model, batch, 0.04)
    torch.testing.assert_close(truth(model, batch, 0.06), log_p, rtol=0, atol=0.01)
    return model, batch, log_p


class TestDigits:
    def test_real_rows(self, digits: tuple[VAE, Batch, Tensor]) -> None:
        """What issue 4 asks of real rows: log p by quadrature, and what a miss and a warning have in common."""
        model, batch, log_p = digits
        found = bracket(model, batch, key=KEY)
        low, high = found.lower - log_p, found.upper - log_p
        assert float(low.abs().mean()) < 0.1
        assert float(high.abs().mean()) < 0.2
        warned = torch.tensor([int(row) in found.warnings for row in found.row])
        far = (low.abs() > 0.5) | (high.abs() > 0.5)
        assert bool(warned[far].all())
        assert float((warned & ~far).sum()) <= 0.1 * float((~far).sum())

    def test_importance_sampling_does_not_reach_it(self, digits: tuple[VAE, Batch, Tensor]) -> None:
        """What the bracket is for: L_1000 misses some row by far more."""
        model, batch, log_p = digits
        assert float((importance(model, batch, CHEAP, KEY).log_evidence - log_p).min()) < -0.5


class TestCheapTier:
    """L_K and U_K over thousands of repetitions of one row, with few samples from a poor q."""

    REPETITIONS, K = 8000, 8

    @pytest.fixture
    def case(self) -> LinearGaussian:
        return correlated(2, common=0.0).repeated(1, self.REPETITIONS)

    @pytest.fixture
    def model(self, case: LinearGaussian) -> VAE:
        return case.model(shift=0.2, stretch=1.3)

    def test_both_are_bounds_in_expectation(self, case: LinearGaussian, model: VAE) -> None:
        found = sampled(model, Batch(case.x), case.draws(KEY.fold("z")), self.K, KEY)
        for ratio in (found.lower - case.log_evidence(), case.log_evidence() - found.upper):
            score, error = z_score(ratio)
            assert abs(score) < 4
            assert 0.001 < error <= 0.02  # weights vary, and their mean is known

    def test_a_draw_from_the_wrong_distribution_fails(self, case: LinearGaussian, model: VAE) -> None:
        problem = model.given(Batch(case.x))
        with torch.no_grad():
            z = problem.trace(problem.noise(KEY.fold("wrong"), 1)).groups[0].z[0]  # from q, not p(z|x)
        found = sampled(model, Batch(case.x), z, self.K, KEY)
        assert abs(z_score(case.log_evidence() - found.upper)[0]) > 6

    def test_a_resampled_draw_comes_close(self, case: LinearGaussian, model: VAE) -> None:
        """With enough samples the draw that is picked by weight is as good as an exact one."""
        some = case.repeated(1, 500)
        exact = sampled(model, Batch(some.x), some.draws(KEY.fold("z")), 300, KEY).upper
        picked = sampled(model, Batch(some.x), None, 300, KEY).upper
        off = picked - exact
        assert float(off.abs().max()) > 0
        assert abs(float(off.mean())) <= 4 * float(off.std()) / math.sqrt(len(off))
        assert float(off.std()) < 0.02

    def test_the_pick_is_by_weight(self, case: LinearGaussian, model: VAE) -> None:
        """Of K = 2 the picked weight has the mean E[(w₁² + w₂²) / (w₁ + w₂)]."""
        found = sampled(model, Batch(case.x), None, 2, KEY)
        rest = importance(model, Batch(case.x), 1, KEY.fold("upper")).log_evidence
        kept = (2 * found.upper.exp() - rest.exp()) / case.log_evidence().exp()
        problem = model.given(Batch(case.x))
        with torch.no_grad():
            weight = (problem.trace(problem.noise(KEY.fold("others"), 2)).log_weight - case.log_evidence()).exp()
        expected = weight.square().sum(0) / weight.sum(0)
        error = math.sqrt((float(kept.var()) + float(expected.var())) / self.REPETITIONS)
        assert abs(float(kept.mean() - expected.mean())) <= 4 * error
        assert float(expected.mean()) > 1 + 10 * error  # than which an unweighted pick would give


class TestTiers:
    def test_rows_with_even_weights_stay(self) -> None:
        """The encoder is exact for rows with a positive first feature, and off for the others."""
        case = CASES["one mode"]
        model = case.model(full=True)
        network: Any = model.posterior.network

        class Half(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                out = network(x)
                moved = torch.where(x[:, :1] > 0, 0.0, 2.0) * torch.tensor([1.0, 1.0, *[0.0] * 3])
                return out + moved.to(out)

        model.posterior.network = Half()
        found = bracket(model, Batch(case.x), key=KEY)
        good = case.x[:, 0] > 0
        assert 3 < int(good.sum()) < ROWS - 3
        assert [tier == "importance" for tier in found.tier] == good.tolist()
        assert (found.distributions == 0).tolist() == good.tolist()
        assert found.distributions.unique().tolist() == [0, 20]
        holds(found, case.log_evidence(), one_mode=True)


CELLS, DRAWS = (2, 3), 50
VALUES: dict[str, tuple[Distribution, Tensor]] = {
    "Bernoulli": (
        Bernoulli(3 * KEY.fold("a").normal((DRAWS, 1, *CELLS)), event_dims=2),
        (KEY.fold("b").uniform((7, *CELLS)) < 0.5).float(),
    ),
    "Binomial": (
        Binomial(3 * KEY.fold("c").normal((DRAWS, 1, *CELLS)), 16, event_dims=2),
        (17 * KEY.fold("d").uniform((7, *CELLS))).floor(),
    ),
    "Normal": (
        Normal(KEY.fold("e").normal((DRAWS, 1, *CELLS)), KEY.fold("f").normal((DRAWS, 1, *CELLS)).exp(), event_dims=2),
        KEY.fold("g").normal((7, *CELLS)),
    ),
    "Normal of one scale": (
        Normal(KEY.fold("e").normal((DRAWS, 1, *CELLS)), torch.tensor(0.5), event_dims=2),
        KEY.fold("g").normal((7, *CELLS)),
    ),
}


def doubled_up(value: Distribution) -> Any:
    """The same value in float64."""
    kind: Any = type(value)
    fields = {name: each.double() if isinstance(each, Tensor) else each for name, each in vars(value).items()}
    return kind(**fields)


class TestCrowd:
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("name", VALUES)
    def test_products_are_the_density(self, name: str, masked: bool) -> None:
        value, x = VALUES[name]
        value, x = doubled_up(value), x.double()
        mask = KEY.fold("mask").uniform(tuple(x.shape)) < 0.6 if masked else None
        if mask is not None:
            x = x.masked_fill(~mask, math.nan)  # may hold anything
        found = crowd._linear(value, x, mask)
        assert found.shape == (DRAWS, 7)
        torch.testing.assert_close(found, value.log_prob(x, mask), rtol=1e-12, atol=1e-10)

    def test_far_from_zero(self) -> None:
        """Squares of seconds since 1970 have no digits left for a scale of seconds."""
        loc = 1.7e9 + 3 * KEY.fold("far").normal((DRAWS, 1, 4), dtype=torch.float64)
        x, value = loc[:7, 0] + 1, Normal(loc, torch.full_like(loc, 2.0))
        torch.testing.assert_close(crowd._linear(value, x, None), value.log_prob(x), rtol=0, atol=1e-6)

    def test_one_draw_without_a_number_spoils_itself_alone(self) -> None:
        value, x = VALUES["Normal"]
        value = doubled_up(value)
        value.loc[3] = math.nan
        found = crowd._linear(value, x.double(), None)
        assert found.isnan().all(1).nonzero()[:, 0].tolist() == [3]
        assert not bool(found[torch.arange(DRAWS) != 3].isnan().any())

    @pytest.mark.parametrize("kind", [Bernoulli, lambda logits: Binomial(logits, 1)], ids=["Bernoulli", "Binomial"])
    def test_certain_cells(self, kind: Any) -> None:
        """Infinite logits: what is certain adds nothing, what is impossible adds −∞ or as good as that."""
        value = kind(torch.tensor([[[-math.inf, 0.3]], [[math.inf, 0.3]]], dtype=torch.float64))
        x = torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
        found = crowd._linear(value, x, None)
        expected = torch.full((2,), -math.log1p(math.exp(-0.3)), dtype=torch.float64)
        torch.testing.assert_close(found.diagonal(), expected, rtol=0, atol=1e-9)
        assert float(found[0, 1]) < -1e5
        assert float(found[1, 0]) < -1e5

    def test_other_likelihoods_are_decoded_by_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with KEY.fold("net").seeding():
            decoder, encoder = nn.Linear(2, 12), nn.Linear(12, 4)
        model = VAE(StandardNormal(2), Categorical(decoder, 3), DiagonalNormal(encoder)).double()
        batch = Batch((3 * KEY.fold("x").uniform((5, 4))).floor().double())
        z = KEY.fold("z").normal((33, 1, 2), dtype=torch.float64)
        monkeypatch.setattr(crowd, "BLOCK", 5 * 4 * 10)
        found = Crowd(model, z)
        likelihood = found.log_likelihood(batch)
        torch.testing.assert_close(likelihood, model.decode(z).log_prob(batch.x), rtol=0, atol=1e-12)
        assert found.decoder_rows == 33

    @pytest.mark.parametrize("latent", [1, 2])
    def test_evidence(self, latent: int) -> None:
        case = correlated(8, latent=latent)
        found, se = Crowd.drawn(case.model(), Batch(case.x), KEY).log_evidence(Batch(case.x))
        assert bool(((found - case.log_evidence()).abs() <= 4 * se).all())
        assert float(se.max()) < 0.2

    def test_hints_are_draws_from_the_posterior(self) -> None:
        case, chains = several_modes(6), 4000
        some = Crowd.drawn(case.model(), Batch(case.x), KEY)
        z, estimate = some.hint(Batch(case.x), chains, KEY.fold("hint"))
        assert z.shape == (chains, 6, 2)
        torch.testing.assert_close(estimate, some.log_evidence(Batch(case.x))[0])
        share = some.log_likelihood(Batch(case.x)).softmax(0)
        effective = 1 / (1 / chains + share.square().sum(0))  # draws of the crowd, and draws from these
        weight, loc, precision = case.posterior()
        mean = (weight.unsqueeze(-1) * loc).sum(1)
        inner = torch.linalg.inv(precision).diagonal(dim1=-2, dim2=-1)
        variance = (weight.unsqueeze(-1) * (inner + (loc - mean.unsqueeze(1)).square())).sum(1)
        off = (z.mean(0) - mean) / variance.sqrt()
        assert bool((off.abs() <= 4 / effective.sqrt().unsqueeze(-1)).all())
        square = (z - mean).square() / variance
        assert bool(((square.mean(0) - 1).abs() <= 4 * square.std(0) / effective.sqrt().unsqueeze(-1)).all())

    def test_a_hint_does_not_depend_on_the_rows_beside_it(self) -> None:
        case = several_modes(6)
        batch = Batch(case.x)
        some = Crowd.drawn(case.model(), batch, KEY)
        all_rows, _ = some.hint(batch, 8, KEY)
        one, _ = some.hint(batch.take(torch.tensor([4])), 8, KEY)
        assert torch.equal(all_rows[:, 4], one[:, 0])


def work(forward: int, reverse: int, rows: int, spread: float = 1.5) -> tuple[Tensor, Tensor]:
    """Normal log-weights of both directions with the answer 0: N(−s²/2, s²) and N(s²/2, s²) (Crooks 1999)."""
    half, double = spread**2 / 2, torch.float64
    up = KEY.fold("up").normal((forward, rows), dtype=double)
    return spread * up - half, spread * KEY.fold("down").normal((reverse, rows), dtype=double) + half


class TestBennett:
    @pytest.mark.parametrize(("forward", "reverse"), [(500, 500), (800, 200), (100, 900)])
    def test_known_answer(self, forward: int, reverse: int) -> None:
        up, down = work(forward, reverse, 400)
        found = bennett(up + 7.0, down + 7.0) - 7.0
        assert abs(float(found.mean())) <= 4 * float(found.std()) / math.sqrt(400)
        alone = up.logsumexp(0) - math.log(forward)
        assert float(found.std()) < float((alone - alone.mean()).square().mean().sqrt())

    def test_variance_is_bennetts(self) -> None:
        """(1 / ∫ p q / (p + q) − 2) / n for equal numbers n, p and q the densities of the work (Bennett 1976)."""
        n = 500
        up, down = work(n, n, 2000)
        found = bennett(up, down)
        line = np.linspace(-15, 15, 6001)
        p, q = stats.norm.pdf(line, -(1.5**2) / 2, 1.5), stats.norm.pdf(line, 1.5**2 / 2, 1.5)
        overlap = np.trapezoid(p * q / (p + q), line)
        expected = (1 / overlap - 2) / n
        assert float(found.var()) == pytest.approx(expected, rel=4 * math.sqrt(2 / 2000))

    @pytest.mark.parametrize(("forward", "reverse"), [(4, 4), (16, 3), (1, 5)])
    def test_it_is_the_root(self, forward: int, reverse: int) -> None:
        up, down = work(forward, reverse, 50)
        ratio = forward / reverse
        c = bennett(up, down)
        left = 1 / (1 + ratio * (c - up).exp())
        right = 1 / (1 + (down - c).exp() / ratio)
        torch.testing.assert_close(left.sum(0), right.sum(0), rtol=0, atol=1e-9)

    def test_two_chains(self) -> None:
        found = bennett(torch.tensor([[2.0, -40.0]]).double(), torch.tensor([[5.0, 60.0]]).double())
        torch.testing.assert_close(found, torch.tensor([3.5, 10.0]).double(), rtol=0, atol=1e-9)

    def test_weights_that_are_all_the_same(self) -> None:
        found = bennett(torch.full((3, 2), -123.4).double(), torch.full((7, 2), -123.4).double())
        torch.testing.assert_close(found, torch.full((2,), -123.4).double(), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("bad", [-math.inf, math.nan])
    def test_chains_of_no_weight(self, bad: float) -> None:
        """They count as chains of a weight that is as good as 0, forward and in reverse."""
        up, down = work(6, 4, 50)
        up[2], down[1] = -1e5, 1e5
        expected = bennett(up, down)
        up[2], down[1] = bad, -bad
        torch.testing.assert_close(bennett(up, down), expected, rtol=0, atol=1e-8)

    def test_where_a_side_has_no_weight(self) -> None:
        up, down = work(3, 3, 3)
        up[:, 0], down[:, 1] = -math.inf, math.nan
        assert bennett(up, down).isnan().tolist() == [True, True, False]
