"""Every pair of choices that a user can make together, by a covering array; those that cannot be, by table."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from support import refused

import vaelid as vd
from vaelid import parts, recipes
from vaelid.errors import InputTypeError
from vaelid.objectives import ELBO, IWAE, STL, DReG, Objective, ScoreFunction

KEY, ROWS, LATENT = vd.Key(3), 12, 2
OBJECTIVES: dict[str, Objective] = {
    "elbo": ELBO(),
    "elbo-stl": ELBO(gradient=STL()),
    "elbo-score": ELBO(samples=2, gradient=ScoreFunction()),
    "iwae": IWAE(samples=3),
    "iwae-dreg": IWAE(samples=3, gradient=DReG()),
    "iwae-score": IWAE(samples=3, gradient=ScoreFunction()),
}
FACTORS: dict[str, list[Any]] = {
    "likelihood": list(recipes.LIKELIHOODS),
    "prior": list(recipes.PRIORS),
    "posterior": list(recipes.POSTERIORS),
    "objective": list(OBJECTIVES),
    "network": ["mlp", "residual"],
    "masked": [False, True],
    "context": [0, 2],
}
NORMAL = ("diagonal-normal", "full-normal")
PATHWISE = ("elbo", "iwae")

Row = dict[str, Any]


def allowed(row: Row) -> bool:
    """What the mathematics rules out: a VampPrior of flows, and log q at any z for a planar flow."""
    vamp = row.get("prior") == "vamp" and row.get("posterior", NORMAL[0]) not in NORMAL
    planar = row.get("posterior") == "planar" and row.get("objective", "elbo") not in PATHWISE
    return not vamp and not planar


def covering_array() -> list[Row]:
    """Rows in which every allowed pair of levels of two factors occurs, chosen greedily (Cohen et al. 1997)."""
    names = list(FACTORS)
    pairs = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x, y in itertools.product(FACTORS[a], FACTORS[b])
        if allowed({a: x, b: y})
    }
    missing, rows = sorted(pairs, key=str), []
    while missing:
        row = dict(missing[0])
        for name in names:
            if name not in row:
                levels = [level for level in FACTORS[name] if allowed(row | {name: level})]
                row[name] = max(levels, key=lambda level: covered(row | {name: level}, missing))
        missing = [pair for pair in missing if not set(pair) <= set(row.items())]
        rows.append(row)
    return rows


def covered(row: Row, missing: list[Any]) -> int:
    return sum(set(pair) <= set(row.items()) for pair in missing)


ROWS_OF_ARRAY = covering_array()


@functools.cache
def data(likelihood: str) -> np.ndarray:
    """Values that the likelihood gives mass to, (ROWS, 4)."""
    random = np.random.default_rng(7)
    match likelihood:
        case "bernoulli":
            return random.integers(0, 2, (ROWS, 4))
        case "continuous-bernoulli":
            return random.random((ROWS, 4))
        case "log-normal":
            return random.lognormal(size=(ROWS, 4))
        case name if name.startswith(("gaussian", "laplace", "student")):
            return random.normal(size=(ROWS, 4))
    return random.integers(0, 5, (ROWS, 4))


def build(row: Row) -> tuple[vd.VAE, vd.Batch]:
    x = data(row["likelihood"])
    model = recipes.vae(
        x,
        latent=LATENT,
        likelihood=row["likelihood"],
        prior=row["prior"],
        posterior=row["posterior"],
        components=3,
        network=row["network"],
        depth=1,
        context=row["context"],
    )
    mask = None if not row["masked"] else np.random.default_rng(1).random(x.shape) < 0.7
    context = KEY.fold("context").normal((ROWS, row["context"])).numpy() if row["context"] else None
    return model, model.batch(x, mask, context)


def name_of(row: Row) -> str:
    flags = [name for name in ("masked", "context") if row[name]]
    return "-".join([*(str(row[name]) for name in list(FACTORS)[:5]), *flags])


@pytest.mark.parametrize("row", ROWS_OF_ARRAY, ids=name_of)
def test_composition(row: Row) -> None:
    model, batch = build(row)
    objective = OBJECTIVES[row["objective"]]
    problem = model.given(batch)
    u = problem.noise(KEY.fold("u"), objective.samples)
    outcome = objective(problem, u, 0)
    outcome.surrogate.backward()
    assert outcome.bound.shape == (ROWS,)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), name
    with torch.no_grad():
        problem = model.given(batch)
        trace = problem.trace(u)
        z = trace.groups[0].z
        assert z.shape == (objective.samples, ROWS, LATENT)
        torch.testing.assert_close(problem.log_joint(z), trace.log_joint, rtol=1e-5, atol=1e-4)
        if row["posterior"] != "planar":
            torch.testing.assert_close(problem.noise_of(z), u, rtol=1e-3, atol=1e-3)
    scores = vd.evaluate(model, batch, samples=3)
    assert np.isfinite([scores.elbo.value, scores.iwae.value]).all()
    x = model.sample(2, KEY, None if batch.context is None else batch.context[:2])
    assert x.shape == (2, 4)
    assert parts.describe(parts.build(parts.describe(model))) == parts.describe(model)


def test_every_allowed_pair_is_covered() -> None:
    for a, b in itertools.combinations(FACTORS, 2):
        for x, y in itertools.product(FACTORS[a], FACTORS[b]):
            seen = any(row[a] == x and row[b] == y for row in ROWS_OF_ARRAY)
            assert seen == allowed({a: x, b: y})


@pytest.mark.parametrize("posterior", [name for name in recipes.POSTERIORS if name not in NORMAL])
def test_a_vamp_prior_of_anything_but_normals_is_refused(posterior: str) -> None:
    row = {name: levels[0] for name, levels in FACTORS.items()} | {"prior": "vamp", "posterior": posterior}
    refused("VampPrior over a posterior", lambda: build(row), InputTypeError)


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name not in PATHWISE])
def test_gradients_that_need_log_q_anywhere_are_refused_for_planar_flows(objective: str) -> None:
    row = {name: levels[0] for name, levels in FACTORS.items()} | {"posterior": "planar"}
    model, batch = build(row)
    problem = model.given(batch)
    chosen = OBJECTIVES[objective]
    u = problem.noise(KEY, chosen.samples)
    refused("Planar", lambda: chosen(problem, u, 0), InputTypeError)
