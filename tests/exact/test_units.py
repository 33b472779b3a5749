"""log p(x) is in the data's own units: Jacobians, recorded resolution, constant features, counts."""

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
    DiscretizedLogistic,
    FixedScale,
    Gaussian,
    LearnedScale,
    Likelihood,
    NegativeBinomial,
    PredictedScale,
    Scale,
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


@pytest.mark.parametrize("step", [1.0, 0.5])
def test_masses_have_no_jacobian(step: float) -> None:
    """Counting measure: levels renamed from 0 … 15 to 7 … 7 + 15 · step keep their mass."""
    levels = (KEY.uniform((ROWS, SIZE), dtype=DOUBLE) * 16).floor()
    encoder, decoder = MLP(SIZE, LATENT, (8,), heads=2), MLP(LATENT, SIZE, (8,), heads=2)
    one = model_of(DiscretizedLogistic(decoder, 0, 15), encoder)
    other = model_of(DiscretizedLogistic(decoder, 7, 7 + 15 * step, step), encoder)
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


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -273.15])
@pytest.mark.parametrize("rows", [1, 3, 7, 1000])
def test_constant_feature(value: float, rows: int) -> None:
    """A constant feature has unit 1: the rounding of its mean is no spread."""
    x = torch.cat((torch.full((rows, 1), value, dtype=DOUBLE), KEY.normal((rows, 1), dtype=DOUBLE)), 1)
    likelihood = Gaussian(nn.Linear(1, 2), (2,)).double().adapt(x)
    assert likelihood.unit[0] == 1
    assert likelihood.loc[0] == pytest.approx(value, abs=1e-9)
    assert likelihood.floor[0] == pytest.approx(1e-3)
    assert likelihood.scaled(x)[:, 0].abs().max() < 1e-6
    assert (likelihood.floor > 0).all()


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


def test_negative_binomial_adapts() -> None:
    """Network output 0 means the training mean, half a count more than was seen; log(1 + x) is standardised."""
    x = (KEY.uniform((60, 3), dtype=DOUBLE) * torch.tensor([100.0, 3.0, 0.0], dtype=DOUBLE)).floor()
    decoder = nn.Linear(1, 3)
    likelihood = NegativeBinomial(decoder, (3,)).double().adapt(x)
    nn.init.zeros_(decoder.weight)
    nn.init.zeros_(decoder.bias)
    mean = likelihood(torch.zeros(1, 1, 1, dtype=DOUBLE)).mean[0, 0]
    assert (mean - (x.sum(0) + 0.5) / 60).abs().max() < 1e-12
    features = likelihood.features(x)
    assert features[:, :2].mean(0).abs().max() < 1e-12
    assert (features[:, :2].std(0, correction=0) - 1).abs().max() < 1e-12
    assert (features[:, 2] == 0).all()  # never seen: constant
    assert likelihood(torch.zeros(1, 1, 1, dtype=DOUBLE)).log_prob(x[:1]).isfinite().all()


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


@pytest.mark.parametrize("kind", ["gaussian", "negative-binomial"])
def test_adapt_leaves_out_cells_that_were_not_observed(kind: str) -> None:
    """Per feature, the buffers are those of its observed cells alone, whatever the hidden ones hold."""
    rng = np.random.default_rng(7)
    x = rng.poisson(4.0, size=(60, 3)).astype(float) if kind == "negative-binomial" else rng.normal(2, 3, (60, 3))
    seen = rng.random(x.shape) < 0.6
    seen[:, 2] = False
    box = NegativeBinomial if kind == "negative-binomial" else Gaussian
    masked = box(nn.Identity(), (3,)).double().adapt(np.where(seen, x, np.nan), seen)
    for feature in (0, 1):
        alone = box(nn.Identity(), (1,)).double().adapt(x[seen[:, feature], feature : feature + 1])
        for name, buffer in alone.named_buffers():
            torch.testing.assert_close(masked.get_buffer(name)[feature], buffer[0], rtol=1e-12, atol=0)
    assert masked.loc[2] == 0
    assert masked.unit[2] == 1
