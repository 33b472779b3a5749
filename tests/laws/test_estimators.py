"""Gradient estimators: no value depends on them, hooks leave nothing behind, and what would be wrong is refused."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support import refused
from torch import Tensor

import vaelid as vd
from vaelid.cli import main
from vaelid.errors import InputTypeError
from vaelid.likelihoods import LearnedScale
from vaelid.model import VAE, Problem
from vaelid.objectives import ELBO, IWAE, STL, DReG, Objective, Pathwise, ScoreFunction, Warmup
from vaelid.random import Key
from vaelid.runs.config import ObjectiveConfig
from vaelid.types import Batch, Group, Trace

KEY, DOUBLE = Key(33), torch.float64


def gradient(model: VAE, value: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])


def name(objective: Any) -> str:
    return f"{type(objective).__name__}-{objective.gradient}-{'analytic' * getattr(objective, 'analytic_kl', False)}"


# -- values ------------------------------------------------------------------------------------------------------------

FAMILIES = [
    [ELBO(samples=3), ELBO(samples=3, gradient=STL()), ELBO(samples=3, gradient=ScoreFunction())],
    [ELBO(beta=Warmup(9), samples=3, gradient=g) for g in (Pathwise(), STL(), ScoreFunction())],
    [ELBO(samples=3, analytic_kl=False, gradient=g) for g in (Pathwise(), STL(), ScoreFunction())],
    [IWAE(samples=3), IWAE(samples=3, gradient=DReG()), IWAE(samples=3, gradient=ScoreFunction())],
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("graph", [True, False], ids=["training", "validation"])
def test_no_value_depends_on_the_estimator(ppca: Any, family: list[Objective], graph: bool) -> None:
    model = ppca.model(shift=0.3, stretch=1.4, scale=LearnedScale())
    with torch.set_grad_enabled(graph):
        problem = model.given(Batch(ppca.x, weight=torch.linspace(0.0, 3.0, 16, dtype=DOUBLE)))
        u = problem.noise(KEY, 3)
        first, *others = (objective(problem, u, 4) for objective in family)
    for other in others:
        assert torch.equal(other.surrogate, first.surrogate)
        assert torch.equal(other.bound, first.bound)
        assert all(torch.equal(term, first.terms[key]) for key, term in other.terms.items())
        assert other.terms.keys() == first.terms.keys()
        assert other.surrogate.requires_grad == graph
        assert not other.bound.requires_grad  # after hooks on z its gradient would be another


@pytest.mark.parametrize("objective", [each for family in FAMILIES for each in family[1:]], ids=name)
def test_weights_are_repetitions(ppca: Any, objective: Any) -> None:
    """The gradient of a row of weight 3 is that of three rows."""
    model, times = ppca.model(shift=0.3, stretch=1.4), torch.tensor([1, 3, 2])
    u = KEY.normal((3, 3, 2), dtype=DOUBLE)
    short = objective(model.given(Batch(ppca.x[:3], weight=times.double())), u, 0).surrogate
    rows = model.given(Batch(ppca.x[:3].repeat_interleave(times, 0)))
    long = objective(rows, u.repeat_interleave(times, 1), 0).surrogate
    assert (gradient(model, short) - gradient(model, long)).abs().max() < 1e-12


@dataclass(frozen=True, eq=False)
class Recorded:
    """A density that is read off a tensor (sample, batch)."""

    value: Tensor

    def log_prob(self, z: Tensor) -> Tensor:
        return self.value


class Fixed:
    """A problem with log-weights that are given, and log q a parameter."""

    def __init__(self, log_weight: Tensor) -> None:
        self.batch = Batch(torch.zeros(log_weight.shape[1], 1))
        self.score, self.log_weight = torch.zeros_like(log_weight).requires_grad_(), log_weight

    def trace(self, u: Tensor) -> Trace:
        posterior = Recorded(self.score)
        group = Group(u, posterior, posterior, torch.zeros_like(self.score), self.score)
        return Trace((group,), None, self.log_weight)


def test_heavy_weights_leave_the_score_finite() -> None:
    """L − L₋ₖ by running sums: one draw far above the rest, or far below, in single precision."""
    rows = torch.tensor([[0.0, 0.0], [-4e3, -1e4], [3e3, -1e4], [1.0, -2e4]])
    problem = Fixed(rows)
    IWAE(samples=4, gradient=ScoreFunction())(problem, torch.zeros(4, 2, 1), 0).surrogate.backward()
    w = rows.double()
    for k in range(4):
        others = torch.cat((w[:k], w[k + 1 :]))
        replaced = torch.cat((others, others.mean(0, keepdim=True)))
        expected = (w.logsumexp(0) - replaced.logsumexp(0) - w.softmax(0)[k]) / 2
        assert (problem.score.grad[k] - expected).abs().max() < 2e4 * torch.finfo(torch.float32).eps


# -- hooks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [each for family in FAMILIES for each in family[1:]], ids=name)
def test_nothing_is_left_behind(ppca: Any, objective: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second pass over the same problem has the same gradient, and z goes with its graph, without the collector."""
    model, seen, trace = ppca.model(shift=0.3, stretch=1.4), [], Problem.trace

    def recorded(self: Problem, u: Tensor) -> Trace:
        found = trace(self, u)
        seen.append(weakref.ref(found.groups[0].z))
        return found

    monkeypatch.setattr(Problem, "trace", recorded)
    problem, u = model.given(Batch(ppca.x)), KEY.normal((3, 16, 2), dtype=DOUBLE)
    gc.disable()
    try:
        found = []
        for _ in range(2):
            objective(problem, u, 0).surrogate.backward(retain_graph=True)
            found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
            model.zero_grad()
            assert seen[-1]() is None
    finally:
        gc.enable()
    assert torch.equal(*found)


@pytest.mark.parametrize("estimator", [STL(), DReG(), ScoreFunction()], ids=repr)
def test_a_fixed_posterior_needs_no_hook(ppca: Any, estimator: Any) -> None:
    """The decoder trains alone: every estimator of the ELBO, or of the IWAE, then has the pathwise gradient."""
    model = ppca.model(shift=0.3, stretch=1.4)
    model.posterior.requires_grad_(False)
    family = IWAE if estimator == DReG() else ELBO
    u, found = KEY.normal((3, 16, 2), dtype=DOUBLE), []
    for gradients in (Pathwise(), estimator):
        family(samples=3, gradient=gradients)(model.given(Batch(ppca.x)), u, 0).surrogate.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.likelihood.parameters()]))
        model.zero_grad()
    assert (found[0] - found[1]).abs().max() < 1e-12


@pytest.mark.parametrize("objective", [each for family in FAMILIES[::3] for each in family[1:]], ids=name)
def test_training_is_repeatable(ppca: Any, objective: Any) -> None:
    def trained() -> list[Tensor]:
        model = ppca.model(shift=0.5, stretch=2.0, scale=LearnedScale())
        split = vd.data.Split(np.arange(12), np.arange(12, 14), np.arange(14, 16))
        history = vd.fit(model, ppca.x.numpy(), objective=objective, split_rows=split, epochs=30, progress=False)
        assert history.rollbacks == []
        after.append(model.posterior.network.bias.detach())
        return [p.detach().clone() for p in model.parameters()]

    after: list[Tensor] = []
    first, second = trained(), trained()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(after[0], ppca.model(shift=0.5, stretch=2.0).posterior.network.bias)


# -- refusals and settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "match", "error"),
    [
        (lambda: IWAE(gradient=STL()), r"STL\(\) with the IWAE; expected .*unbiased.* DReG\(\) is to", InputTypeError),
        (lambda: ELBO(gradient=DReG()), r"DReG\(\) with the ELBO; expected .* STL\(\) is to", InputTypeError),
        (lambda: ELBO(gradient="stl"), r"'stl' with the ELBO; expected Pathwise\(\), STL\(\) or", InputTypeError),
        (lambda: IWAE(gradient=DReG), r"DReG'> with the IWAE; expected Pathwise\(\), DReG\(\) or", InputTypeError),
        (lambda: ELBO(gradient=ScoreFunction()), r"samples=1; expected 2 draws per row or more", ValueError),
        (lambda: IWAE(samples=1, gradient=ScoreFunction()), r"Raise samples, or use Pathwise", ValueError),
        (lambda: ELBO(free_bits=0.5, gradient=STL()), r"STL\(\) with free_bits=0.5; expected Pathwise", ValueError),
    ],
)
def test_refused_pairs(make: Any, match: str, error: type[Exception]) -> None:
    refused(match, make, error)


@pytest.mark.parametrize("objective", [each for family in FAMILIES for each in family], ids=name)
def test_settings_name_every_estimator(objective: Any) -> None:
    config = ObjectiveConfig.of(objective)
    if getattr(objective, "analytic_kl", True):
        assert config.build() == objective
    else:
        assert config.name == "own"


def test_an_estimator_of_the_users_own_has_no_name() -> None:
    @dataclass(frozen=True)
    class Own(vd.objectives.ELBOGradient):
        def elbo(self, outcome: Any, trace: Trace, beta: float, weight: Tensor | None) -> Any:
            return outcome

    assert ObjectiveConfig.of(ELBO(gradient=Own())).name == "own"


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (["objective.gradient=stl", "objective.name=iwae"], "STL() with the IWAE"),
        (["objective.gradient=dreg"], "DReG() with the ELBO"),
        (["objective.gradient=score-function"], "ScoreFunction() with samples=1"),
        (["objective.gradient=best"], "objective.gradient = 'best'; expected 'pathwise', 'stl', 'dreg' or"),
    ],
)
def test_command_line_refuses(settings: list[str], match: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", *(word for text in settings for word in ("--set", text))]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert match in err
    assert err.count("\n") == 1
