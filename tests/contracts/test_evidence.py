"""Annealing over every kind of model, and where models go wrong: bounds stay bounds, rows leave each other alone."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from contracts.test_compositions import ROWS_OF_ARRAY, Row, build, name_of
from evidence_cases import LinearGaussian, correlated, several_modes
from support import refused
from torch import Tensor, nn

from vaelid.errors import InputError, InputTypeError
from vaelid.evidence import tuning
from vaelid.evidence.annealing import Annealing, Start, annealing, reverse_annealing
from vaelid.evidence.budget import Budget
from vaelid.evidence.schedules import Linear, Placed, Schedule, Sigmoid
from vaelid.likelihoods import Categorical, FixedScale, Gaussian
from vaelid.model import VAE
from vaelid.networks import MLP
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key
from vaelid.types import Batch

KEY = Key(71)
FEW: dict[str, Any] = {"distributions": 3, "leapfrogs": 2, "chains": 4, "key": KEY}


def spanning_rows() -> list[Row]:
    """Rows of the covering array with every likelihood, prior beside posterior, and mask beside context."""
    facets = (("likelihood",), ("prior", "posterior"), ("masked", "context"))

    def levels(row: Row) -> set[Any]:
        return {(names, *(row[name] for name in names)) for names in facets}

    missing, rows = set().union(*map(levels, ROWS_OF_ARRAY)), []
    while missing:
        rows.append(max(ROWS_OF_ARRAY, key=lambda row: len(levels(row) & missing)))
        missing -= levels(rows[-1])
    return rows


@pytest.fixture
def short_pilots(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CHAINS": 4, "LEAPFROGS": 2, "TEMPERATURES": 4, "SCOUT": 4, "STAY": 1}.items():
        monkeypatch.setattr(tuning, name, value)


def bounded(found: Annealing, rows: int, chains: int = 4) -> None:
    """What every result of rows of positive probability holds."""
    assert found.log_evidence.shape == found.mc_se.shape == found.ess.shape == found.acceptance.shape == (rows,)
    assert found.log_weight.shape == (chains, rows)
    assert found.latents.shape[:2] == (chains, rows)
    assert bool(found.log_evidence.isfinite().all())
    assert bool((found.mc_se >= 0).all())
    assert bool(((found.ess >= 1 - 1e-9) & (found.ess <= chains + 1e-9)).all())
    assert bool(((found.acceptance >= 0) & (found.acceptance <= 1)).all())


@pytest.mark.usefixtures("short_pilots")
@pytest.mark.parametrize("row", spanning_rows(), ids=name_of)
def test_composition(row: Row) -> None:
    model, real = build(row)
    model = model.double()
    context = None if real.context is None else real.context.double().numpy()
    mask = None if real.mask is None else real.mask.numpy()
    x, z = model.draw(real.rows, KEY, context)
    batch = model.batch(x, mask, context)
    lower = annealing(model, batch, **FEW)
    bounded(lower, real.rows)
    bounded(annealing(model, model.batch(real.x.numpy(), mask, context), **FEW), real.rows)
    # the chance of one row is the same beside others and alone
    alone = annealing(model, batch.take(torch.tensor([5])), **FEW)
    torch.testing.assert_close(alone.log_weight[:, 0], lower.log_weight[:, 5], rtol=1e-6, atol=1e-6)
    # upper bounds from the latents behind the data
    start: Start = "posterior"
    if row["posterior"] == "planar":
        line = refused("planar", lambda: reverse_annealing(model, batch, z, **FEW), InputTypeError)
        assert "posteriors.Flow" in line
        start = "prior"
    upper = reverse_annealing(model, batch, z, start=start, **FEW)
    bounded(upper, real.rows)
    gap = upper.log_evidence - lower.log_evidence
    assert float(gap.mean()) >= -4 * float(gap.std()) / math.sqrt(real.rows)


def test_the_compositions_span_their_parts() -> None:
    rows = spanning_rows()
    for name in ("likelihood", "prior", "posterior", "masked", "context"):
        assert {row[name] for row in rows} == {row[name] for row in ROWS_OF_ARRAY}
    assert len(rows) < 30


@pytest.fixture
def case() -> LinearGaussian:
    return correlated(rows=6)


@pytest.fixture
def model(case: LinearGaussian) -> VAE:
    return case.model(shift=0.3, stretch=1.2)


class TestRandomness:
    @pytest.mark.parametrize("start", ["posterior", "prior", "both"])
    @pytest.mark.parametrize("schedule", [Placed(), Linear(), Sigmoid()], ids=repr)
    def test_a_key_decides(self, case: LinearGaussian, model: VAE, start: Start, schedule: Schedule) -> None:
        few = FEW | {"start": start, "schedule": schedule}
        first, again = (annealing(model, case.x.numpy(), **few) for _ in range(2))
        assert torch.equal(first.log_weight, again.log_weight)
        assert torch.equal(first.latents, again.latents)
        other = annealing(model, case.x.numpy(), **(few | {"key": Key(72)}))
        assert bool((first.log_weight != other.log_weight).all())

    @pytest.mark.parametrize("reverse", [False, True])
    def test_a_row_takes_its_noise_from_its_number(self, model: VAE, case: LinearGaussian, reverse: bool) -> None:
        """Rows in another order, in passes of another size, with doubling: the same to rounding."""
        z = case.draws(KEY)
        few = FEW | {"tolerance": 0.3, "distributions": 1}

        def run(index: Tensor) -> Annealing:
            batch = Batch(case.x, row_id=torch.arange(6) + 10).take(index)
            return reverse_annealing(model, batch, z[index], **few) if reverse else annealing(model, batch, **few)

        order = torch.tensor([4, 0, 5, 2, 1, 3])
        straight, mixed = run(torch.arange(6)), run(order)
        torch.testing.assert_close(mixed.log_weight, straight.log_weight[:, order], rtol=1e-8, atol=1e-8)
        assert torch.equal(mixed.distributions, straight.distributions[order])
        alone = run(torch.tensor([3]))
        torch.testing.assert_close(alone.log_weight, straight.log_weight[:, [3]], rtol=1e-8, atol=1e-8)

    def test_passes(self, model: VAE, case: LinearGaussian, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = annealing(model, case.x.numpy(), start="both", **FEW)
        monkeypatch.setattr(sys.modules[annealing.__module__], "PASS", 8)  # two rows at a time
        seen: list[tuple[str, int, int]] = []
        parts = annealing(model, case.x.numpy(), start="both", on_progress=lambda *each: seen.append(each), **FEW)
        torch.testing.assert_close(parts.log_weight, whole.log_weight, rtol=1e-8, atol=1e-8)
        assert seen == [(stage, done, 6) for stage in ("pilot", "annealing") for done in (2, 4, 6)]

    def test_nothing_but_the_key_is_touched(self, model: VAE, case: LinearGaussian) -> None:
        model.train()
        state = torch.random.get_rng_state()
        before = [parameter.clone() for parameter in model.parameters()]
        found = annealing(model, case.x.numpy(), **FEW)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert model.training
        for parameter, old in zip(model.parameters(), before, strict=True):
            assert torch.equal(parameter, old)
            assert parameter.grad is None
        assert not found.log_weight.requires_grad
        assert not found.latents.requires_grad


class TestCost:
    @pytest.mark.parametrize("start", ["posterior", "prior", "both"])
    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("modes", [False, True])
    def test_decoder_rows_are_those_that_were_decoded(self, start: Start, reverse: bool, modes: bool) -> None:
        """All passes with a gradient; where the chains ended is decoded once more, without."""
        case = several_modes(4) if modes else correlated(4)
        model, counted = case.model(), []
        model.likelihood.network.register_forward_hook(
            lambda module, inputs, output: counted.append(len(output)) if torch.is_grad_enabled() else None
        )
        batch = Batch(case.x)
        if reverse:
            found = reverse_annealing(model, batch, case.draws(KEY), start=start, **FEW)
        else:
            found = annealing(model, batch, start=start, **FEW)
        assert sum(counted) == found.decoder_rows + found.pilot_rows
        starts = 2 if start == "both" else 1
        assert found.decoder_rows == starts * 4 * 4 * (1 + 2 * (3 if reverse else 2))


class TestDoubling:
    def test_a_tolerance_of_zero_ends(self, case: LinearGaussian, model: VAE) -> None:
        found = annealing(model, case.x.numpy(), tolerance=0.0, **(FEW | {"distributions": 1, "chains": 2}))
        assert found.distributions.tolist() == [128] * 6

    @pytest.mark.parametrize("budget", [Budget(decoder_rows=1), Budget(seconds=1e-9)], ids=repr)
    def test_a_budget_too_small_for_one_doubling(self, case: LinearGaussian, model: VAE, budget: Budget) -> None:
        found = annealing(model, case.x.numpy(), tolerance=0.0, budget=budget, **FEW)
        bounded(found, 6)
        assert found.distributions.tolist() == [3] * 6

    def test_a_budget_holds(self, case: LinearGaussian, model: VAE) -> None:
        pilots = annealing(model, case.x.numpy(), **FEW).pilot_rows
        found = annealing(model, case.x.numpy(), tolerance=0.0, budget=Budget(decoder_rows=3000), **FEW)
        assert found.distributions.unique().tolist() not in ([3], [3 * 128])
        assert found.decoder_rows + found.pilot_rows - pilots <= 3000

    def test_one_chain_knows_no_error(self, case: LinearGaussian, model: VAE) -> None:
        found = annealing(model, case.x.numpy(), **(FEW | {"chains": 1}))
        assert bool(found.mc_se.isnan().all())
        assert bool(found.log_evidence.isfinite().all())


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "match"),
        [
            ({"distributions": 0}, "distributions"),
            ({"leapfrogs": 0}, "leapfrogs"),
            ({"chains": 0}, "chains"),
            ({"start": "encoder"}, "posterior, prior or both"),
            ({"tolerance": -1.0}, "tolerance"),
        ],
        ids=str,
    )
    def test_numbers_out_of_range(self, case: LinearGaussian, model: VAE, given: dict[str, Any], match: str) -> None:
        refused(match, lambda: annealing(model, case.x.numpy(), **(FEW | given)))

    @pytest.mark.parametrize("shape", [(6, 3), (5, 2), (3, 6, 2), (2,)], ids=str)
    def test_latents_that_do_not_fit(self, case: LinearGaussian, model: VAE, shape: tuple[int, ...]) -> None:
        z = torch.zeros(shape, dtype=torch.float64)
        refused("z of shape", lambda: reverse_annealing(model, case.x.numpy(), z, **FEW), InputError)


class Holed(nn.Module):
    """A decoder that returns NaN where the first latent is above a bound."""

    def __init__(self, network: nn.Module, bound: float) -> None:
        super().__init__()
        self.network, self.bound = network, bound

    def forward(self, z: Tensor) -> Tensor:
        return torch.where(z[:, :1] > self.bound, math.nan, self.network(z))


class TestDegenerate:
    @pytest.mark.parametrize("start", ["posterior", "prior", "both"])
    def test_rows_of_nan_leave_the_others_alone(self, case: LinearGaussian, model: VAE, start: Start) -> None:
        clean = annealing(model, Batch(case.x), start=start, **FEW)
        x = case.x.clone()
        x[[1, 4]] = math.nan
        found = annealing(model, Batch(x), start=start, **FEW)
        good = torch.tensor([0, 2, 3, 5])
        torch.testing.assert_close(found.log_weight[:, good], clean.log_weight[:, good], rtol=1e-9, atol=1e-9)
        assert found.log_evidence[[1, 4]].tolist() == [-math.inf] * 2
        assert not bool((found.mc_se[[1, 4]] < math.inf).any())  # never an error that says they were measured

    @pytest.mark.parametrize("start", ["posterior", "prior", "both"])
    def test_a_decoder_with_holes_gives_a_lower_bound(self, case: LinearGaussian, model: VAE, start: Start) -> None:
        """NaN counts as no mass; with the hole in the middle of the posterior a good part of it is missing."""
        model.likelihood.network = Holed(model.likelihood.network, 0.0)
        found = annealing(model, Batch(case.x), start=start, **(FEW | {"distributions": 10, "chains": 16}))
        assert not bool(found.log_evidence.isnan().any())
        measured = found.log_evidence.isfinite()
        assert int(measured.sum()) >= 3
        error = (found.log_evidence - case.log_evidence())[measured]
        assert bool((error <= 4 * found.mc_se[measured]).all())

    @pytest.mark.parametrize("start", ["posterior", "prior", "both"])
    def test_a_datum_of_probability_zero(self, start: Start) -> None:
        """Class 2 is never drawn; the rows that hold it have log p(x) = −inf, the others the bound they had."""
        decoder, encoder = nn.Linear(2, 9), MLP(9, 2, hidden=(4,), heads=2)
        model = VAE(StandardNormal(2), Categorical(decoder, 3), DiagonalNormal(encoder)).double()
        with torch.no_grad():
            decoder.bias[6:] = -math.inf
        x = np.array([[0, 1, 0], [1, 1, 1], [0, 2, 1], [1, 0, 0]])
        found = annealing(model, x, start=start, **FEW)
        assert not bool(found.log_evidence.isnan().any())
        assert found.log_evidence[2].item() == -math.inf
        good = torch.tensor([0, 1, 3])
        assert bool(found.log_evidence[good].isfinite().all())
        batch = model.batch(x).take(good)
        torch.testing.assert_close(
            annealing(model, batch, start=start, **FEW).log_weight, found.log_weight[:, good], rtol=1e-9, atol=1e-9
        )

    @pytest.mark.parametrize("start", ["posterior", "prior", "both"])
    def test_transitions_that_are_never_accepted(self, start: Start) -> None:
        """A likelihood narrower by far than the steps ever get: bounds hold, however low."""
        with KEY.fold("narrow").seeding():
            decoder, encoder = nn.Linear(2, 2), MLP(2, 2, hidden=(4,), heads=2)
        model = VAE(StandardNormal(2), Gaussian(decoder, (2,), FixedScale(1e-12)), DiagonalNormal(encoder)).double()
        x = KEY.normal((3, 2), dtype=torch.float64)
        found = annealing(model, Batch(x), start=start, **FEW)
        assert bool((found.acceptance < 0.05).all())
        bounded(found, 3, 8 if start == "both" else 4)
        covariance = decoder.weight @ decoder.weight.T  # and 1e-24 I
        exact = torch.distributions.MultivariateNormal(decoder.bias, covariance).log_prob(x)
        assert bool((found.log_evidence <= exact).all())

    def test_where_not_one_proposal_is_accepted(self, case: LinearGaussian, model: VAE, monkeypatch: Any) -> None:
        """Chains that stay where they began are importance sampling from the start, and still unbiased."""
        module = sys.modules[annealing.__module__]
        ordinary = module.transition

        def refusing(path: Any, state: Any, *rest: Any) -> Any:
            move = ordinary(path, state, *rest)
            return move._replace(state=state, acceptance=torch.zeros_like(move.acceptance))

        monkeypatch.setattr(module, "transition", refusing)
        found = annealing(model, Batch(case.x), **(FEW | {"chains": 64}))
        bounded(found, 6, 64)
        assert float(found.acceptance.max()) == 0
        error = (found.log_evidence - case.log_evidence()) / found.mc_se
        assert bool((error.abs() <= 4).all())
