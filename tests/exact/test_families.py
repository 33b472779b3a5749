"""What is particular to one family of distributions, and divergences between normals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from families import CASES, CLASSES, LOC, LOG_MEAN, LOG_R, SCALE, Case, cast, tensor, with_gradients
from scipy import stats

from vaelid.distributions import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Laplace,
    LogNormal,
    NegativeBinomial,
    Normal,
    Ordinal,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
    has_kl,
    kl_cells,
)
from vaelid.errors import InputError, InputTypeError
from vaelid.random import Key
from vaelid.types import Transport


def test_push_and_pull_are_inverse_and_agree_with_log_prob() -> None:
    value = Normal(LOC.expand(7, 3), SCALE)
    assert isinstance(value, Transport)
    u = Key(3).normal((5, 7, 3), dtype=torch.float64)
    z, log_prob = value.push(u)
    assert z.shape == (5, 7, 3)
    assert log_prob.shape == (5, 7)
    torch.testing.assert_close(value.pull(z), u, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_prob, value.log_prob(z), rtol=1e-12, atol=0)
    torch.testing.assert_close(value.push(u.new_zeros(1, 7, 3))[0][0], value.mean)


def test_categorical_probabilities_and_mode() -> None:
    value = Categorical(CLASSES)
    torch.testing.assert_close(value.probs, CLASSES.exp() / CLASSES.exp().sum(-1, keepdim=True))
    torch.testing.assert_close(value.mode, tensor(2, 0))


def test_continuous_bernoulli_near_zero() -> None:
    """Taylor: log p = l (x − ½) − l²/24 + l⁴/2880, mean ½ + l/12 − l³/720, variance 1/12 − l²/240; the next terms
    are below 1e-16 for |l| ≤ 2e-3."""
    logits = tensor(-2e-3, -1e-5, -1e-12, 0.0, 1e-12, 1e-5, 2e-3)
    value, x = ContinuousBernoulli(logits), 0.3
    at = tensor(x)
    expected = logits * (x - 0.5) - logits**2 / 24 + logits**4 / 2880
    torch.testing.assert_close(value.cell_log_prob(at), expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(value.mean, 0.5 + logits / 12 - logits**3 / 720, rtol=1e-15, atol=1e-16)
    torch.testing.assert_close(value.variance, 1 / 12 - logits**2 / 240, rtol=1e-12, atol=0)
    torch.testing.assert_close(value.icdf(value.cdf(at)), at.expand(7), rtol=1e-14, atol=0)
    for question, slope in (
        (lambda d: d.cell_log_prob(torch.tensor(x)), (x - 0.5) - logits / 12),
        (lambda d: d.mean, 1 / 12 - logits**2 / 240),
        (lambda d: d.variance, -logits / 120),
        (lambda d: d.cdf(torch.tensor(x)), x * (x - 1) / 2 + logits * x * (1 - x) * (1 - 2 * x) / 6),
        (lambda d: d.icdf(torch.tensor(x)), x * (1 - x) / 2 + logits * x * (1 - x) * (1 - 2 * x) / 3),
    ):
        single = logits.float().requires_grad_()
        (gradient,) = torch.autograd.grad(question(ContinuousBernoulli(single)).sum(), single)
        torch.testing.assert_close(gradient.double(), slope, rtol=5e-4, atol=1e-6)


@pytest.mark.parametrize("at", [-1.0, 1.0, 1e-3])
def test_continuous_bernoulli_has_no_seams(at: float) -> None:
    """Where a series takes over from a closed form, both sides agree to rounding."""
    below, above = (ContinuousBernoulli(tensor(at * (1 + side * 1e-14))) for side in (-1, 1))
    x = tensor(0.37)
    for question in ("cell_log_prob", "cdf", "icdf"):
        torch.testing.assert_close(getattr(below, question)(x), getattr(above, question)(x), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(below.mean, above.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(below.variance, above.variance, rtol=1e-12, atol=0)


@pytest.mark.parametrize("log_concentration", [25.0, 40.0, 80.0])
def test_negative_binomial_tends_to_poisson(log_concentration: float) -> None:
    mu, x = 30.0, np.arange(0.0, 90.0)
    value = NegativeBinomial(tensor(math.log(mu)), tensor(log_concentration))
    # To first order in 1/r the log masses differ by ((x − μ)² − x) / 2r.
    rounding = 3600 * math.exp(-log_concentration) + 1e-12
    at = torch.from_numpy(x)
    np.testing.assert_allclose(value.cell_log_prob(at), stats.poisson.logpmf(x, mu), rtol=1e-13, atol=rounding)
    np.testing.assert_allclose(value.cdf(at), stats.poisson.cdf(x, mu), atol=rounding)
    u = Key(5).uniform((200,), dtype=torch.float64)
    np.testing.assert_array_equal(value.icdf(u), stats.poisson.ppf(u, mu))


def test_negative_binomial_keeps_its_digits_in_single_precision() -> None:
    """Large counts near their mean, where differences of log-gamma lose up to a nat in float32."""
    x = torch.tensor([1e2, 1e3, 1e4, 1e5])
    concentration = torch.tensor([[-4.0], [0.0], [4.0], [8.0]])
    single = NegativeBinomial(x.log(), concentration)
    exact = cast(single, torch.float64)
    torch.testing.assert_close(single.cell_log_prob(x).double(), exact.cell_log_prob(x.double()), rtol=0, atol=1e-4)
    r = concentration.double().exp().numpy()
    reference = stats.nbinom.logpmf(x.double(), r, r / (r + single.log_mean.double().exp().numpy()))
    np.testing.assert_allclose(exact.cell_log_prob(x.double()), reference, rtol=1e-9)


def test_discretized_logistic_far_tail() -> None:
    """1e4 scales from loc, a bin's log mass is (x + ½ − loc) / s + log(1 − e^(−1/s)) to rounding."""
    scale = 0.01
    value = DiscretizedLogistic(tensor(200.0), tensor(math.log(scale)))
    expected = (100.5 - 200) / scale + math.log1p(-math.exp(-1 / scale))
    assert value.cell_log_prob(tensor(100.0)).item() == pytest.approx(expected, rel=1e-13)


def test_discretized_logistic_in_other_units() -> None:
    """Levels 0.1, 0.2, … 1.6 are the levels 0 … 15 with other units: the same masses, moments scaled."""
    loc, log_scale = tensor(3.7, 14.0), tensor(0.4, 1.0)
    plain = DiscretizedLogistic(loc, log_scale, low=0, high=15)
    value = DiscretizedLogistic(0.1 + 0.1 * loc, log_scale + math.log(0.1), low=0.1, high=1.6, step=0.1)
    codes = torch.arange(16, dtype=torch.float64)[:, None]
    x = 0.1 + 0.1 * codes
    torch.testing.assert_close(value.cell_log_prob(x), plain.cell_log_prob(codes), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(value.cdf(x), plain.cdf(codes), rtol=1e-11, atol=0)
    torch.testing.assert_close(value.mean, 0.1 + 0.1 * plain.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(value.variance, 0.01 * plain.variance, rtol=1e-11, atol=0)
    u = Key(6).uniform((100, 2), dtype=torch.float64)
    torch.testing.assert_close(value.icdf(u), 0.1 + 0.1 * plain.icdf(u), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "case", [case for case in CASES if hasattr(case.value, "log_probs")], ids=lambda case: case.name
)
def test_table_of_levels(case: Case) -> None:
    """``log_probs`` is the log mass at every level, along a last dimension."""
    table = case.value.log_probs
    assert table.shape == (case.cells, len(case.support))
    torch.testing.assert_close(table, case.value.cell_log_prob(case.levels()).T, rtol=1e-14, atol=1e-14)


def test_mixture_of_one_is_the_discretised_logistic() -> None:
    loc, log_scale = tensor(-3.0, 128.0, 260.0), tensor(1.0, -0.5, 2.5)
    plain = DiscretizedLogistic(loc, log_scale, -10, 300, 5)
    one = DiscretizedLogisticMixture(tensor(0.3).expand(3, 1), loc[:, None], log_scale[:, None], -10, 300, 5)
    x = torch.arange(-10, 301, 5, dtype=torch.float64)[:, None]
    u = Key(7).uniform((300, 3), dtype=torch.float64)
    torch.testing.assert_close(one.cell_log_prob(x), plain.cell_log_prob(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(one.mean, plain.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(one.variance, plain.variance, rtol=1e-14, atol=0)
    torch.testing.assert_close(one.cdf(x + 1), plain.cdf(x + 1), rtol=1e-14, atol=0)
    torch.testing.assert_close(one.icdf(u), plain.icdf(u), rtol=0, atol=0)


def test_ordinal_of_two_levels_is_bernoulli() -> None:
    location, cut = tensor(-40.0, -1.0, 0.5, 40.0), tensor(0.3, -2.0, 0.0, 5.0)
    two, plain = Ordinal(location, cut[:, None]), Bernoulli(location - cut)
    x = tensor(0.0, 1.0)[:, None]
    torch.testing.assert_close(two.cell_log_prob(x), plain.cell_log_prob(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(two.mean, plain.mean, rtol=1e-14, atol=0)


def test_ordinal_keeps_its_digits_far_out() -> None:
    """A level between cutpoints a and b, both far above the location: e^(location − a) − e^(location − b)."""
    value = Ordinal(tensor(-300.0), tensor(0.0, 1.0, 1.5)[None])
    expected = -300 + math.log(math.exp(-1) - math.exp(-1.5))
    assert value.cell_log_prob(tensor(2.0)).item() == pytest.approx(expected, rel=1e-14)


def test_ordinal_point_is_the_median() -> None:
    value = Ordinal(torch.linspace(-4, 4, 41, dtype=torch.float64), tensor(-2.0, 0.05, 1.95))
    torch.testing.assert_close(value.point, value.icdf(tensor(0.5)), rtol=0, atol=0)
    assert value.point.unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("degrees", [1e-3, 0.3, 1.0, 7.0, 19.9, 20.1, 1e3, 1e6, 1e12])
def test_student_t_for_every_degree(degrees: float) -> None:
    """Against SciPy from the centre to where t² overflows in single precision; float32 within 16 last places."""
    x = tensor(0.0, 1e-8, 0.1, 1.0, 3.0, 30.0, 1e3, 1e10, 1e25)
    single = StudentT(torch.zeros(1), torch.ones(1), torch.tensor([degrees]))
    exact = cast(single, torch.float64)
    reference = stats.t.logpdf(x.float().double(), exact.degrees)
    np.testing.assert_allclose(exact.cell_log_prob(x.float().double()), reference, rtol=1e-12, atol=1e-12)
    slack = 16 * torch.finfo(torch.float32).eps
    ours = single.cell_log_prob(x.float()).double()
    torch.testing.assert_close(ours, exact.cell_log_prob(x.float().double()), rtol=slack, atol=slack)


def test_student_t_has_the_moments_it_has() -> None:
    value = StudentT(tensor(3.0), tensor(2.0), tensor(0.5, 1.0, 1.5, 2.0, 2.5, 1e12))
    np.testing.assert_array_equal(value.mean, [math.nan, math.nan, 3, 3, 3, 3])
    np.testing.assert_allclose(value.variance, [math.nan, math.nan, math.inf, math.inf, 20, 4], rtol=1e-11)
    assert (value.point == 3).all()
    leaves = with_gradients(value)
    gradients = torch.autograd.grad(leaves[0].variance[4:].sum(), leaves[1], allow_unused=True, materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_student_t_between_cauchy_and_normal() -> None:
    x = torch.linspace(-8, 8, 33, dtype=torch.float64)
    cauchy = StudentT(tensor(0.0), tensor(1.0), tensor(1.0))
    torch.testing.assert_close(cauchy.cell_log_prob(x), -(math.pi * (1 + x**2)).log(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(cauchy.cdf(x), 0.5 + torch.atan(x) / math.pi, rtol=1e-12, atol=0)
    # To first order in 1/ν the log density differs from a normal's by (t⁴ − 2t² − 1) / 4ν; the next order is t⁶/6ν².
    nu = 1e8
    wide = StudentT(tensor(0.0), tensor(1.0), tensor(nu)).cell_log_prob(x)
    expected = Normal(tensor(0.0), tensor(1.0)).cell_log_prob(x) + (x**4 - 2 * x**2 - 1) / (4 * nu)
    torch.testing.assert_close(wide, expected, rtol=0, atol=8**6 / nu**2 + 1e-13)


def test_far_quantiles_of_heavy_tails() -> None:
    """Far beyond what noise of 32 bits reaches, both tails alike."""
    u = tensor(1e-50, 1e-12, 0.5, 1 - 2.0**-40)
    laplace = Laplace(tensor(2.0), tensor(3.0))
    np.testing.assert_allclose(laplace.icdf(u), stats.laplace.ppf(u, 2, 3), rtol=1e-13)
    student = StudentT(tensor(2.0), tensor(3.0), tensor(2.5))
    np.testing.assert_allclose(student.icdf(u), stats.t.ppf(u, 2.5, 2, 3), rtol=1e-11)
    np.testing.assert_allclose(student.cdf(student.icdf(u)), u, rtol=1e-11)


def test_log_normal_is_a_normal_of_the_logarithm() -> None:
    value, normal = LogNormal(LOC, SCALE), Normal(LOC, SCALE)
    logs = torch.linspace(-9, 9, 19, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        value.cell_log_prob(logs.exp()), normal.cell_log_prob(logs) - logs, rtol=1e-13, atol=1e-13
    )
    torch.testing.assert_close(value.cdf(tensor(-1.0, 0.0)[:, None]), torch.zeros(2, 3).double(), rtol=0, atol=0)
    extreme = LogNormal(torch.tensor([-500.0, 500.0]), torch.tensor(10.0)).icdf(torch.tensor(0.5))
    assert extreme.isfinite().all()
    assert (extreme > 0).all()


def test_poisson_keeps_its_digits_in_single_precision() -> None:
    """Large counts near their mean, where x log μ − μ − log x! loses up to a nat in float32."""
    x = torch.tensor([1e2, 1e3, 1e4, 1e5, 1e6])
    single = Poisson(x.log() + 1e-3)
    exact = cast(single, torch.float64).cell_log_prob(x.double())
    # log μ is rounded to 2⁻²¹ at 13, and d log p / d log μ = x − μ ≈ −1e-3 x
    assert ((single.cell_log_prob(x).double() - exact).abs() < 1e-3 * x * 2.0**-21 + 1e-5).all()
    reference = stats.poisson.logpmf(x.double(), single.log_mean.double().exp())
    np.testing.assert_allclose(exact, reference, rtol=1e-9)


def test_zero_inflation_from_none_to_all() -> None:
    plain = NegativeBinomial(LOG_MEAN, LOG_R)
    x = torch.arange(40, dtype=torch.float64)[:, None]
    none = ZeroInflatedNegativeBinomial(LOG_MEAN, LOG_R, tensor(-800.0))
    torch.testing.assert_close(none.cell_log_prob(x), plain.cell_log_prob(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(none.variance, plain.variance, rtol=1e-14, atol=0)
    every = ZeroInflatedNegativeBinomial(LOG_MEAN, LOG_R, tensor(800.0))
    torch.testing.assert_close(every.cell_log_prob(x)[0], torch.zeros(4).double(), rtol=0, atol=0)
    torch.testing.assert_close(every.cell_log_prob(x)[1:], plain.cell_log_prob(x)[1:] - 800, rtol=1e-13, atol=0)
    u = Key(8).uniform((200, 4), dtype=torch.float64)
    torch.testing.assert_close(none.icdf(u), plain.icdf(u), rtol=0, atol=0)
    assert (every.icdf(u) == 0).all()


# Kullback–Leibler divergences.


def test_kl_agrees_with_torch_distributions() -> None:
    q = Normal(LOC[:, None], SCALE[:, None])
    p = Normal(tensor(0.0, 1.0), tensor(1.0, 0.4))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.loc, q.scale), torch.distributions.Normal(p.loc, p.scale)
    )
    cells = kl_cells(q, p)
    assert cells.shape == (3, 2)
    torch.testing.assert_close(cells, expected, rtol=1e-13, atol=0)


def test_kl_is_zero_at_equality_and_stable_near_it() -> None:
    q = Normal(torch.tensor([0.1, -3.0, 7e3]), torch.tensor([0.3, 1.0, 2e-5]))
    torch.testing.assert_close(kl_cells(q, q), torch.zeros(3), rtol=0, atol=0)
    near = Normal(torch.zeros(1), torch.tensor([1 + 2.0**-10]))
    rho = math.log1p(2.0**-10)
    exact = 0.5 * (math.expm1(2 * rho) - 2 * rho)
    assert kl_cells(near, Normal(torch.zeros(1), torch.ones(1))).item() == pytest.approx(exact, abs=2.0**-34)
    wide = kl_cells(Normal(torch.zeros(1), torch.tensor([1e-30])), Normal(torch.zeros(1), torch.tensor([1e8])))
    assert wide.item() == pytest.approx(38 * math.log(10) - 0.5, rel=1e-6)


def test_kl_without_closed_form_is_refused() -> None:
    normal, other = Normal(LOC, SCALE), Bernoulli(LOC)
    assert has_kl(normal, normal)
    assert not has_kl(normal, other)
    assert not has_kl(other, other)
    with pytest.raises(InputTypeError, match=r"KL\(Normal ‖ Bernoulli\) has no closed form") as caught:
        kl_cells(normal, other)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, InputError)
