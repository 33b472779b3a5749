"""Evaluation and importance sampling: means and errors by hand, whatever the passes in which they were computed."""

from __future__ import annotations

import importlib
import json
import math
from typing import Any

import pytest
import torch
from arviz_stats.base import array_stats
from torch import Tensor, nn

from vaelid.diagnostics import ACTIVE, Estimate, evaluate
from vaelid.evidence import Importance, importance
from vaelid.likelihoods import Bernoulli
from vaelid.model import VAE
from vaelid.networks import MLP
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key
from vaelid.types import Batch

PASSES = importlib.import_module("vaelid.evidence.importance")  # whose name its function took
KEY, ROWS, SIZE, LATENT = Key(8), 37, 6, 3
FIELDS = ("log_evidence", "mc_se", "ess", "k_hat", "elbo", "elbo_se", "reconstruction", "rate", "kl", "centre")


@pytest.fixture
def model() -> VAE:
    return VAE(
        StandardNormal(LATENT),
        Bernoulli(MLP(LATENT, SIZE, (9,))),
        DiagonalNormal(MLP(SIZE, LATENT, (9,), heads=2)),
    )


@pytest.fixture
def x() -> Tensor:
    return (KEY.uniform((ROWS, SIZE)) < 0.5).float()


def differences(a: Importance, b: Importance) -> float:
    """The largest difference of any estimate of any row, relative where it is above 1; NaN equals NaN."""
    pairs = [(getattr(a, name).nan_to_num(-1.0), getattr(b, name).nan_to_num(-1.0)) for name in FIELDS]
    return max(float(((one - other).abs() / other.abs().clamp(min=1)).max()) for one, other in pairs)


# -- importance sampling -----------------------------------------------------------------------------------------------


def test_by_hand(model: VAE, x: Tensor) -> None:
    model = model.double()
    found = importance(model, x, 50, KEY)
    problem = model.given(Batch(x))
    with torch.no_grad():
        trace = problem.trace(problem.noise(KEY, 50))
    weight = trace.log_weight.exp()
    q = problem.start
    kl = 0.5 * (q.scale**2 + q.loc**2 - 1 - 2 * q.scale.log()).detach()
    expected = {
        "log_evidence": weight.mean(0).log(),
        "ess": weight.sum(0) ** 2 / (weight**2).sum(0),
        "k_hat": torch.from_numpy(array_stats.psislw(-trace.log_weight.numpy(), axis=0)[1]),
        "mc_se": weight.std(0) / weight.mean(0) / math.sqrt(50),
        "reconstruction": trace.log_likelihood.mean(0),
        "kl": kl,
        "rate": kl.sum(1),
        "elbo": trace.log_likelihood.mean(0) - kl.sum(1),
        "elbo_se": trace.log_likelihood.std(0) / 50**0.5,
        "centre": q.loc.detach(),
    }
    assert expected.keys() == set(FIELDS)
    for name, value in expected.items():
        assert (getattr(found, name) - value).abs().max() < 1e-9, name
    assert found.samples == 50
    assert all(getattr(found, name).dtype == torch.float64 for name in FIELDS)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("samples", [1, 7, 64, 100])
def test_passes_change_nothing(
    model: VAE, x: Tensor, samples: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes of any size draw exactly the samples asked for, also where these do not divide."""
    model = model.to(dtype)
    reference = importance(model, x, samples, KEY)
    for decoder_rows in (1, 10, 100, 1000, 10**6):
        monkeypatch.setattr(PASSES, "DECODER_ROWS", decoder_rows)
        found = importance(model, x, samples, KEY)
        assert differences(found, reference) < tolerance
        assert found.mc_se.isnan().all() == (samples == 1)


@pytest.mark.parametrize("samples", [1, 5, 63, 64, 65, 130])
def test_exactly_the_samples_asked_for(model: VAE, x: Tensor, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PASSES, "DECODER_ROWS", 16)
    rows: list[int] = []
    model.likelihood.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[:-1].numel()))
    found = importance(model, Batch(x), samples, KEY)
    assert sum(rows) == ROWS * samples
    assert max(rows) <= 16
    assert found.samples == samples
    assert ((found.ess >= 1 - 1e-9) & (found.ess <= samples + 1e-9)).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
def test_rows_are_scored_alone(model: VAE, x: Tensor, dtype: torch.dtype, tolerance: float) -> None:
    """A selection of rows, in any order, with their own numbers gives the values that all rows give."""
    model = model.to(dtype)
    batch = Batch(x, row_id=torch.arange(ROWS) * 1000 + 5)
    whole = importance(model, batch, 100, KEY)
    index = torch.tensor([30, 2, 17, 3, 36])
    found = importance(model, batch.take(index), 100, KEY)
    selected = Importance(*(getattr(whole, name)[index] for name in FIELDS), 100)
    assert differences(found, selected) < tolerance
    renumbered = importance(model, Batch(x[index]), 100, KEY)
    assert (renumbered.log_evidence != found.log_evidence).all()


def test_keys_matter(model: VAE, x: Tensor) -> None:
    first = importance(model, x, 20, KEY)
    assert torch.equal(first.log_evidence, importance(model, x, 20, KEY).log_evidence)
    assert (first.log_evidence != importance(model, x, 20, KEY.fold("other")).log_evidence).all()


def test_extreme_weights_keep_their_sum(ppca: Any) -> None:
    """Log-weights in the thousands, whose exponentials under- and overflow: L_K is still their log-mean-exp."""
    far = ppca.model(shift=60.0)
    problem = far.given(Batch(ppca.x))
    log_weight = problem.trace(problem.noise(KEY, 5000)).log_weight.detach()
    assert log_weight.max() < -2000
    found = importance(far, ppca.x, 5000, KEY)
    assert (found.log_evidence - (log_weight.logsumexp(0) - math.log(5000))).abs().max() < 1e-9
    assert (found.ess < 100).all()
    assert found.mc_se.isfinite().all()


def test_progress(model: VAE, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PASSES, "DECODER_ROWS", 640)
    seen: list[int] = []
    importance(model, x, 64, KEY, on_rows=seen.append)
    assert seen == [10, 20, 30, 37]


def test_training_mode_is_left_and_restored(x: Tensor) -> None:
    """Dropout takes no part in a score; afterwards the model is as it was."""
    encoder = nn.Sequential(nn.Linear(SIZE, 9), nn.Dropout(0.5), nn.Linear(9, 2 * LATENT))
    model = VAE(StandardNormal(LATENT), Bernoulli(MLP(LATENT, SIZE, ())), DiagonalNormal(encoder))
    model.likelihood.eval()
    first, second = importance(model, x, 5, KEY), importance(model.eval(), x, 5, KEY)
    assert torch.equal(first.log_evidence, second.log_evidence)
    model.train()
    model.likelihood.eval()
    importance(model, x, 5, KEY)
    assert model.training
    assert encoder.training
    assert not model.likelihood.training


# -- means over rows ---------------------------------------------------------------------------------------------------


def test_means_and_errors_by_hand(model: VAE, x: Tensor) -> None:
    found = evaluate(model, x, samples=30, key=KEY)
    rows = importance(model, x, 30, KEY)
    assert differences(found.per_row, rows) == 0
    columns = {"elbo": rows.elbo, "iwae": rows.log_evidence, "distortion": -rows.reconstruction, "rate": rows.rate}
    for name, column in columns.items():
        values = column.tolist()
        mean = math.fsum(values) / ROWS
        se = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (ROWS - 1) / ROWS)
        estimate = getattr(found, name)
        assert estimate == pytest.approx(Estimate(mean, se), abs=1e-12), name
    assert found.iwae_mc_se == pytest.approx(math.sqrt(math.fsum(v**2 for v in rows.mc_se.tolist())) / ROWS, rel=1e-12)
    assert found.kl_per_dimension == pytest.approx(rows.kl.mean(0).tolist())
    assert (found.rows, found.samples) == (ROWS, 30)
    assert found.elbo.value == pytest.approx(-found.distortion.value - found.rate.value, abs=1e-12)
    assert sum(found.kl_per_dimension) == pytest.approx(found.rate.value, rel=1e-9)
    assert found.elbo.value < found.iwae.value


def test_table(model: VAE, x: Tensor) -> None:
    """Plain numbers, every estimate with its error beside it."""
    found = evaluate(model, x, samples=30)
    table = found.as_dict()
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    for name in ("elbo", "iwae", "rate", "distortion"):
        assert (table[name], table[f"{name}_se"]) == getattr(found, name)
    assert table.keys() >= {"iwae_mc_se", "samples", "active_units", "kl_per_dimension", "rows"}
    assert differences(found.per_row, evaluate(model, x, samples=30, key=Key(0)).per_row) == 0


def test_errors_that_one_number_cannot_give(model: VAE, x: Tensor) -> None:
    """One row has no spread, one sample no Monte Carlo error: not a number, rather than 0."""
    single = evaluate(model, x[:1], samples=30)
    assert math.isnan(single.elbo.se)
    assert math.isfinite(single.elbo.value)
    assert math.isfinite(single.iwae_mc_se)
    assert single.active_units == 0
    once = evaluate(model, x, samples=1)
    assert math.isnan(once.iwae_mc_se)
    assert math.isfinite(once.iwae.se)


@pytest.mark.parametrize(
    ("slopes", "active"),
    [
        ([0.0, 0.0, 0.0], 0),
        ([0.02, 0.0, 0.0], 0),  # variance of the mean 0.02² · Var(x) < ACTIVE
        ([1.0, 0.02, 0.0], 1),
        ([0.21, 0.19, -3.0], 2),  # just above and just below
    ],
)
def test_active_units(slopes: list[float], active: int) -> None:
    """Posterior means slope · x₀ with x₀ ∈ {0, 1} in equal shares: variance slope² / 4 against 0.01 = 0.2² / 4."""
    assert ACTIVE == 0.01
    encoder = nn.Linear(SIZE, 2 * LATENT)
    nn.init.zeros_(encoder.weight)
    with torch.no_grad():
        encoder.weight[:LATENT, 0] = torch.tensor(slopes)
    model = VAE(StandardNormal(LATENT), Bernoulli(nn.Linear(LATENT, SIZE)), DiagonalNormal(encoder))
    x = torch.zeros(40, SIZE)
    x[::2, 0] = 1
    assert evaluate(model, x, samples=2).active_units == active


def test_estimate_reads_well() -> None:
    assert str(Estimate(-88.4567, 0.1234)) == "-88.46 ± 0.12"
