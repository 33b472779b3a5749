"""log p(x) is in the data's own units: Jacobians, recorded resolution, constant features, counts, levels."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaelid.errors import InputError
from vaelid.evidence import importance
from vaelid.likelihoods import (
    Bernoulli,
    Binomial,
    Counts,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    FixedScale,
    Gaussian,
    Laplace,
    LearnedScale,
    Likelihood,
    LocationScale,
    LogNormal,
    NegativeBinomial,
    Ordinal,
    Poisson,
    PredictedScale,
    Scale,
    StudentT,
    ZeroInflatedNegativeBinomial,
    resolution,
)
from vaelid.model import VAE
from vaelid.networks import MLP
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key

KEY, SIZE, LATENT, ROWS = Key(5), 4, 2, 50
DOUBLE = torch.float64
SHIFT = torch.tensor([1000.0, -3.0, 0.0, 1e-2], dtype=DOUBLE)
OWN = torch.tensor([250.0, 2.0, 0.3, 1e-3], dtype=DOUBLE)  # a unit for each feature
SHARED = torch.full((SIZE,), 40.0, dtype=DOUBLE)


def standardised() -> Tensor:
    """Rows with mean 0 and standard deviation 1 in every feature, exactly."""
    x = KEY.fold("x").normal((ROWS, SIZE), dtype=DOUBLE) @ KEY.fold("mix").normal((SIZE, SIZE), dtype=DOUBLE)
    return (x - x.mean(0)) / x.std(0, correction=0)


def model_of(likelihood: Likelihood, encoder: nn.Module, latent: int = LATENT) -> VAE:
    return VAE(StandardNormal(latent), likelihood, DiagonalNormal(encoder)).double()


def rho(scale: Scale, value: float) -> Scale:
    with torch.no_grad():
        scale.rho.fill_(value)
    return scale


SCALES = {
    # the rule in the data's units, the same rule in standardised units, what a unit is
    "fixed": (lambda: FixedScale(0.7 * 40.0), lambda: FixedScale(0.7), SHARED),
    "learned, one for all": (lambda: rho(LearnedScale(), -0.4), lambda: rho(LearnedScale(), -0.4), SHARED),
    "learned per feature": (lambda: rho(LearnedScale((SIZE,)), -0.4), lambda: rho(LearnedScale((SIZE,)), -0.4), OWN),
    "predicted": (PredictedScale, PredictedScale, OWN),
}


@pytest.mark.parametrize("rule", SCALES)
def test_jacobian(rule: str) -> None:
    """One density, seen in two units: log p(raw) = log p(standardised) − Σ log unit, at every noise."""
    raw_scale, plain_scale, unit = SCALES[rule]
    plain = standardised()
    raw = SHIFT + unit * plain
    scale = plain_scale()
    encoder, decoder = MLP(SIZE, LATENT, (8,), heads=2), MLP(LATENT, SIZE, (8,), heads=1 + scale.heads)
    before = model_of(Gaussian(decoder, (SIZE,), scale), encoder)
    after = model_of(Gaussian(copy.deepcopy(decoder), (SIZE,), raw_scale()), copy.deepcopy(encoder))
    after.likelihood.adapt(raw)
    before.likelihood.adapt(plain)  # means 0 and deviations 1, to rounding: the identity
    assert before.likelihood.loc.abs().max() < 1e-12
    assert (before.likelihood.unit - 1).abs().max() < 1e-12
    jacobian = unit.log().sum()
    one, other = before.given(before.batch(plain)), after.given(after.batch(raw))
    u = one.noise(KEY, 6)
    first, second = one.trace(u), other.trace(u)
    assert (first.groups[0].z - second.groups[0].z).abs().max() < 1e-9
    assert (first.log_likelihood - jacobian - second.log_likelihood).abs().max() < 1e-9
    a, b = importance(before, plain, 200, KEY), importance(after, raw, 200, KEY)
    for name in ("log_evidence", "elbo", "reconstruction"):
        assert (getattr(a, name) - jacobian - getattr(b, name)).abs().max() < 1e-9
    for name in ("rate", "mc_se", "ess"):
        assert (getattr(a, name) - getattr(b, name)).abs().max() < 1e-6
    assert (SHIFT + unit * before.reconstruct(plain) - after.reconstruct(raw)).abs().max() < 1e-6
    drawn = SHIFT + unit * before.sample(20, KEY) - after.sample(20, KEY)
    assert drawn.abs().max() < 1e-6


def test_density_integrates_to_one_in_raw_units() -> None:
    """∫ p(x|z) dx over a fine grid in the data's own units, float64."""
    raw = SHIFT[:1] + OWN[:1] * standardised()[:, :1]
    likelihood = Gaussian(nn.Linear(1, 1), (1,)).double().adapt(raw).requires_grad_(False)
    value = likelihood(torch.zeros(1, 1, 1, dtype=DOUBLE))
    centre, width = float(value.mean), float(value.variance.sqrt())
    grid = torch.linspace(centre - 12 * width, centre + 12 * width, 4001, dtype=DOUBLE)
    total = value.log_prob(grid[None, :, None]).exp().sum() * (grid[1] - grid[0])
    assert abs(total - 1) < 1e-9


@pytest.mark.parametrize("kind", [Laplace, StudentT])
def test_jacobian_of_heavy_tails(kind: type[LocationScale]) -> None:
    """Centres and spreads follow the units, so that the densities differ by the Jacobian alone."""
    plain = standardised()
    encoder, decoder = MLP(SIZE, LATENT, (8,), heads=2), MLP(LATENT, SIZE, (8,))
    before, after = (model_of(kind(copy.deepcopy(decoder), (SIZE,)), copy.deepcopy(encoder)) for _ in range(2))
    before.likelihood.adapt(plain)
    after.likelihood.adapt(SHIFT + OWN * plain)
    a, b = importance(before, plain, 50, KEY), importance(after, SHIFT + OWN * plain, 50, KEY)
    assert (a.log_evidence - OWN.log().sum() - b.log_evidence).abs().max() < 1e-8
    assert (SHIFT + OWN * before.sample(20, KEY) - after.sample(20, KEY)).abs().max() < 1e-6


def test_jacobian_of_the_log_normal() -> None:
    """A positive quantity has a unit and no shift: log p(c x) = log p(x) − Σ log c."""
    plain = standardised().exp()
    encoder, decoder = MLP(SIZE, LATENT, (8,), heads=2), MLP(LATENT, SIZE, (8,))
    before, after = (model_of(LogNormal(copy.deepcopy(decoder), (SIZE,)), copy.deepcopy(encoder)) for _ in range(2))
    before.likelihood.adapt(plain)
    after.likelihood.adapt(OWN * plain)
    a, b = importance(before, plain, 50, KEY), importance(after, OWN * plain, 50, KEY)
    assert (a.log_evidence - OWN.log().sum() - b.log_evidence).abs().max() < 1e-8
    assert (OWN * before.sample(20, KEY) / after.sample(20, KEY) - 1).abs().max() < 1e-9


@pytest.mark.parametrize("step", [1.0, 0.5])
@pytest.mark.parametrize(("box", "heads"), [(DiscretizedLogistic, 2), (DiscretizedLogisticMixture, 15)])
def test_masses_have_no_jacobian(box: Any, heads: int, step: float) -> None:
    """Counting measure: levels renamed from 0 … 15 to 7 … 7 + 15 · step keep their mass."""
    levels = (KEY.uniform((ROWS, SIZE), dtype=DOUBLE) * 16).floor()
    encoder, decoder = MLP(SIZE, LATENT, (8,), heads=2), MLP(LATENT, SIZE, (8,), heads=heads)
    one = model_of(box(decoder, low=0, high=15), encoder)
    other = model_of(box(decoder, low=7, high=7 + 15 * step, step=step), encoder)
    a, b = importance(one, levels, 10, KEY), importance(other, 7 + step * levels, 10, KEY)
    assert (a.log_evidence - b.log_evidence).abs().max() < 1e-9


def test_binomial_of_one_trial_is_bernoulli() -> None:
    x = (KEY.uniform((ROWS, SIZE), dtype=DOUBLE) < 0.4).double()
    encoder, decoder = MLP(SIZE, LATENT, (8,), heads=2), MLP(LATENT, SIZE, (8,))
    a = importance(model_of(Bernoulli(decoder), encoder), x, 10, KEY)
    b = importance(model_of(Binomial(decoder, 1), encoder), x, 10, KEY)
    assert (a.log_evidence - b.log_evidence).abs().max() < 1e-12


# -- resolution and floor ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 100.0, -1000.0])
@pytest.mark.parametrize("step", [0.1, 1.0, 0.25])
def test_resolution_of_recorded_data(dtype: torch.dtype, offset: float, step: float) -> None:
    x = (offset + step * (KEY.uniform((300, 3), dtype=DOUBLE) * 40).floor()).to(dtype)
    found = resolution(x.double())
    rounding = 2 * torch.finfo(dtype).eps * (abs(offset) + 4)  # of two neighbours
    assert (found - step).abs().max() <= rounding
    likelihood = Gaussian(nn.Linear(1, 3), (3,)).double().adapt(x)
    assert (likelihood.floor - step / math.sqrt(12)).abs().max() <= max(rounding, 1e-12)


def test_resolution_ignores_rounding() -> None:
    """0.1 · 3 and 0.3 are one value, in either precision."""
    x = torch.tensor([[0.1 * 3], [0.3], [0.1 + 0.2], [0.4], [0.7]], dtype=DOUBLE)
    assert abs(float(resolution(x)) - 0.1) < 1e-12
    assert abs(float(resolution(x.float().double())) - 0.1) < 1e-6


def test_resolution_looks_at_no_more_rows_than_asked() -> None:
    """Of 0 … 19 at most ten are looked at, every second one."""
    x = torch.arange(20, dtype=DOUBLE)[:, None]
    assert resolution(x) == 1
    assert resolution(x, rows=10) == 2
    assert resolution(x[:15], rows=10) == 2


def test_repeated_values_do_not_make_the_density_unbounded() -> None:
    """Nine tenths of the cells are the same number: a σ driven down ends at its floor, log p at log 1/(floor √2π)."""
    x = KEY.normal((500, SIZE), dtype=DOUBLE)
    x[KEY.fold("same").uniform((500, SIZE)) < 0.9] = 0.25
    for scale in (rho(LearnedScale((SIZE,)), -200.0), rho(LearnedScale(), -200.0)):
        decoder = nn.Linear(LATENT, SIZE)
        likelihood = Gaussian(decoder, (SIZE,), scale).double().adapt(x)
        with torch.no_grad():  # the mean is exactly the repeated value
            decoder.weight.zero_()
            decoder.bias.copy_((0.25 - likelihood.loc) / likelihood.unit)
        value = likelihood(torch.zeros(1, 1, LATENT, dtype=DOUBLE))
        highest = value.cell_log_prob(torch.full((SIZE,), 0.25, dtype=DOUBLE))
        floor = likelihood.floor if scale.shape else likelihood.floor.min()
        bound = -(floor * math.sqrt(2 * math.pi)).log()
        assert (likelihood.floor >= 1e-3 * likelihood.unit * (1 - 1e-6)).all()
        assert (highest - bound).abs().max() < 1e-9


@pytest.mark.parametrize("kind", [Gaussian, Laplace, StudentT])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -273.15])
@pytest.mark.parametrize("rows", [1, 3, 7, 1000])
def test_constant_feature(value: float, rows: int, kind: type[LocationScale]) -> None:
    """A constant feature has unit 1: the rounding of its mean is no spread."""
    x = torch.cat((torch.full((rows, 1), value, dtype=DOUBLE), KEY.normal((rows, 1), dtype=DOUBLE)), 1)
    likelihood = kind(nn.Linear(1, 2), (2,)).double().adapt(x)
    assert likelihood.unit[0] == 1
    assert likelihood.loc[0] == pytest.approx(value, abs=1e-9)
    assert likelihood.floor[0] == pytest.approx(1e-3)
    assert likelihood.scaled(x)[:, 0].abs().max() < 1e-6
    assert (likelihood.floor > 0).all()


@pytest.mark.parametrize("kind", [Laplace, StudentT])
def test_outliers_do_not_set_the_scale(kind: type[LocationScale]) -> None:
    """One cell in fifty at 1e6: centre and spread move by less than a tenth of the spread, features stay small."""
    x = 5 + 2 * KEY.normal((500, SIZE), dtype=DOUBLE)
    wild = torch.where(KEY.fold("wild").uniform((500, SIZE)) < 0.02, 1e6, x)
    clean, found = (kind(nn.Linear(1, SIZE), (SIZE,)).double().adapt(rows) for rows in (x, wild))
    assert (found.loc - clean.loc).abs().max() < 0.2
    assert (found.unit / clean.unit - 1).abs().max() < 0.1
    assert (clean.unit / 2 - 1).abs().max() < 0.2  # a normal's standard deviation, estimated from 500 rows
    if kind is StudentT:
        assert found.features(wild).abs().max() < 16


@pytest.mark.parametrize("kind", [Laplace, StudentT])
def test_quartiles_that_are_one_value(kind: type[LocationScale]) -> None:
    """Where most cells are one number the spread is the mean distance from it."""
    x = torch.zeros(100, 1, dtype=DOUBLE)
    x[:10] = 3.0
    likelihood = kind(nn.Linear(1, 1), (1,)).double().adapt(x)
    assert likelihood.loc == 0
    assert likelihood.unit.item() == pytest.approx(0.3)


def test_floor_of_the_log_normal() -> None:
    """Recorded in tenths around 20: the rounding of log x is that of x over its geometric mean."""
    x = (20 + (KEY.uniform((300, 1), dtype=DOUBLE) * 40).floor()) / 10
    likelihood = LogNormal(nn.Linear(1, 1), (1,)).double().adapt(x)
    assert likelihood.floor.item() == pytest.approx(0.1 / math.sqrt(12) / x.log().mean().exp().item(), rel=1e-9)
    assert likelihood.features(x).mean().abs() < 1e-12


def test_adapt_takes_arrays_and_gives_the_same_in_every_form() -> None:
    x = SHIFT + OWN * standardised()
    forms: list[Any] = [x, x.numpy(), x.tolist(), np.asfortranarray(x.numpy())]
    found = [Gaussian(nn.Linear(1, SIZE), (SIZE,)).double().adapt(form) for form in forms]
    for other in found[1:]:
        assert torch.equal(found[0].loc, other.loc)
        assert torch.equal(found[0].unit, other.unit)
        assert torch.equal(found[0].floor, other.floor)
    assert (found[0].loc - x.mean(0)).abs().max() < 1e-9
    assert (found[0].unit / x.std(0, correction=0) - 1).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (lambda: Gaussian(nn.Linear(1, 3), (3,)), torch.zeros(5, 1), "event shape of the Gaussian"),
        (lambda: Gaussian(nn.Linear(1, 3), (3,)), torch.tensor([[1.0, math.nan, 0.0]]), "NaN or infinity"),
        (lambda: NegativeBinomial(nn.Linear(1, 2), (2,)), torch.tensor([[1.0, -1.0]]), "NegativeBinomial"),
        (lambda: NegativeBinomial(nn.Linear(1, 2), (2,)), torch.zeros(3, 4), "event shape"),
        (lambda: LogNormal(nn.Linear(1, 2), (2,)), torch.tensor([[1.0, 0.0]]), "expected numbers > 0"),
        (lambda: Ordinal(nn.Linear(1, 2), 3, (2,)), torch.tensor([[1, 3]]), "expected whole numbers from 0 to 2"),
    ],
)
def test_adapt_refuses(likelihood: Any, x: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        likelihood().adapt(x)


def test_nothing_to_adapt() -> None:
    """Grey levels that will be binarised may be shown to a Bernoulli likelihood."""
    likelihood = Bernoulli(nn.Linear(1, 3))
    assert likelihood.adapt(torch.tensor([[0.0, 17.0, 255.0]])) is likelihood


# -- counts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "share"), [(NegativeBinomial, 1.0), (Poisson, 1.0), (ZeroInflatedNegativeBinomial, 0.5)]
)
def test_counts_adapt(box: type[Counts], share: float) -> None:
    """Network output 0 means the training mean, half a count more than was seen (and a zero every other time, where
    zeros are inflated); log(1 + x) is standardised."""
    x = (KEY.uniform((60, 3), dtype=DOUBLE) * torch.tensor([100.0, 3.0, 0.0], dtype=DOUBLE)).floor()
    decoder = nn.Linear(1, 3 * box.heads)
    likelihood = box(decoder, (3,)).double().adapt(x)
    nn.init.zeros_(decoder.weight)
    nn.init.zeros_(decoder.bias)
    mean = likelihood(torch.zeros(1, 1, 1, dtype=DOUBLE)).mean[0, 0]
    assert (mean - share * (x.sum(0) + 0.5) / 60).abs().max() < 1e-12
    features = likelihood.features(x)
    assert features[:, :2].mean(0).abs().max() < 1e-12
    assert (features[:, :2].std(0, correction=0) - 1).abs().max() < 1e-12
    assert (features[:, 2] == 0).all()  # never seen: constant
    assert likelihood(torch.zeros(1, 1, 1, dtype=DOUBLE)).log_prob(x[:1]).isfinite().all()


def test_ordinal_adapts() -> None:
    """Network output 0 means the training frequencies, half a row more for each level; a level may be unseen."""
    x = torch.tensor([[0, 1], [0, 1], [2, 1], [3, 1], [3, 1]], dtype=DOUBLE)
    decoder = nn.Linear(1, 2)
    nn.init.zeros_(decoder.weight)
    nn.init.zeros_(decoder.bias)
    likelihood = Ordinal(decoder, 4, (2,)).double()
    even = likelihood(torch.zeros(1, dtype=DOUBLE)).log_probs.exp()
    assert (even - 0.25).abs().max() < 1e-5  # before anything was seen
    masses = likelihood.adapt(x)(torch.zeros(1, dtype=DOUBLE)).log_probs.exp()
    expected = torch.tensor([[2.5, 0.5, 1.5, 2.5], [0.5, 5.5, 0.5, 0.5]], dtype=DOUBLE) / 7
    assert (masses - expected).abs().max() < 2e-5  # cutpoints are kept 1e-5 apart
    with torch.no_grad():
        likelihood.rho.fill_(-100.0)
    assert likelihood(torch.zeros(1, dtype=DOUBLE)).cutpoints.float().diff(dim=-1).min() > 0
    assert likelihood.float()(torch.zeros(1)).log_probs.isfinite().all()


def test_degrees_of_freedom() -> None:
    """Learned: one per feature, from 5, never below 1. Given: a number above 0, and nothing to learn."""
    learned, given = StudentT(nn.Linear(1, 3), (3,)), StudentT(nn.Linear(1, 3), (3,), degrees=0.8)
    assert learned(torch.zeros(1)).degrees.tolist() == pytest.approx([5.0] * 3)
    with torch.no_grad():
        learned.tau.fill_(-60.0)
    assert (learned(torch.zeros(1)).degrees >= 1).all()
    assert given(torch.zeros(1)).degrees.tolist() == pytest.approx([0.8] * 3)
    assert {name for name, _ in given.named_parameters()} == {"network.weight", "network.bias", "scale.rho"}
    for wrong in (0.0, -2.0, math.nan):
        with pytest.raises(InputError, match="degrees of freedom"):
            StudentT(nn.Linear(1, 3), (3,), degrees=wrong)


def test_components_of_a_mixture_start_apart() -> None:
    decoder = nn.Linear(1, 12)
    nn.init.zeros_(decoder.weight)
    nn.init.zeros_(decoder.bias)
    value = DiscretizedLogisticMixture(decoder, 4, 0, 255)(torch.zeros(1))
    assert value.loc.tolist() == [[31.875, 95.625, 159.375, 223.125]]


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0, 0, 1), (5, 0, 1), (0, 1, 0), (0, 1, -0.1), (0, 1, 0.3), (0, math.inf, 1)]
)
def test_discretised_logistic_refuses_a_grid_that_is_none(low: float, high: float, step: float) -> None:
    with pytest.raises(InputError, match="step"):
        DiscretizedLogistic(nn.Linear(1, 2), low, high, step)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_fixed_scale_refuses(value: float) -> None:
    with pytest.raises(InputError, match="σ is"):
        FixedScale(value)


KINDS: dict[str, tuple[Any, Any]] = {
    "gaussian": (Gaussian, lambda rng: rng.normal(2, 3, (60, 3))),
    "laplace": (Laplace, lambda rng: rng.laplace(2, 3, (60, 3))),
    "student-t": (StudentT, lambda rng: rng.standard_t(3, (60, 3))),
    "log-normal": (LogNormal, lambda rng: rng.lognormal(2, 1, (60, 3))),
    "negative-binomial": (NegativeBinomial, lambda rng: rng.poisson(4.0, (60, 3)).astype(float)),
    "ordinal": (lambda net, event: Ordinal(net, 5, event), lambda rng: rng.integers(0, 5, (60, 3)).astype(float)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapt_leaves_out_cells_that_were_not_observed(kind: str) -> None:
    """Per feature, the buffers are those of its observed cells alone, whatever the hidden ones hold."""
    rng = np.random.default_rng(7)
    box, draw = KINDS[kind]
    x = draw(rng)
    seen = rng.random(x.shape) < 0.6
    seen[:, 2] = False
    masked = box(nn.Identity(), (3,)).double().adapt(np.where(seen, x, np.nan), seen)
    for feature in (0, 1):
        alone = box(nn.Identity(), (1,)).double().adapt(x[seen[:, feature], feature : feature + 1])
        for name, buffer in alone.named_buffers():
            torch.testing.assert_close(masked.get_buffer(name)[feature], buffer[0], rtol=1e-12, atol=0)
    assert masked.loc[2] == 0
    assert masked.unit[2] == 1
