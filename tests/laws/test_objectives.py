"""Objectives: what is reported is the bound, what is differentiated is the surrogate."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vaelid.distributions import Normal
from vaelid.errors import InputError
from vaelid.likelihoods import LearnedScale
from vaelid.model import VAE, Problem
from vaelid.objectives import ELBO, IWAE, Objective, Outcome, Warmup
from vaelid.objectives.elbo import kl_per_dimension
from vaelid.random import Key
from vaelid.types import Batch

KEY = Key(21)
WEIGHT = torch.linspace(0.0, 3.0, 16, dtype=torch.float64)


@pytest.fixture
def model(ppca: Any) -> VAE:
    """Not at an optimum, q not exact."""
    return ppca.model(shift=0.3, stretch=1.4, scale=LearnedScale())


@pytest.fixture
def problem(ppca: Any, model: VAE) -> Problem:
    return model.given(Batch(ppca.x))


@pytest.fixture
def weighted(ppca: Any, model: VAE) -> Problem:
    return model.given(Batch(ppca.x, weight=WEIGHT))


def equal(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-12)


# -- β and warm-up -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 1000])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.1, 0.3), (4.0, 1.0), (1.0, 1.0), (0.9, 0.2)])
def test_warmup_reaches_its_end_exactly(steps: int, start: float, end: float) -> None:
    beta = Warmup(steps, start, end)
    values = [beta(step) for step in range(steps + 50)]
    assert values[steps - 1 :] == [end] * 51
    assert beta(10**9) == end
    for step in range(steps):
        assert values[step] == pytest.approx(start + (end - start) * (step + 1) / steps, rel=1e-12)
        assert min(start, end) <= values[step] <= max(start, end)
    rises = [(b - a) * math.copysign(1, end - start) >= 0 for a, b in itertools.pairwise(values)]
    assert all(rises)
    assert ELBO(beta=beta).settled_at == steps - 1
    if start != end and steps > 1:
        assert values[steps - 2] != end


def test_without_warmup_an_objective_is_settled() -> None:
    assert ELBO().settled_at == ELBO(beta=4.0).settled_at == IWAE().settled_at == 0


@pytest.mark.parametrize("step", [0, 4, 9, 10, 500])
def test_surrogate_follows_beta(problem: Problem, step: int) -> None:
    u = problem.noise(KEY, 3)
    plain = ELBO(samples=3)(problem, u, step)
    warm = ELBO(beta=Warmup(10, 0.0, 2.0), samples=3)(problem, u, step)
    beta = 2.0 * min(1.0, (step + 1) / 10)
    expected = (plain.terms["reconstruction"] - beta * plain.terms["rate"]).mean()
    assert equal(warm.surrogate, expected)


# -- the bound and the surrogate ---------------------------------------------------------------------------------------

ELBOS = {
    "plain": ELBO(samples=4),
    "Monte Carlo": ELBO(samples=4, analytic_kl=False),
    "β": ELBO(beta=7.0, samples=4),
    "β of the step": ELBO(beta=lambda step: 0.5 * step, samples=4),
    "free bits": ELBO(free_bits=0.7, samples=4),
    "both": ELBO(beta=0.2, free_bits=5.0, samples=4),
}


@pytest.mark.parametrize("which", ELBOS)
def test_reported_bound_ignores_beta_and_free_bits(problem: Problem, which: str) -> None:
    u, objective = problem.noise(KEY, 4), ELBOS[which]
    reference = ELBO(samples=4, analytic_kl=objective.analytic_kl)(problem, u, 3)
    found = objective(problem, u, 3)
    assert torch.equal(found.bound, reference.bound)
    assert torch.equal(found.terms["rate"], reference.terms["rate"])
    assert torch.equal(found.terms["reconstruction"], reference.terms["reconstruction"])
    assert equal(found.bound, found.terms["reconstruction"] - found.terms["rate"])
    assert found.bound.shape == (16,)
    assert found.surrogate.shape == ()


@pytest.mark.parametrize("objective", [ELBOS["plain"], ELBOS["Monte Carlo"], IWAE(samples=4)], ids=repr)
def test_plain_surrogate_is_the_mean_bound(problem: Problem, weighted: Problem, objective: Objective) -> None:
    u = problem.noise(KEY, 4)
    outcome = objective(problem, u, 0)
    assert equal(outcome.surrogate, outcome.bound.mean())
    other = objective(weighted, u, 0)
    assert torch.equal(other.bound, outcome.bound)  # per row, a bound knows no weights
    assert equal(other.surrogate, (WEIGHT * other.bound).sum() / WEIGHT.sum())


def test_equal_weights_change_nothing(ppca: Any, model: VAE, problem: Problem) -> None:
    u = problem.noise(KEY, 4)
    even = model.given(Batch(ppca.x, weight=torch.full((16,), 0.37, dtype=torch.float64)))
    for objective in (*ELBOS.values(), IWAE(samples=4)):
        assert equal(objective(even, u, 3).surrogate, objective(problem, u, 3).surrogate)


def test_weights_are_repetitions(ppca: Any, model: VAE) -> None:
    """A row of weight 3 counts like three rows."""
    times = torch.tensor([1, 3, 2])
    rows = Batch(ppca.x[:3])
    u = KEY.normal((4, 3, 2), dtype=torch.float64)
    long = Batch(ppca.x[:3].repeat_interleave(times, 0))
    for objective in (*ELBOS.values(), IWAE(samples=4)):
        short = objective(model.given(dataclasses.replace(rows, weight=times.double())), u, 3)
        repeated = objective(model.given(long), u.repeat_interleave(times, 1), 3)
        assert equal(short.surrogate, repeated.surrogate)


@pytest.mark.parametrize("analytic", [True, False])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
@pytest.mark.parametrize("bits", [0.0, 0.3, 0.8, 1e3])
def test_free_bits_by_hand(ppca: Any, model: VAE, weight: Tensor | None, bits: float, analytic: bool) -> None:
    """β Σ_j max(λ, mean over rows of KL_j), the mean weighted where rows are."""
    problem = model.given(Batch(ppca.x, weight=weight))
    u = problem.noise(KEY, 4)
    w = torch.ones(16, dtype=torch.float64) if weight is None else weight
    trace = problem.trace(u)
    cells = ppca.kl(model)
    if not analytic:
        group = trace.groups[0]
        cells = (problem.start.cell_log_prob(group.z) - problem.prior.cell_log_prob(group.z)).mean(0)
    per_dimension = (w[:, None] * cells).sum(0) / w.sum()
    assert per_dimension.shape == (2,)
    penalty = sum(max(bits, kl) if bits else kl for kl in per_dimension.tolist())
    expected = ((w * trace.log_likelihood.mean(0)).sum() / w.sum()).item() - 1.5 * penalty
    found = ELBO(beta=1.5, free_bits=bits, samples=4, analytic_kl=analytic)(problem, u, 0)
    assert found.surrogate.item() == pytest.approx(expected, abs=1e-10)


def test_free_bits_stop_the_gradient(problem: Problem, model: VAE) -> None:
    """Below λ nothing pulls on q but the reconstruction."""
    u = problem.noise(KEY, 4)
    ELBO(free_bits=1e3, samples=4)(problem, u, 0).surrogate.backward(retain_graph=True)
    with_bits = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    problem.trace(u).log_likelihood.mean().backward()
    assert all(equal(a, p.grad) for a, p in zip(with_bits, model.parameters(), strict=True))


# -- relations between objectives --------------------------------------------------------------------------------------


def test_one_sample_iwae_is_the_monte_carlo_elbo(problem: Problem, weighted: Problem, model: VAE) -> None:
    for which in (problem, weighted):
        u = which.noise(KEY, 1)
        a, b = IWAE(samples=1)(which, u, 0), ELBO(samples=1, analytic_kl=False)(which, u, 0)
        assert equal(a.bound, b.bound)
        gradients = []
        for outcome in (a, b):
            model.zero_grad()
            outcome.surrogate.backward(retain_graph=True)
            gradients.append([p.grad.clone() for p in model.parameters()])
        assert all(equal(x, y) for x, y in zip(*gradients, strict=True))


def test_iwae_by_hand(problem: Problem) -> None:
    u = problem.noise(KEY, 9)
    weights = problem.trace(u).log_weight.exp()
    outcome = IWAE(samples=9)(problem, u, 0)
    assert equal(outcome.bound, weights.mean(0).log())
    assert outcome.terms.keys() == {"reconstruction", "rate"}
    assert equal(outcome.terms["rate"], ELBO(samples=9)(problem, u, 0).terms["rate"])


def test_bounds_are_below_the_evidence(ppca: Any, problem: Problem) -> None:
    """In expectation: averages over 2000 replicates lie below log p(x), by more than their error allows."""
    truth = ppca.log_evidence()
    u = problem.noise(KEY, 2000)
    single = problem.trace(u).log_weight.detach()
    bounds = {
        "elbo": single,
        "iwae": single.view(400, 5, 16).logsumexp(1) - math.log(5),
    }
    for draws in bounds.values():
        se = draws.std(0) / math.sqrt(len(draws))
        assert (draws.mean(0) < truth + 4 * se).all()
        assert (draws.mean() + 4 * draws.std() / math.sqrt(draws.numel())) < truth.mean()
    assert (ppca.elbo(problem.model) < truth).all()


def test_kl_without_closed_form_is_one_column_per_group(problem: Problem) -> None:
    """Where q or p is not a product over dimensions, log q − log p stays whole."""
    trace = problem.trace(problem.noise(KEY, 6))
    group = trace.groups[0]

    class Opaque:
        pass

    hidden = dataclasses.replace(trace, groups=(dataclasses.replace(group, prior=Opaque()), group))
    columns = kl_per_dimension(hidden)
    assert columns.shape == (16, 1 + 2)
    assert equal(columns[:, 0], (group.log_posterior - group.log_prior).mean(0))
    assert isinstance(group.prior, Normal)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradient(model: VAE, value: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])


@pytest.mark.parametrize("analytic", [True, False])
def test_pathwise_gradient_is_unbiased(ppca: Any, model: VAE, analytic: bool) -> None:
    """Mean over 2000 one-sample gradients against the gradient of the closed form, every parameter."""
    problem, objective = model.given(Batch(ppca.x)), ELBO(samples=1, analytic_kl=analytic)
    exact = gradient(model, ppca.elbo(model).mean())
    draws = []
    for i in range(2000):
        problem = model.given(Batch(ppca.x))
        u = KEY.fold(i).normal((1, 16, 2), dtype=torch.float64)
        draws.append(gradient(model, objective(problem, u, 0).surrogate))
    stacked = torch.stack(draws)
    se = stacked.std(0) / math.sqrt(len(draws))
    assert ((stacked.mean(0) - exact).abs() < 4 * se + 1e-12).all()
    assert (se < 0.2 * (1 + exact.abs())).all()  # the comparison can tell
    if analytic:  # and would notice a missing term
        without_kl = gradient(model, ppca.reconstruction(model).mean())
        assert ((stacked.mean(0) - without_kl).abs() > 4 * se + 1e-12).any()


@pytest.mark.parametrize("objective", [ELBO(samples=5), ELBO(samples=5, analytic_kl=False), IWAE(samples=5)], ids=repr)
def test_gradient_is_that_of_the_bound_at_fixed_noise(ppca: Any, model: VAE, objective: Objective) -> None:
    """Central differences along a random direction of all parameters."""
    u = KEY.normal((5, 16, 2), dtype=torch.float64)
    found = gradient(model, objective(model.given(Batch(ppca.x)), u, 0).surrogate)
    direction = KEY.fold("direction").normal((len(found),), dtype=torch.float64)
    vector = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    values, step = [], 1e-5
    for sign in (1, -1):
        torch.nn.utils.vector_to_parameters(vector + sign * step * direction, model.parameters())
        values.append(float(objective(model.given(Batch(ppca.x)), u, 0).bound.mean().detach()))
    slope = (values[0] - values[1]) / (2 * step)
    assert float(found @ direction) == pytest.approx(slope, rel=1e-6)


def test_exact_posterior_has_no_gradient(ppca: Any) -> None:
    """At the exact posterior the ELBO is at its maximum over q: its closed form is flat in the encoder."""
    model = ppca.model()
    grads = torch.autograd.grad(ppca.elbo(model).mean(), list(model.posterior.parameters()))
    assert all(g.abs().max() < 1e-12 for g in grads)


def test_outcome_is_pure(problem: Problem) -> None:
    """Same problem, noise and step, same outcome, for every objective."""
    u = problem.noise(KEY, 4)
    for objective in (*ELBOS.values(), IWAE(samples=4)):
        first, second = objective(problem, u, 2), objective(problem, u, 2)
        assert isinstance(first, Outcome)
        assert torch.equal(first.surrogate, second.surrogate)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ELBO(samples=0), "samples is 0"),
        (lambda: ELBO(beta=-1.0), "beta is -1.0"),
        (lambda: ELBO(beta=math.nan), "beta is nan"),
        (lambda: ELBO(free_bits=-0.1), "free_bits is -0.1"),
        (lambda: IWAE(samples=0), "samples is 0"),
        (lambda: IWAE(samples=2.5), "samples is 2.5"),
        (lambda: Warmup(0), "warm-up steps is 0"),
        (lambda: Warmup(10, start=-1.0), "start is -1.0"),
        (lambda: Warmup(10, end=math.inf), "end is inf"),
    ],
)
def test_refusals(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
