"""E[Ẑ / Z] = 1 forward and E[Z / Ẑ] = 1 in reverse, over thousands of repetitions of few, short, poor runs.

One row stands many times in a batch, each time under another row id, so that every copy is an independent repetition.
Two planted mistakes, which leave the estimates plausible, fail the same test.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any, Literal

import pytest
import torch
from evidence_cases import Ladder, LinearGaussian, correlated, fixed_steps, several_modes, z_score
from torch import Tensor

from vaelid.evidence.annealing import Settings, Start, annealing, backward, forward, reverse_annealing
from vaelid.evidence.budget import Spending, doubled
from vaelid.evidence.paths import LatentPath, NoisePath, Path, State
from vaelid.evidence.schedules import Linear
from vaelid.evidence.simulation import simulate
from vaelid.evidence.weights import reduced
from vaelid.likelihoods import FixedScale, Gaussian
from vaelid.model import VAE
from vaelid.networks import MLP
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key
from vaelid.types import Batch

KEY, MODULE = Key(51), sys.modules[forward.__module__]
REPETITIONS, PILOTS = 8000, 800
Kind = Literal["noise", "moved", "latents"]
KINDS: list[Kind] = ["noise", "moved", "latents"]
STARTS: list[Start] = ["posterior", "prior", "both"]
# distributions, leapfrogs and step: large steps, so that about a fifth of the proposals is rejected
PLANS = {"noise": (3, 1, 1.5), "moved": (3, 1, 1.5), "latents": (4, 2, 0.8)}


def posed(kind: Kind, times: int = REPETITIONS) -> tuple[LinearGaussian, Path]:
    """A path of one row, many times over, from a start that is wrong on purpose."""
    case = correlated(2, common=0.0).repeated(1, times)
    model, batch = case.model(shift=0.3, stretch=1.2), Batch(case.x)
    if kind == "latents":
        problem = model.given(batch, start="prior")
        path = LatentPath(problem, problem.prior)
        path.longest = 2.0  # let the plan's step be
        return case, path
    moved = kind == "moved"
    loc = torch.tensor([0.3, -0.3], dtype=torch.float64).expand(times, -1) if moved else None
    scale = torch.tensor([1.1, 0.9], dtype=torch.float64).expand(times, -1) if moved else None
    return case, NoisePath(model.given(batch), loc, scale)


def ratios(case: LinearGaussian, path: Path, plan: tuple[int, int, float], *, reverse: bool) -> tuple[float, float]:
    """The z-score of the mean ratio, and the mean's standard error."""
    distributions, leapfrogs, step = plan
    tuning, settings = fixed_steps(REPETITIONS, step), Settings(leapfrogs, 1, Linear())
    if reverse:
        ends = path.of(case.draws(KEY.fold("ends")).unsqueeze(0))
        walk = backward(path, tuning, distributions, settings, ends, KEY)
        return z_score(case.log_evidence() - walk.log_weight)
    walk = forward(path, tuning, distributions, settings, KEY)
    return z_score(walk.log_weight - case.log_evidence())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
class TestRatios:
    def test_the_mean_ratio_is_one(self, kind: Kind, reverse: bool) -> None:
        score, error = ratios(*posed(kind), PLANS[kind], reverse=reverse)
        assert abs(score) < 4
        assert 0.003 < error <= 0.02  # weights vary, and their mean is known

    def test_fails_without_metropolis(self, kind: Kind, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(State, "where", lambda self, accepted, other: self)
        score, _ = ratios(*posed(kind), PLANS[kind], reverse=reverse)
        assert abs(score) > 6

    def test_fails_with_temperatures_shifted(self, kind: Kind, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Transitions at the neighbour of the temperature that the weights were taken for."""
        shift, ordinary = (-1 if reverse else 1) / PLANS[kind][0], MODULE.transition

        def shifted(path: Path, state: State, beta: Tensor, *rest: Any) -> Any:
            return ordinary(path, state, beta + shift, *rest)

        monkeypatch.setattr(MODULE, "transition", shifted)
        score, _ = ratios(*posed(kind), PLANS[kind], reverse=reverse)
        assert abs(score) > 6


@pytest.mark.parametrize("reverse", [False, True])
def test_several_modes(reverse: bool) -> None:
    """From a prior that is no normal, with little data on each row, so that no chain has to cross between modes."""
    case = several_modes(3, noise=3.0).repeated(1, REPETITIONS)
    problem = case.model().given(Batch(case.x), start="prior")
    score, error = ratios(case, LatentPath(problem, problem.prior), (3, 2, 0.4), reverse=reverse)
    assert abs(score) < 4
    assert 0.003 < error <= 0.02


@pytest.mark.parametrize("start", STARTS)
class TestWithPilots:
    """The whole function, every repetition with a pilot of its own."""

    def test_lower(self, start: Start) -> None:
        case = several_modes(3).repeated(1, PILOTS)
        found = annealing(
            case.model(stretch=1.2), case.x.numpy(), distributions=8, leapfrogs=2, chains=4, start=start, key=KEY
        )
        score, error = z_score(found.log_evidence - case.log_evidence())
        assert abs(score) < 4
        assert error <= 0.02

    def test_upper(self, start: Start) -> None:
        case = correlated(2, common=0.0).repeated(1, PILOTS)
        found = reverse_annealing(
            case.model(shift=0.2, stretch=1.2),
            case.x.numpy(),
            case.draws(KEY),
            distributions=8,
            leapfrogs=2,
            chains=4,
            start=start,
            key=KEY,
        )
        score, error = z_score(case.log_evidence() - found.log_evidence)
        assert abs(score) < 4
        assert error <= 0.02


def test_ladder() -> None:
    ladder, few = Ladder(), {"distributions": 10, "leapfrogs": 2, "chains": 4}
    x = ladder.joint(1, KEY.fold("x"))[0].expand(PILOTS, -1)
    lower = annealing(ladder, x, key=KEY, **few)
    upper = reverse_annealing(ladder, x, ladder.draws(x, KEY.fold("ends")), key=KEY, **few)
    exact = ladder.log_evidence(x)
    for log_ratio in (lower.log_evidence - exact, exact - upper.log_evidence):
        score, error = z_score(log_ratio)
        assert abs(score) < 4
        assert error <= 0.02


class TestDoubling:
    """Why runs that decide are thrown away."""

    def test_stopping_on_a_runs_own_gap_is_biased(self) -> None:
        """Each row doubles until its estimate comes within 0.02 nat of the truth (an upper bound without error) or
        above. What it then has at hand is too large on average; a fresh run with as many distributions is not.
        """
        case, path = posed("noise", 4000)
        settings = Settings(leapfrogs=2, chains=1, schedule=Linear())
        exact, own = case.log_evidence(), torch.zeros(4000, dtype=torch.float64)

        def estimates(index: Tensor, distributions: int, key: Key) -> Tensor:
            problem = path.problem
            some = NoisePath(problem.model.given(problem.batch.take(index)))
            walk = forward(some, fixed_steps(len(index), 0.1), distributions, settings, key)
            return reduced(walk.log_weight, reverse=False)[0]

        def met(index: Tensor, distributions: int, key: Key) -> Tensor:
            own[index] = estimates(index, distributions, key)
            return own[index] >= exact[index] - 0.02

        first = met(torch.arange(4000), 1, KEY.fold("first"))
        needed = doubled(first, 1, lambda n: n, met, Spending(None), KEY, lambda stage, done, total: None, 4000)
        assert int(needed.max()) > 8
        biased, _ = z_score(own - exact)
        assert biased > 6
        fresh = torch.zeros_like(own)
        for each in needed.unique().tolist():
            index = (needed == each).nonzero()[:, 0]
            fresh[index] = estimates(index, each, KEY.fold("fresh"))
        score, error = z_score(fresh - exact)
        assert abs(score) < 4
        assert error <= 0.02

    def test_a_tolerance_leaves_the_ratio_at_one(self) -> None:
        case = correlated(2).repeated(1, 1000)
        model = case.model(shift=0.2, stretch=1.2)
        few = {"distributions": 1, "leapfrogs": 2, "chains": 2, "tolerance": 0.15}
        found = annealing(model, case.x.numpy(), key=KEY, **few)
        assert len(found.distributions.unique()) > 2  # rows stop at different numbers
        assert int(found.distributions.min()) == 1
        score, error = z_score(found.log_evidence - case.log_evidence())
        assert abs(score) < 4
        assert error <= 0.02


class TestGap:
    """On simulated rows upper − lower bounds what is left of both errors, and goes to 0 as distributions double."""

    def gaps(self, model: VAE) -> list[tuple[float, float]]:
        """Mean gap and its standard error over rows, for 1, 8 and 64 distributions."""
        data, found = simulate(model, 150, KEY.fold("gap")), []
        for distributions in (1, 8, 64):
            few = {"distributions": distributions, "chains": 8, "key": KEY.fold("gap", distributions)}
            gap = reverse_annealing(model, data.batch, data.z, **few).log_evidence
            gap = gap - annealing(model, data.batch, **few).log_evidence
            found.append((float(gap.mean()), float(gap.std()) / len(gap) ** 0.5))
        return found

    def check(self, found: list[tuple[float, float]]) -> None:
        for (before, before_se), (after, after_se) in itertools.pairwise(found):
            assert after <= before + 2 * (before_se**2 + after_se**2) ** 0.5
        assert found[0][0] > 0.1 + 2 * found[0][1]
        assert abs(found[-1][0]) <= 0.02 + 2 * found[-1][1]
        assert found[-1][1] < 0.02

    def test_probabilistic_pca_with_a_poor_encoder(self, ppca: Any) -> None:
        self.check(self.gaps(ppca.model(shift=1.0, stretch=0.5)))

    def test_a_nonlinear_decoder(self) -> None:
        with KEY.fold("network").seeding():
            decoder, encoder = MLP(2, 4, hidden=(12,)), MLP(4, 2, hidden=(8,), heads=2)
            with torch.no_grad():
                for parameter in decoder.parameters():
                    parameter.mul_(2.5)
        likelihood = Gaussian(decoder, (4,), FixedScale(0.8))
        self.check(self.gaps(VAE(StandardNormal(2), likelihood, DiagonalNormal(encoder)).double()))
