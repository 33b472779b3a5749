"""Brackets over every kind of model and rows that go wrong; what a bracket says."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from contracts.test_evidence import Holed
from evidence_cases import LinearGaussian, correlated, several_modes
from support import refused
from torch import Tensor, nn

import vaelid as vd
from vaelid.evidence import budget as budgets
from vaelid.evidence import tuning
from vaelid.evidence.annealing import annealing
from vaelid.evidence.bracket import CHEAP, LOOK, bracket
from vaelid.evidence.budget import Budget
from vaelid.evidence.importance import importance
from vaelid.evidence.result import APPROXIMATE, BOUND, NONE, Bracket
from vaelid.evidence.simulation import Simulated, simulate
from vaelid.likelihoods import Bernoulli, Categorical, FixedScale, Gaussian
from vaelid.model import VAE
from vaelid.networks import MLP
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key
from vaelid.types import Batch

KEY, MODULE, ANNEALING = Key(91), sys.modules[bracket.__module__], sys.modules[annealing.__module__]
FEW: dict[str, Any] = {"distributions": 4, "leapfrogs": 2, "chains": 4, "key": KEY}
POOR: dict[str, Any] = {"shift": 2.0}  # every row is annealed


@pytest.fixture
def case() -> LinearGaussian:
    return correlated(rows=6, common=0.0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few simulated rows, few draws from the prior, short pilots."""
    monkeypatch.setattr(MODULE, "GATE", 4)
    monkeypatch.setattr(MODULE, "CHAINS", 4)
    for name, value in {"CHAINS": 4, "LEAPFROGS": 3, "TEMPERATURES": 5, "SCOUT": 5, "STAY": 2}.items():
        monkeypatch.setattr(tuning, name, value)
    monkeypatch.setattr("vaelid.evidence.crowd.DRAWS", 500)


def simulated(case: LinearGaussian) -> Simulated:
    return Simulated(Batch(case.x), case.draws(KEY))


def sound(found: Bracket, rows: int) -> None:
    """What every bracket holds, whatever happened to its rows."""
    for name in ("row", "lower", "upper", "lower_mc_se", "distributions", "elbo", "k_hat"):
        assert getattr(found, name).shape == (rows,), name
    assert len(found.upper_kind) == len(found.tier) == rows
    for side in (found.lower, found.upper):
        assert side.dtype == torch.float64
        assert not bool(side.isnan().any())
        assert not bool(((side.abs() > 1e300) & side.isfinite()).any())  # an infinity that was made a number
    assert not bool((found.lower == math.inf).any())
    assert not bool((found.upper == -math.inf).any())
    assert [kind != NONE for kind in found.upper_kind] == found.upper.isfinite().tolist()
    assert set(found.tier) <= {"importance", "annealing"}
    assert all(found.warnings.values())
    for row, kind in zip(found.row.tolist(), found.upper_kind, strict=True):
        assert kind != NONE or row in found.warnings
    assert set(found.warnings) <= set(found.row.tolist())
    assert {type(field) for field in dataclasses.asdict(found.cost).values()} == {int, float}


def same(one: Bracket, other: Bracket, tolerance: float = 0.0) -> None:
    for name in ("row", "lower", "upper", "lower_mc_se", "upper_mc_se", "distributions"):
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), rtol=tolerance, atol=tolerance, equal_nan=True
        )
    assert one.tier == other.tier
    assert one.upper_kind == other.upper_kind


@pytest.mark.usefixtures("small")
class TestRandomness:
    @pytest.mark.parametrize("tolerance", [None, 0.3])
    def test_a_key_decides(self, case: LinearGaussian, tolerance: float | None) -> None:
        model = case.model(shift=0.6)
        one, other = (bracket(model, Batch(case.x), tolerance=tolerance, **FEW) for _ in range(2))
        same(one, other)
        assert one.warnings == other.warnings
        assert one.notes == other.notes
        changed = bracket(model, Batch(case.x), tolerance=tolerance, **(FEW | {"key": Key(92)}))
        assert bool((changed.lower != one.lower).all())

    @pytest.mark.parametrize("known", [False, True], ids=["real", "simulated"])
    def test_rows_leave_each_other_alone(self, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """In another order, fewer, and in other passes; rows that stay with importance sampling and rows that do not.

        q is fitted to some of them.
        """
        case = several_modes(10)
        model = case.model(shift=1.2)
        monkeypatch.setattr(budgets, "DOUBLINGS", 1)
        whole = simulated(case)
        whole = Simulated(Batch(case.x, row_id=torch.arange(10) + 40), whole.z)
        found = bracket(model, whole if known else whole.batch, tolerance=0.5, **FEW)
        index = torch.tensor([7, 1, 4, 0, 9])
        monkeypatch.setattr(ANNEALING, "PASS", 8)  # two rows at a time
        part = bracket(model, whole.take(index) if known else whole.batch.take(index), tolerance=0.5, **FEW)
        assert part.row.tolist() == [47, 41, 44, 40, 49]
        for name in ("lower", "upper", "lower_mc_se", "upper_mc_se", "elbo"):
            torch.testing.assert_close(getattr(part, name), getattr(found, name)[index], rtol=1e-7, atol=1e-7)
        assert part.tier == tuple(found.tier[i] for i in index)
        assert part.distributions.tolist() == found.distributions[index].tolist()

        def said(result: Bracket, row: int) -> list[str]:
            """But for R-hat, which is one of ranks, and ties of chains that stood still are broken by rounding."""
            return [text for text in result.warnings.get(row, ()) if "R-hat" not in text]

        for row in part.row.tolist():
            assert said(part, row) == said(found, row)

    def test_nothing_but_the_key_is_touched(self, case: LinearGaussian) -> None:
        model = case.model(shift=300.0).train()
        state = torch.random.get_rng_state()
        before = [parameter.clone() for parameter in model.parameters()]
        found = bracket(model, Batch(case.x), **FEW)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert model.training
        for parameter, old in zip(model.parameters(), before, strict=True):
            assert torch.equal(parameter, old)
            assert parameter.grad is None
        assert not found.lower.requires_grad
        assert not found.upper.requires_grad

    @pytest.mark.parametrize(
        ("given", "match"),
        [
            ({"distributions": 0}, "distributions"),
            ({"leapfrogs": 0}, "leapfrogs"),
            ({"chains": 0}, "chains"),
            ({"tolerance": -1.0}, "tolerance"),
        ],
        ids=str,
    )
    def test_refusals(self, case: LinearGaussian, given: dict[str, Any], match: str) -> None:
        refused(match, lambda: bracket(case.model(), Batch(case.x), **(FEW | given)))

    @pytest.mark.parametrize("given", [{"seconds": 0.0}, {"decoder_rows": 0}, {"seconds": math.nan}], ids=str)
    def test_refused_budgets(self, given: dict[str, Any]) -> None:
        refused("budget", lambda: Budget(**given))


class Saturating(nn.Module):
    """Logits so large that cells are certain."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat((self.scale * z, torch.full_like(z[:, :1], -math.inf)), -1)


@pytest.mark.usefixtures("small")
class TestDegenerate:
    @pytest.mark.parametrize("known", [False, True], ids=["real", "simulated"])
    @pytest.mark.parametrize("shift", [0.0, 2.0], ids=["cheap", "annealed"])
    def test_rows_of_nan(
        self, case: LinearGaussian, shift: float, known: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        x = case.x.clone()
        x[[1, 4]] = math.nan
        model, z = case.model(shift=shift, full=True), case.draws(KEY)
        monkeypatch.setattr(budgets, "DOUBLINGS", 1)  # rows without a number take them all
        few = FEW | {"tolerance": 0.5}
        clean, found = (
            bracket(model, Simulated(Batch(rows), z) if known else Batch(rows), **few) for rows in (case.x, x)
        )
        sound(found, 6)
        good = [0, 2, 3, 5]
        for name in ("lower", "upper", "lower_mc_se", "upper_mc_se"):
            torch.testing.assert_close(getattr(found, name)[good], getattr(clean, name)[good], rtol=1e-9, atol=1e-9)
        assert [found.upper_kind[i] for i in good] == [BOUND if known else APPROXIMATE] * 4
        assert found.lower[[1, 4]].tolist() == [-math.inf] * 2
        for row in (1, 4):
            assert found.upper_kind[row] == NONE
            assert any("not a number" in text for text in found.warnings[row])
        assert {row: text for row, text in found.warnings.items() if row in good} == {
            row: text for row, text in clean.warnings.items() if row in good
        }
        json.dumps(vd_plain(found.as_dict()), allow_nan=False)

    @pytest.mark.parametrize("bound", [0.0, 1.5])
    def test_a_decoder_with_holes(self, bound: float) -> None:
        """NaN counts as no mass, which is said of every row for which it is a part that matters, in both tiers."""
        case = correlated(rows=20, common=0.0)
        model = case.model(full=True)
        model.likelihood.network = Holed(model.likelihood.network, bound)
        found = bracket(model, Batch(case.x), **(FEW | {"chains": 16}))
        sound(found, 20)
        _, loc, precision = case.posterior()
        spread = torch.linalg.inv(precision[0])[0, 0].sqrt()
        inside = torch.special.ndtr((bound - loc[:, 0, 0]) / spread)
        kept = case.log_evidence() + inside.log()
        for i in (inside < 0.98).nonzero()[:, 0].tolist():
            assert any("not a number" in text or "is 0 at all" in text for text in found.warnings[i])
        assert bool((found.lower <= kept + 4 * found.lower_mc_se + 10 / CHEAP).all())
        assert bound > 0 or set(found.tier) == {"importance", "annealing"}
        for i in ((inside > 0.05) & (inside < 0.98)).nonzero()[:, 0].tolist():
            assert abs(float(found.lower[i] - kept[i])) < 1

    @pytest.mark.parametrize("known", [False, True], ids=["real", "simulated"])
    def test_a_datum_of_probability_zero(self, known: bool) -> None:
        """Class 2 is never drawn."""
        with KEY.fold("net").seeding():
            decoder, encoder = nn.Linear(2, 9), MLP(9, 2, hidden=(4,), heads=2)
        model = VAE(StandardNormal(2), Categorical(decoder, 3), DiagonalNormal(encoder)).double()
        with torch.no_grad():
            decoder.bias[6:] = -math.inf
        x = np.array([[0, 1, 0], [1, 1, 1], [0, 2, 1], [1, 0, 0]])
        rows = Simulated(model.batch(x), KEY.normal((4, 2), dtype=torch.float64)) if known else x
        found = bracket(model, rows, **FEW)
        sound(found, 4)
        assert found.lower.isfinite().tolist() == found.upper.isfinite().tolist() == [True, True, False, True]
        assert found.lower[2] == -math.inf
        assert found.upper_kind[2] == NONE
        assert any("is 0 at all latents" in text for text in found.warnings[2])
        assert set(found.warnings) == {2}

    def test_certain_cells(self) -> None:
        """Of a Bernoulli: rows without the impossible cell are checked by the prior as any others."""
        model = VAE(StandardNormal(2), Bernoulli(Saturating()), DiagonalNormal(nn.Linear(3, 4))).double()
        x = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
        with torch.no_grad():
            model.posterior.network.bias[:2] = 8.0  # far from where p(z|x) is
        found = bracket(model, Batch(x), **(FEW | {"chains": 16, "distributions": 20}))
        sound(found, 2)
        exact = 2 * math.log(0.5)  # by symmetry
        assert bool(((found.lower - exact).abs() <= 4 * found.lower_mc_se).all())

    def test_transitions_that_are_never_accepted(self) -> None:
        with KEY.fold("narrow").seeding():
            decoder, encoder = nn.Linear(2, 2), MLP(2, 2, hidden=(4,), heads=2)
        model = VAE(StandardNormal(2), Gaussian(decoder, (2,), FixedScale(1e-12)), DiagonalNormal(encoder)).double()
        x = KEY.normal((3, 2), dtype=torch.float64)
        for known in (False, True):
            z = torch.linalg.solve(decoder.weight, (x - decoder.bias).T).T.detach()
            found = bracket(model, Simulated(Batch(x), z) if known else Batch(x), **FEW)
            sound(found, 3)
            exact = torch.distributions.MultivariateNormal(decoder.bias, decoder.weight @ decoder.weight.T).log_prob(x)
            assert bool((found.lower <= exact).all())
            for row in range(3):
                assert any("hardly moved" in text for text in found.warnings[row])

    def test_where_all_rows_are_bad(self, case: LinearGaussian) -> None:
        found = bracket(case.model(), Batch(torch.full_like(case.x, math.nan)), **FEW)
        sound(found, 6)
        assert found.kind == NONE
        assert sorted(found.warnings) == list(range(6))
        assert str(found)

    @pytest.mark.parametrize("shift", [0.0, 2.0])
    def test_a_single_row(self, case: LinearGaussian, shift: float) -> None:
        found = bracket(case.model(shift=shift), Batch(case.x[:1]), **FEW)
        sound(found, 1)
        assert math.isnan(found.as_dict()["lower_data_se"])
        assert str(found)

    def test_a_single_chain(self, case: LinearGaussian) -> None:
        found = bracket(case.model(**POOR), Batch(case.x), **(FEW | {"chains": 1}))
        sound(found, 6)
        assert bool(found.lower.isfinite().all())


def vd_plain(value: Any) -> Any:
    """As the command line writes JSON."""
    from vaelid.cli.output import plain

    return plain(value)


def table(**given: Any) -> VAE:
    """A model of four real columns."""
    return vd.recipes.vae(np.random.default_rng(0).normal(size=(12, 4)), latent=2, hidden=(8,), **given).double()


def columns(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 4))


def grid_evidence(model: VAE, batch: Batch) -> Tensor:
    """log p(x) by the trapezoidal rule on [−7, 7]²."""
    line = torch.linspace(-7, 7, 141, dtype=torch.float64)
    z = torch.cartesian_prod(line, line).unsqueeze(1).expand(-1, batch.rows, -1)
    with torch.no_grad():
        return model.given(batch, start="prior").log_joint(z).logsumexp(0) + 2 * math.log(0.1)


@pytest.mark.usefixtures("small")
class TestModels:
    """Models that lack something, or have something more."""

    def close(self, model: VAE, batch: Batch, z: Tensor | None = None, **more: Any) -> Bracket:
        found = bracket(model, batch if z is None else Simulated(batch, z), **(FEW | {"chains": 16} | more))
        sound(found, batch.rows)
        exact = grid_evidence(model, batch)
        assert bool(((found.lower - exact).abs() <= 4 * found.lower_mc_se + 0.02).all())
        for row, off in zip(found.row.tolist(), (found.upper - exact).tolist(), strict=True):
            assert abs(off) < 0.5 or row in found.warnings
        assert set(found.upper_kind) == {APPROXIMATE if z is None else BOUND}
        return found

    @pytest.mark.parametrize("known", [False, True], ids=["real", "simulated"])
    @pytest.mark.parametrize("all_annealed", [False, True])
    def test_context(self, known: bool, all_annealed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every row has a decoder of its own, and there is no crowd for them."""
        monkeypatch.setattr(MODULE, "EVEN", 1.01 if all_annealed else MODULE.EVEN)
        model, context = table(context=2), KEY.fold("context").normal((8, 2)).numpy()
        drawn = simulate(model, 8, KEY, context)
        batch = drawn.batch if known else model.batch(columns(8), None, context)
        found = self.close(model, batch, drawn.z if known else None)
        assert ("importance" in found.tier) != all_annealed
        assert not any("prior finds" in text for texts in found.warnings.values() for text in texts)

    def test_one_row_with_context(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One simulated row under its context tells nothing of an average, and nothing is said of it."""
        monkeypatch.setattr(MODULE, "EVEN", 1.01)  # it is annealed
        model, context = table(context=2), KEY.fold("context").normal((1, 2)).numpy()
        found = self.close(model, model.batch(columns(1), None, context))
        assert any("too few simulated rows" in note for note in found.notes)

    def test_mask(self) -> None:
        model = table()
        mask = np.random.default_rng(2).random((8, 4)) < 0.6
        mask[0] = False  # nothing was seen: log p(x) = 0
        x = np.where(mask, columns(8), 0.0)
        batch = model.batch(x, mask)
        found = self.close(model, batch)
        other = bracket(model, Batch(torch.where(batch.mask, batch.x, math.nan), batch.mask), **(FEW | {"chains": 16}))
        same(other, found)
        assert abs(float(found.lower[0])) < 0.05

    @pytest.mark.parametrize("known", [False, True], ids=["real", "simulated"])
    def test_planar(self, known: bool) -> None:
        """No inverse: no second start for real rows; from the prior with given latents."""
        model = table(posterior="planar")
        drawn = simulate(model, 6, KEY)
        found = self.close(
            model, drawn.batch if known else model.batch(columns(6)), drawn.z if known else None, tolerance=0.3
        )
        assert any("no inverse" in note for note in found.notes)
        assert not known or set(found.tier) == {"annealing"}

    def test_planar_rows_that_are_annealed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(MODULE, "EVEN", 1.01)
        found = self.close(table(posterior="planar"), Batch(torch.from_numpy(columns(6))))
        assert set(found.tier) == {"annealing"}
        assert any("could not be tried on simulated rows" in note for note in found.notes)

    @pytest.mark.parametrize("known", [False, True], ids=["real", "simulated"])
    def test_q_fitted_to_every_row(self, known: bool) -> None:
        own = table()
        model = VAE(own.prior, own.likelihood, vd.fitted.PerDatum(steps=100))
        drawn = simulate(model, 3, KEY)
        self.close(model, drawn.batch if known else model.batch(columns(3)), drawn.z if known else None)

    def test_a_wrapped_decoder_without_an_encoder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(MODULE, "GATE", 2)  # q is fitted to every row, over and over
        with KEY.fold("wrapped").seeding():
            decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)).double()
        model = vd.wrap(decoder, latent=2, likelihood=lambda net: Gaussian(net, (4,), FixedScale(0.5)))
        model.posterior.steps = 100
        batch = model.batch(columns(2))
        found = bracket(model, batch, **(FEW | {"chains": 16, "distributions": 20}))
        sound(found, 2)
        exact = grid_evidence(model, batch)
        assert bool(((found.lower - exact).abs() <= 4 * found.lower_mc_se + 0.05).all())

    @pytest.mark.parametrize("prior", ["mixture", "vamp", "flow"])
    @pytest.mark.parametrize("known", [False, True], ids=["real", "simulated"])
    def test_priors(self, prior: str, known: bool) -> None:
        model = table(prior=prior, components=3)
        drawn = simulate(model, 6, KEY)
        self.close(model, drawn.batch if known else model.batch(columns(6)), drawn.z if known else None)

    def test_another_likelihood(self) -> None:
        """Whose crowd is decoded by blocks."""
        model = table(likelihood="laplace")
        self.close(model, model.batch(columns(6)))


KEYS = {
    "lower", "upper", "gap", "lower_kind", "upper_kind", "lower_mc_se", "upper_mc_se", "lower_data_se",
    "upper_data_se", "elbo", "rows", "seconds", "decoder_rows", "per_row",
}  # fmt: skip


@pytest.mark.usefixtures("small")
class TestResult:
    @pytest.fixture
    def found(self, case: LinearGaussian) -> Bracket:
        return bracket(
            case.model(shift=0.7), Simulated(Batch(case.x, row_id=torch.arange(6) + 3), case.draws(KEY)), **FEW
        )

    def test_dictionary(self, found: Bracket) -> None:
        table = found.as_dict()
        assert set(table) >= KEYS
        again = json.loads(json.dumps(vd_plain(table), allow_nan=False))
        assert again["lower"] == float(found.lower.mean())
        assert again["gap"] == pytest.approx(table["upper"] - table["lower"], abs=1e-12)
        assert again["lower_mc_se"] == pytest.approx(float(found.lower_mc_se.square().sum().sqrt()) / 6)
        assert again["lower_data_se"] == pytest.approx(float(found.lower.std()) / math.sqrt(6))
        assert again["gap_se"] == pytest.approx(float((found.upper - found.lower).std()) / math.sqrt(6))
        assert [row["row"] for row in again["per_row"]] == [3, 4, 5, 6, 7, 8]
        assert [row["lower"] for row in again["per_row"]] == found.lower.tolist()
        assert (again["lower_kind"], again["upper_kind"]) == (BOUND, BOUND)
        assert again["rows"] == 6
        assert sum(again["cost"].values()) == again["decoder_rows"] == found.cost.decoder_rows
        assert sum(again["tiers"].values()) == 6

    def test_frame(self, found: Bracket) -> None:
        frame = found.frame()
        assert frame["row"].tolist() == found.row.tolist()
        assert frame["gap"].tolist() == found.gap.tolist()
        assert len(frame) == 6
        assert (frame["lower_95"] < frame["lower"]).all()
        assert (frame["upper_95"] > frame["upper"]).all()
        assert set(frame["lower_kind"]) == {BOUND}

    def test_sure(self, case: LinearGaussian) -> None:
        """Markov's inequality: a side is beyond log p(x) by more than log 1/(1 − level) less often than 1 − level."""
        many = case.repeated(1, 400)
        found = bracket(many.model(shift=0.7, stretch=0.6), Simulated(Batch(many.x), many.draws(KEY)), **FEW)
        exact = many.log_evidence()
        for level in (0.5, 0.9, 0.99):
            low, high = found.sure(level)
            torch.testing.assert_close(found.lower - low, torch.full((400,), -math.log(1 - level)).double())
            torch.testing.assert_close(high - found.upper, found.lower - low)
            slack = 4 * math.sqrt(level * (1 - level) / 400)
            assert float((low > exact).double().mean()) <= 1 - level + slack
            assert float((high < exact).double().mean()) <= 1 - level + slack

    def test_sure_of_real_rows(self, case: LinearGaussian) -> None:
        found = bracket(case.model(shift=0.7), Batch(case.x), **FEW)
        assert set(found.upper_kind) == {APPROXIMATE}
        assert found.sure()[1].tolist() == [math.inf] * 6
        assert found.frame()["upper_95"].tolist() == [math.inf] * 6

    def test_words(self, found: Bracket) -> None:
        text = str(found)
        for piece in ("lower", "upper", "gap", "ELBO", "decoder rows", BOUND, f"{float(found.lower.mean()):.3f}"):
            assert piece in text

    @pytest.mark.parametrize(
        ("kinds", "expected"),
        [((BOUND, BOUND), BOUND), ((BOUND, APPROXIMATE), APPROXIMATE), ((NONE, APPROXIMATE), NONE)],
        ids=str,
    )
    def test_the_weakest_kind_stands_for_all(self, found: Bracket, kinds: tuple[str, ...], expected: str) -> None:
        assert dataclasses.replace(found, upper_kind=kinds).kind == expected

    def test_rows_that_nothing_is_known_of(self, case: LinearGaussian) -> None:
        x = case.x.clone()
        x[2] = math.nan
        found = bracket(case.model(**POOR), Simulated(Batch(x), case.draws(KEY)), **FEW)
        table = json.loads(json.dumps(vd_plain(found.as_dict()), allow_nan=False))
        assert table["per_row"][2]["lower"] is None
        assert table["per_row"][2]["upper_kind"] == NONE
        assert len(found.frame()) == 6
        assert str(found)


def test_rows_left_with_importance_sampling_have_fresh_draws(case: LinearGaussian) -> None:
    """The look decides and is not reported."""
    found = bracket(case.model(shift=0.1), simulated(case), key=KEY)
    look = importance(case.model(shift=0.1), Batch(case.x), LOOK, KEY.fold("look"))
    assert "importance" in found.tier
    assert bool((found.lower != look.log_evidence).all())
    torch.testing.assert_close(found.elbo, look.elbo, rtol=0, atol=0)
