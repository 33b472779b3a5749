"""Distribution values against SciPy, torch.distributions, and what must hold of every family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from vaelid.distributions import (
    Bernoulli,
    Binomial,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Distribution,
    NegativeBinomial,
    Normal,
    has_kl,
    kl_cells,
)
from vaelid.errors import InputError, InputTypeError
from vaelid.random import Key
from vaelid.types import Transport


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """One value with a few cells; ``support`` is every level (discrete) or the two ends of the density."""

    name: str
    value: Distribution
    support: np.ndarray
    oracle: Callable[[int], stats.distributions.rv_frozen]  # the SciPy distribution of cell i
    extremes: tuple[Distribution, ...] = ()

    @property
    def cells(self) -> int:
        return self.value.mean.numel()

    def levels(self) -> Tensor:
        """Points of the support, (points, 1): every level, or 41 points of the density."""
        if self.value.discrete:
            return torch.from_numpy(self.support)[:, None]
        return torch.linspace(self.support[0], self.support[-1], 41, dtype=torch.float64)[:, None]


def logistic_bins(loc: float, scale: float) -> stats.distributions.rv_frozen:
    edges = np.array([-np.inf, *np.arange(255) + 0.5, np.inf])
    below, above = stats.logistic.cdf(edges, loc, scale), stats.logistic.sf(edges, loc, scale)
    mass = np.where(edges[1:] < loc, np.diff(below), -np.diff(above))  # each from the side where it keeps its digits
    return stats.rv_discrete(values=(np.arange(256), mass))()


LOC, SCALE = tensor(-1.3, 0.2, 4.0), tensor(0.3, 1.0, 2.5)
LOGITS = tensor(-5.0, -0.4, 0.0, 1.7, 6.0)
FLAT = tensor(-9.0, -2.0, 1.5, 8.0)
CLASSES = tensor(0.3, -1.0, 2.0, 0.0, 4.0, -3.0, 1.0, 1.0).view(2, 4)
LOG_MEAN, LOG_R = tensor(-2.0, 0.5, 3.0, 2.0), tensor(0.0, -0.7, 1.5, 6.0)
PIXEL_LOC, LOG_SCALE = tensor(-3.0, 12.3, 128.5, 260.0), tensor(1.0, -0.5, 2.5, 1.5)
MU, R = LOG_MEAN.exp().numpy(), LOG_R.exp().numpy()

far32 = torch.tensor([-60.0, -20.0, -1e-3, 0.0, 1e-3, 20.0, 60.0])
log32 = torch.tensor([-20.0, -8.0, 0.0, 8.0, 20.0])
CASES = [
    Case(
        "normal",
        Normal(LOC, SCALE),
        np.array([-30.0, 30.0]),
        lambda i: stats.norm(LOC[i], SCALE[i]),
        (Normal(torch.tensor([-1e4, 1e4]), torch.tensor([1e-3, 1e4])),),
    ),
    Case(
        "continuous Bernoulli",
        ContinuousBernoulli(FLAT),
        np.array([0.0, 1.0]),
        # On [0, 1] an exponential cut off at 1, mirrored where the logit is positive.
        lambda i: stats.truncexpon(abs(float(FLAT[i])), scale=1 / abs(float(FLAT[i]))),
        (ContinuousBernoulli(far32), ContinuousBernoulli(torch.tensor([-1e4, 1e4]))),
    ),
    Case(
        "Bernoulli",
        Bernoulli(LOGITS),
        np.arange(2.0),
        lambda i: stats.bernoulli(torch.sigmoid(LOGITS[i])),
        (Bernoulli(far32), Bernoulli(1e4 * far32)),
    ),
    Case(
        "binomial",
        Binomial(LOGITS, 16),
        np.arange(17.0),
        lambda i: stats.binom(16, torch.sigmoid(LOGITS[i])),
        (Binomial(far32, 16), Binomial(1e4 * far32, 16)),
    ),
    Case(
        "categorical",
        Categorical(CLASSES),
        np.arange(4.0),
        lambda i: stats.rv_discrete(values=(np.arange(4), torch.softmax(CLASSES[i], -1).numpy()))(),
        (Categorical(torch.tensor([[-1e4, 0.0, 1e4], [60.0, 60.0, -60.0]])),),
    ),
    Case(
        "negative binomial",
        NegativeBinomial(LOG_MEAN, LOG_R),
        np.arange(2000.0),
        lambda i: stats.nbinom(R[i], R[i] / (R[i] + MU[i])),
        (NegativeBinomial(log32, log32[:, None]), NegativeBinomial(log32, torch.tensor(60.0))),
    ),
    Case(
        "discretised logistic",
        DiscretizedLogistic(PIXEL_LOC, LOG_SCALE),
        np.arange(256.0),
        lambda i: logistic_bins(float(PIXEL_LOC[i]), math.exp(LOG_SCALE[i])),
        (
            DiscretizedLogistic(torch.tensor([-1e3, 0.0, 128.0, 255.0, 1e3]), torch.tensor([[-4.0], [0.0], [10.0]])),
            DiscretizedLogistic(torch.tensor([0.0, 100.0]), torch.tensor(math.log(0.01))),
        ),
    ),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def oracle(case: Case, question: str, x: np.ndarray) -> np.ndarray:
    """``question`` put to the SciPy distribution of every cell, (points, cells)."""
    mirrored = {"logpdf": lambda d, x: d.logpdf(1 - x), "cdf": lambda d, x: d.sf(1 - x)}
    columns = []
    for i in range(case.cells):
        flip = case.name == "continuous Bernoulli" and FLAT[i] > 0
        frozen = case.oracle(i)
        columns.append(mirrored[question](frozen, x) if flip else getattr(frozen, question)(x))
    return np.stack(columns, axis=-1)


def tensors(value: Distribution) -> dict[str, Tensor]:
    return {f.name: getattr(value, f.name) for f in fields(value) if isinstance(getattr(value, f.name), Tensor)}


def rebuilt(value: Distribution, parts: Iterable[Tensor], **changes: Any) -> Distribution:
    """``value`` with other tensors in its tensor fields."""
    return replace(value, **dict(zip(tensors(value), parts, strict=True)), **changes)


def cast(value: Distribution, dtype: torch.dtype) -> Distribution:
    return rebuilt(value, (part.to(dtype) for part in tensors(value).values()))


def with_gradients(value: Distribution) -> tuple[Distribution, list[Tensor]]:
    leaves = [part.clone().requires_grad_() for part in tensors(value).values()]
    return rebuilt(value, leaves), leaves


def near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Within ``tolerance`` of the expected value or of 1, whichever is larger."""
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def typical(case: Case) -> Tensor:
    return case.value.icdf(torch.full((case.cells,), 0.4, dtype=torch.float64))


@every
def test_total_mass_is_one(case: Case) -> None:
    if case.value.discrete:
        total = case.value.cell_log_prob(case.levels()).exp().sum(0)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-11)
        return
    for i in range(case.cells):
        total, _ = integrate.quad(
            lambda x, i=i: case.value.cell_log_prob(tensor(x))[i].exp().item(),
            *case.support,
            points=[case.value.mean[i].item()],
            epsabs=1e-12,
            epsrel=1e-12,
        )
        assert total == pytest.approx(1, abs=1e-10)


@every
def test_log_prob_and_cdf_agree_with_scipy(case: Case) -> None:
    x = case.levels()
    log_prob = oracle(case, "logpmf" if case.value.discrete else "logpdf", x[:, 0].numpy())
    known = log_prob > -600  # below, SciPy's masses underflow
    np.testing.assert_allclose(case.value.cell_log_prob(x).numpy()[known], log_prob[known], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(case.value.cdf(x), oracle(case, "cdf", x[:, 0].numpy()), rtol=1e-10, atol=1e-13)


@every
def test_moments_agree_with_the_density(case: Case) -> None:
    if case.value.discrete:
        x = case.levels()
        weight = case.value.cell_log_prob(x).exp()
    else:  # Gauss–Legendre on 64 panels
        nodes, node_weights = np.polynomial.legendre.leggauss(32)
        edges = np.linspace(case.support[0], case.support[-1], 65)
        half = np.diff(edges)[:, None] / 2
        x = torch.from_numpy((edges[:-1, None] + half * (1 + nodes)).reshape(-1, 1))
        weight = case.value.cell_log_prob(x).exp() * torch.from_numpy((half * node_weights).reshape(-1, 1))
    mean = (weight * x).sum(0)
    torch.testing.assert_close(case.value.mean, mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(case.value.variance, (weight * (x - mean).square()).sum(0), rtol=1e-10, atol=1e-12)


@every
def test_cdf_outside_the_support(case: Case) -> None:
    if case.value.discrete or case.name == "continuous Bernoulli":
        low, high = float(case.support[0]), float(case.support[-1])
        np.testing.assert_array_equal(case.value.cdf(tensor(low - 0.5)), 0)
        np.testing.assert_allclose(case.value.cdf(tensor(high + 0.5)), 1, rtol=1e-12)
    if case.value.discrete:
        torch.testing.assert_close(case.value.cdf(tensor(1.7)), case.value.cdf(tensor(1.0)))


@every
def test_icdf_is_the_quantile(case: Case) -> None:
    u = Key(1).uniform((500, case.cells), dtype=torch.float64)
    x = case.value.icdf(u)
    if not case.value.discrete:
        torch.testing.assert_close(case.value.cdf(x), u, rtol=1e-11, atol=1e-11)
        return
    assert ((x == x.round()) & (x >= case.support[0]) & (x <= case.support[-1])).all()
    assert (case.value.cdf(x) >= u).all()
    assert (case.value.cdf(x - 1) < u).all()


@every
def test_unobserved_cells_add_nothing(case: Case) -> None:
    value, leaves = with_gradients(case.value)
    x = value.icdf(torch.full((case.cells,), 0.3, dtype=torch.float64)).detach()
    mask = torch.ones(case.cells, dtype=torch.bool)
    mask[1] = False
    holed = torch.where(mask, x, torch.nan).requires_grad_()
    result = value.log_prob(holed, mask)
    expected = value.cell_log_prob(x)[mask].sum()
    torch.testing.assert_close(result, expected, rtol=1e-14, atol=0)
    gradients = torch.autograd.grad(result, [holed, *leaves], allow_unused=True, materialize_grads=True)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all((gradient[1] == 0).all() for gradient in gradients)
    assert all((gradient[0] != 0).any() for gradient in gradients[1:])
    assert value.log_prob(holed, torch.zeros_like(mask)).item() == 0
    torch.testing.assert_close(value.log_prob(x, torch.ones_like(mask)), value.log_prob(x), rtol=0, atol=0)


@every
@pytest.mark.parametrize("event_dims", [0, 1, 2])
def test_log_prob_sums_over_the_event(case: Case, event_dims: int) -> None:
    event = (3, case.cells)[2 - event_dims :]
    parts = []
    for part in tensors(case.value).values():
        classes = part.shape[1:]
        parts.append((part if event_dims else part[0]).expand(5, 4, *event, *classes))
    value = rebuilt(case.value, parts, event_dims=event_dims)
    x = value.icdf(Key(2).uniform((4, *event), dtype=torch.float64))[0]
    assert x.shape == (4, *event)
    result = value.log_prob(x)
    assert result.shape == (5, 4)
    assert value.mean.shape == value.variance.shape == value.cdf(x).shape == (5, 4, *event)
    torch.testing.assert_close(result, value.cell_log_prob(x).reshape(5, 4, -1).sum(-1), rtol=1e-13, atol=0)


@every
def test_gradcheck(case: Case) -> None:
    x = typical(case)
    value, leaves = with_gradients(case.value)
    x.requires_grad_(not case.value.discrete)
    assert torch.autograd.gradcheck(lambda x, *parts: rebuilt(value, parts).log_prob(x), [x, *leaves])


@every
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own, on first use
def test_forward_mode_gives_the_same_derivative(case: Case) -> None:
    x = typical(case)
    value, leaves = with_gradients(case.value)
    directions = [Key(4).fold(i).normal(leaf.shape, dtype=leaf.dtype) for i, leaf in enumerate(leaves)]
    gradients = torch.autograd.grad(value.log_prob(x), leaves)
    expected = sum(((g * d).sum() for g, d in zip(gradients, directions, strict=True)), torch.zeros(()).double())
    plain = tuple(leaf.detach() for leaf in leaves)
    forward = torch.func.jvp(lambda *parts: rebuilt(value, parts).log_prob(x), plain, tuple(directions))[1]
    torch.testing.assert_close(forward, expected, rtol=1e-10, atol=1e-12)


@every
def test_single_precision_is_close(case: Case) -> None:
    """float32 against float64 at the same numbers, within 16 units in the last place; summed levels and slopes, 64."""
    single = cast(case.value, torch.float32)
    value, leaves = with_gradients(cast(single, torch.float64))
    x, last_place = typical(case).float(), torch.finfo(torch.float32).eps
    exact = value.log_prob(x.double())
    near(single.log_prob(x).double(), exact.detach(), 16 * last_place)
    near(single.mean.double(), value.mean.detach(), 64 * last_place)
    near(single.variance.double(), value.variance.detach(), 64 * last_place)
    single, leaves32 = with_gradients(single)
    ours, theirs = torch.autograd.grad(single.log_prob(x), leaves32), torch.autograd.grad(exact, leaves)
    for our, their in zip(ours, theirs, strict=True):
        near(our.double(), their, 64 * last_place)


@every
def test_extremes_are_finite_in_single_precision(case: Case) -> None:
    levels = {"normal": (-1e4, 0, 3), "categorical": (0, 1, 2), "negative binomial": (0, 1, 37, 1e5)}
    for extreme in case.extremes:
        for x in levels.get(case.name, (*case.support[[0, 1, -1]], *case.support[len(case.support) // 2 :][:1])):
            value, leaves = with_gradients(extreme)
            at = torch.tensor(float(x)).expand(value.mean.shape)
            cells = value.cell_log_prob(at)
            assert cells.dtype == torch.float32
            assert torch.isfinite(cells).all()
            exact = cast(extreme, torch.float64).cell_log_prob(at.double())
            torch.testing.assert_close(cells.detach().double(), exact, rtol=1e-6, atol=1e-5)
            gradients = torch.autograd.grad(cells.sum(), leaves)
            assert all(torch.isfinite(gradient).all() for gradient in gradients)


@every
def test_detach_cuts_the_graph_and_nothing_else(case: Case) -> None:
    value, _ = with_gradients(replace(case.value, event_dims=0))
    cut = value.detach()
    assert type(cut) is type(value)
    assert cut.event_dims == 0
    assert value.mean.requires_grad
    assert not cut.mean.requires_grad
    for name, part in tensors(value).items():
        torch.testing.assert_close(getattr(cut, name), part.detach(), rtol=0, atol=0)


@every
def test_compiles_to_one_graph(case: Case) -> None:
    x = typical(case)
    mask = torch.ones(case.cells, dtype=torch.bool)
    names = list(tensors(case.value))

    def log_prob(*parts: Tensor) -> Tensor:
        return replace(case.value, **dict(zip(names, parts, strict=True))).detach().log_prob(x, mask)

    compiled: Callable[..., Tensor] = torch.compile(log_prob, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*tensors(case.value).values()), case.value.log_prob(x), rtol=1e-14, atol=0)


# What is particular to one family.


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
