"""Every prior and every posterior, each alone and in pairs: the seam, the verbs, saving, context, refusals."""

from __future__ import annotations

import copy
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from support import refused
from torch import Tensor, nn

import vaelid as vd
from vaelid import likelihoods, networks, parts, posteriors, priors
from vaelid.distributions import Normal
from vaelid.errors import InputError, InputTypeError
from vaelid.evidence import importance
from vaelid.model import VAE, evaluating
from vaelid.objectives import ELBO, IWAE
from vaelid.objectives.elbo import kl_per_dimension
from vaelid.posteriors import Posterior
from vaelid.priors import Prior
from vaelid.random import Key
from vaelid.types import Batch

KEY, ROWS, CELLS, LATENT = Key(31), 5, 6, 3

PRIORS: dict[str, Callable[[int, int], Prior]] = {  # name → constructor from (latent, covariates)
    "standard": lambda d, c: priors.StandardNormal(d),
    "mixture": lambda d, c: priors.Mixture(d, 4),
    "vamp": lambda d, c: priors.VampPrior(d, CELLS, 4),
    "affine": lambda d, c: priors.Flow(d, transforms=2, hidden=(8,), context=c),
    "spline": lambda d, c: priors.Flow(d, transforms=2, hidden=(8,), bins=4, context=c),
}
POSTERIORS: dict[str, tuple[Callable[[int], int], Callable[[nn.Module, int], Posterior]]] = {
    # name → outputs of the encoder, constructor
    "diagonal": (lambda d: 2 * d, lambda net, d: posteriors.DiagonalNormal(net)),
    "full": (lambda d: d + d * (d + 1) // 2, posteriors.FullNormal),
    "planar": (lambda d: 2 * d + 3 * (2 * d + 1), lambda net, d: posteriors.Planar(net, d, layers=3)),
    "iaf": (lambda d: 2 * d + 5, lambda net, d: posteriors.Flow(net, d, hidden=(8,), features=5)),
    "spline": (lambda d: 2 * d + 5, lambda net, d: posteriors.Flow(net, d, hidden=(8,), features=5, bins=4)),
    "mixture": (lambda d: 2 * (2 * d + 1), lambda net, d: posteriors.Mixture(net, d, components=2)),
}
NORMAL = ("diagonal", "full")
PAIRS = [
    *((prior, "diagonal", "") for prior in PRIORS),
    *(("standard", posterior, "") for posterior in POSTERIORS if posterior != "diagonal"),
    ("vamp", "full", "mask context"),
    ("vamp", "diagonal", "context"),
    ("mixture", "mixture", "context"),
    ("affine", "planar", "context"),
    ("spline", "iaf", "mask context"),
    ("affine", "spline", "mask"),
    ("mixture", "planar", "mask"),
]


@dataclass(frozen=True, eq=False)
class Case:
    prior: str
    posterior: str
    model: VAE
    batch: Batch

    @property
    def invertible(self) -> bool:
        return self.posterior != "planar"


def bits(rows: int, cells: int = CELLS) -> Tensor:
    return (KEY.fold("x").uniform((rows, cells)) < 0.4).float()


def make(prior: str, posterior: str, extras: str = "", d: int = LATENT) -> Case:
    torch.manual_seed(2)
    c = 2 if "context" in extras else 0
    outputs, build = POSTERIORS[posterior]
    model = VAE(
        PRIORS[prior](d, c),
        likelihoods.Bernoulli(networks.MLP(d, CELLS, (8,), context=c)),
        build(networks.MLP(CELLS, outputs(d), (8,), context=c), d),
    )
    with torch.no_grad():  # off the initial values, at which flows are the identity
        for index, p in enumerate(model.parameters()):
            p.add_(0.2 * KEY.fold("move", index).normal(tuple(p.shape)))
    mask = KEY.fold("mask").uniform((ROWS, CELLS)) < 0.6 if "mask" in extras else None
    context = KEY.fold("context").normal((ROWS, c)) if c else None
    return Case(prior, posterior, model, Batch(bits(ROWS), mask, context, torch.arange(ROWS) + 7))


@pytest.fixture(params=PAIRS, ids=lambda p: "-".join(part.replace(" ", "-") for part in p if part))
def case(request: pytest.FixtureRequest) -> Case:
    return make(*request.param)


# -- the seam ----------------------------------------------------------------------------------------------------------


def test_shapes_and_the_parts_of_the_weight(case: Case) -> None:
    problem = case.model.given(case.batch)
    trace = problem.trace(problem.noise(KEY, 4))
    group = trace.groups[0]
    assert group.z.shape == (4, ROWS, LATENT)
    assert trace.log_weight.shape == group.log_prior.shape == group.log_posterior.shape == (4, ROWS)
    assert trace.log_weight.isfinite().all()
    assert torch.allclose(problem.log_joint(group.z), trace.log_joint)
    if case.invertible:
        assert torch.allclose(problem.start.log_prob(group.z), group.log_posterior, atol=1e-3)


@pytest.mark.parametrize("objective", [ELBO(samples=2), IWAE(samples=2)], ids=["elbo", "iwae"])
def test_gradients_are_finite_and_reach_every_parameter(case: Case, objective: ELBO | IWAE) -> None:
    problem = case.model.given(case.batch)
    objective(problem, problem.noise(KEY, 2), 0).surrogate.backward()
    for name, p in case.model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0, name


def test_noise_of_inverts_trace_from_posterior_and_prior(case: Case) -> None:
    """Up to rounding times the condition of the map, which is below 1e5 here."""
    model = copy.deepcopy(case.model).double()
    for start in ("posterior", "prior"):
        problem = model.given(case.batch, start)
        u = problem.noise(KEY, 4)
        z = problem.trace(u).groups[0].z
        if start == "posterior" and not case.invertible:
            refused("under a planar posterior", lambda p=problem, z=z: p.noise_of(z), InputTypeError)
        else:
            assert (problem.noise_of(z) - u).abs().max() < 1e-10


def test_precisions_agree(case: Case) -> None:
    """float32 differs from float64 by its roundings, times the condition of the transports."""
    single, double = case.model, copy.deepcopy(case.model).double()
    u = KEY.fold("u").normal((4, ROWS, LATENT))
    with evaluating(single), evaluating(double), torch.no_grad():
        found, exact = single.given(case.batch).trace(u), double.given(case.batch).trace(u.double())
    assert torch.allclose(found.log_weight.double(), exact.log_weight, rtol=1e-4, atol=1e-4)


def test_rate_of_a_full_normal_is_that_of_its_draws() -> None:
    """The closed form in objective and evidence, against the mean of log q − log p, 4 standard errors."""
    this = make("standard", "full")
    with evaluating(this.model), torch.no_grad():
        problem = this.model.given(this.batch)
        trace = problem.trace(problem.noise(KEY, 4000))
        draws = trace.groups[0].log_posterior - trace.groups[0].log_prior
        closed = kl_per_dimension(trace)
    assert closed.shape == (ROWS, LATENT)
    assert torch.equal(closed, importance(this.model, this.batch, 2, KEY).kl.float())
    assert ((closed.sum(-1) - draws.mean(0)).abs() < 4 * draws.std(0) / 4000**0.5).all()


def test_rows_do_not_see_each_other(case: Case) -> None:
    model = copy.deepcopy(case.model).double()
    with evaluating(model), torch.no_grad():
        whole, part = model.given(case.batch), model.given(case.batch.take(torch.tensor([3, 1])))
        u = KEY.fold("u").normal((4, ROWS, LATENT), dtype=torch.float64)
        assert torch.allclose(whole.trace(u).log_weight[:, [3, 1]], part.trace(u[:, [3, 1]]).log_weight, atol=1e-10)


def test_detached_posterior_leaves_only_z(case: Case) -> None:
    """What STL and DReG differentiate: log q at z with its parameters held."""
    q = case.model.given(case.batch).start
    z, _ = q.push(KEY.fold("u").normal((2, ROWS, LATENT)))
    if case.invertible:
        z = z.detach().requires_grad_()
        q.detach().log_prob(z).sum().backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()
        assert all(p.grad is None for p in case.model.parameters())
    else:
        refused("Take posteriors.Flow", lambda: q.detach().log_prob(z), InputTypeError)


# -- verbs and saving --------------------------------------------------------------------------------------------------


def test_encode_sample_and_evaluate(case: Case) -> None:
    model, batch = case.model, case.batch
    assert model.encode(batch).shape == (ROWS, LATENT)
    assert torch.equal(model.encode(batch), model.encode(batch))
    assert model.reconstruct(batch).shape == (ROWS, CELLS)
    context = None if batch.context is None else batch.context[:1].expand(20, -1)
    drawn = model.sample(20, KEY, context)
    assert torch.isin(drawn, torch.tensor([0.0, 1.0])).all()
    assert torch.equal(drawn[:7], model.sample(7, KEY, None if context is None else context[:7]))
    found = importance(model, batch, 20, KEY)
    assert found.log_evidence.isfinite().all()
    assert (found.kl is not None) == (case.prior == "standard" and case.posterior in NORMAL)
    if found.kl is None:  # then both come from the same draws
        assert (found.log_evidence > found.elbo).all()
    else:
        assert found.kl.shape == (ROWS, LATENT)
    assert vd.evaluate(model, batch, samples=20).elbo[0] == pytest.approx(float(found.elbo.mean()), abs=2)


def test_parts_build_the_same_model(case: Case) -> None:
    """Through TOML and a state dict."""
    table = tomllib.loads(tomli_w.dumps(parts.describe(case.model)))
    again = parts.build(table)
    assert isinstance(again, VAE)
    assert parts.describe(again) == parts.describe(case.model)
    again.load_state_dict(case.model.state_dict())
    u = KEY.fold("u").normal((2, ROWS, LATENT))
    weights = [model.given(case.batch).trace(u).log_weight for model in (case.model, again)]
    assert torch.equal(*weights)


@pytest.mark.parametrize("pair", [("vamp", "full"), ("affine", "spline"), ("mixture", "mixture")], ids="-".join)
def test_a_run_saves_and_loads(pair: tuple[str, str], tmp_path: Any) -> None:
    model = make(*pair).model
    vd.fit(model, bits(64).numpy(), epochs=1, out=tmp_path / "run", progress=False)
    loaded = vd.load(tmp_path / "run")
    batch = Batch(bits(ROWS))
    assert torch.equal(loaded.encode(batch), model.encode(batch))
    assert torch.equal(loaded.sample(5, KEY), model.sample(5, KEY))


@pytest.mark.parametrize(
    "pair",
    [*((prior, "diagonal") for prior in PRIORS), *(("standard", posterior) for posterior in POSTERIORS)],
    ids="-".join,
)
def test_a_short_fit_improves(pair: tuple[str, str]) -> None:
    """The ELBO per row, by more than 4 paired standard errors."""
    x = bits(256).numpy()
    x[:, 3:] = x[:, :3]  # something to find
    model = make(*pair).model
    before = importance(model, x, 8, KEY).elbo
    vd.fit(model, x, epochs=20, settings=vd.Settings(batch_size=64, warmup_steps=10), progress=False)
    gain = importance(model, x, 8, KEY).elbo - before
    assert gain.mean() > 4 * gain.std() / len(x) ** 0.5


@pytest.mark.parametrize("pair", [("vamp", "diagonal"), ("spline", "iaf"), ("mixture", "full")], ids="-".join)
def test_one_latent(pair: tuple[str, str]) -> None:
    """No dimension to depend on another, no entry below the diagonal."""
    this = make(*pair, d=1)
    problem = this.model.given(this.batch)
    u = problem.noise(KEY, 3)
    assert torch.allclose(problem.noise_of(problem.trace(u).groups[0].z), u, atol=1e-4)
    assert this.model.sample(3, KEY).shape == (3, CELLS)


# -- where training starts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriors_start_near_the_diagonal_normal(name: str) -> None:
    """z = T(u) lies near μ + σ u, the best diagonal affine map of the same noise."""
    outputs, build = POSTERIORS[name]
    q = build(networks.MLP(CELLS, outputs(8), (32,)), 8)(bits(ROWS))
    u = KEY.fold("u").normal((2000, ROWS, 8))
    z, _ = q.push(u)
    slope = ((z - z.mean(0)) * u).mean(0) / u.square().mean(0)
    rest = (z - z.mean(0) - slope * (u - u.mean(0))).square().mean(0) / z.var(0)
    assert rest.max() < 0.15


@pytest.mark.parametrize("name", ["affine", "spline"])
def test_flow_priors_start_as_the_standard_normal(name: str) -> None:
    z = KEY.fold("z").normal((100, 1, LATENT))
    flow, normal = PRIORS[name](LATENT, 0)(), priors.StandardNormal(LATENT)()
    assert torch.allclose(flow.log_prob(z), normal.log_prob(z), atol=1e-5)


def test_mixture_prior_starts_near_the_standard_normal() -> None:
    p = priors.Mixture(LATENT, 200)()
    z, _ = p.push(KEY.fold("z").normal((2000, 1, LATENT)))
    assert z.mean(0).abs().max() < 0.2
    assert (z.var(0) - 1).abs().max() < 0.3
    assert p.components.loc.std() > 0.4


# -- VampPrior ---------------------------------------------------------------------------------------------------------


def test_vamp_prior_is_the_mean_of_q_over_the_pseudo_inputs() -> None:
    this = make("vamp", "diagonal")
    z = KEY.fold("z").normal((2, ROWS, LATENT))
    with torch.no_grad():
        q = this.model.posterior(this.model.prior.pseudo_inputs)
        each = torch.stack([Normal(loc, scale).log_prob(z) for loc, scale in zip(q.loc, q.scale, strict=True)])
        expected = each.logsumexp(0) - math.log(4)
        assert torch.allclose(this.model.prior_given().log_prob(z), expected, atol=1e-5)


@pytest.mark.parametrize("posterior", NORMAL)
def test_vamp_prior_meets_every_row_with_its_own_context(posterior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    this = make("vamp", posterior, "context")
    context = this.batch.context
    assert context is not None
    z = KEY.fold("z").normal((2, ROWS, LATENT))
    with torch.no_grad():
        found = this.model.prior_given(context).log_prob(z)
        alone = [this.model.prior_given(context[i : i + 1]).log_prob(z[:, i : i + 1]) for i in range(ROWS)]
        assert torch.allclose(found, torch.cat(alone, 1), atol=1e-5)
        assert not torch.allclose(found, this.model.prior_given(context.flip(0)).log_prob(z), atol=1e-2)
        monkeypatch.setattr(priors, "_ENCODINGS", 9)  # two rows per pass
        assert torch.allclose(this.model.prior_given(context).log_prob(z), found, atol=1e-5)


def test_vamp_prior_shares_the_encoder_and_does_not_own_it() -> None:
    this = make("vamp", "diagonal")
    owned = {name for name, _ in this.model.prior.named_parameters()}
    assert owned == {"pseudo_inputs"}
    z = KEY.fold("z").normal((2, ROWS, LATENT))
    this.model.prior_given().log_prob(z).sum().backward()
    assert this.model.prior.pseudo_inputs.grad.abs().max() > 0
    for p in this.model.posterior.parameters():
        assert p.grad.abs().max() > 0


def test_vamp_prior_adapts_to_evenly_spaced_rows() -> None:
    prior, rows = priors.VampPrior(LATENT, (2, 3), 3), KEY.normal((9, 2, 3))
    assert prior.adapt(rows) is prior
    assert torch.equal(prior.pseudo_inputs, rows[[0, 4, 8]])
    prior.adapt(rows[:3].numpy())
    assert torch.equal(prior.pseudo_inputs, rows[:3])


# -- what does not fit -------------------------------------------------------------------------------------------------

FLOW = priors.Flow(LATENT, context=2)
VAMP = priors.VampPrior(LATENT, CELLS, 4)


def encoder(outputs: int) -> nn.Module:
    return nn.Linear(CELLS, outputs)


REFUSED: dict[str, tuple[Callable[[], Any], str, type[InputError]]] = {
    "no latents": (lambda: priors.Mixture(0, 3), "the latent size is 0", InputError),
    "no components": (lambda: priors.Mixture(2, 0), "the number of components is 0", InputError),
    "half a component": (lambda: priors.VampPrior(2, 6, 1.5), "the number of components is 1.5", InputTypeError),  # type: ignore[arg-type]
    "no transforms": (lambda: priors.Flow(2, transforms=0), "the number of transforms is 0", InputError),
    "one bin": (
        lambda: priors.Flow(2, bins=1),
        "the number of bins is 1; expected a whole number of at least 2",
        InputError,
    ),
    "hidden width 0": (lambda: priors.Flow(2, hidden=(8, 0)), "a hidden width is 0", InputError),
    "negative context": (lambda: priors.Flow(2, context=-1), "the number of covariates is -1", InputError),
    "no layers": (lambda: posteriors.Planar(encoder(4), 2, 0), "the number of planar layers is 0", InputError),
    "no features": (lambda: posteriors.Flow(encoder(4), 2, features=0), "the number of features is 0", InputError),
    "flow prior without its context": (
        lambda: FLOW(),
        "no context; expected 2, as the prior was built for",
        InputError,
    ),
    "flow prior with another context": (
        lambda: FLOW(torch.zeros(4, 3)),
        "a context of 3 covariates; expected 2, as the prior was built for",
        InputError,
    ),
    "vamp prior alone": (
        lambda: VAMP(),
        "a VampPrior without a posterior; expected the model's own encoder",
        InputError,
    ),
    "vamp prior over a planar posterior": (
        lambda: VAMP(None, POSTERIORS["planar"][1](encoder(27), LATENT)),
        "over a posterior that returns a Planar; expected one normal per row. Take posteriors.DiagonalNormal or",
        InputTypeError,
    ),
    "vamp prior over a mixture": (
        lambda: VAMP(None, POSTERIORS["mixture"][1](encoder(14), LATENT)),
        "returns a MixtureOfNormals",
        InputTypeError,
    ),
    "vamp prior, other latent size": (
        lambda: VAMP(None, posteriors.DiagonalNormal(encoder(4))),
        "the posterior has 2 latents; expected 3, as the prior has",
        InputError,
    ),
    "fewer rows than pseudo-inputs": (lambda: VAMP.adapt(np.ones((3, CELLS))), "features has 3 rows", InputError),
    "pseudo-inputs of another shape": (
        lambda: VAMP.adapt(np.ones((9, CELLS + 1))),
        r"features of shape \(7,\); expected \(6,\), as the pseudo-inputs have",
        InputError,
    ),
    **{
        f"{name} posterior over another encoder": (
            lambda build=build: build(encoder(4), LATENT)(bits(ROWS)),
            rf"shape \(5, 4\); expected \(5, {outputs(LATENT)}\): .* Give the encoder {outputs(LATENT)} outputs",
            InputError,
        )
        for name, (outputs, build) in POSTERIORS.items()
        if name != "diagonal"
    },
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what: str) -> None:
    call, message, error = REFUSED[what]
    refused(message, call, error)


def test_a_model_that_does_not_fit_is_refused_by_its_boxes() -> None:
    """Through the model: the encoder's outputs, and a vamp prior without an encoder."""
    decoder = likelihoods.Bernoulli(nn.Linear(LATENT, CELLS))
    model = VAE(priors.StandardNormal(LATENT), decoder, posteriors.Mixture(encoder(4), LATENT))
    refused("Give the encoder 35 outputs", lambda: model.encode(bits(ROWS)))
    refused("a VampPrior without a posterior", lambda: VAE(VAMP, decoder).sample(2, KEY))
