"""One file over all parts: every likelihood with every kind of network, with and without context and mask."""

from __future__ import annotations

import copy
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from torch import Tensor, nn

from vaelid import checks, likelihoods, networks, parts
from vaelid.errors import InputError
from vaelid.evidence import importance
from vaelid.likelihoods import Likelihood
from vaelid.model import VAE, evaluating
from vaelid.objectives import ELBO, IWAE
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key
from vaelid.types import Batch, Support

KEY, ROWS, LATENT = Key(3), 5, 3
NAN = math.nan


def levels(shape: tuple[int, ...], count: int) -> Tensor:
    return (KEY.fold("levels").uniform(shape) * count).floor()


def real(shape: tuple[int, ...]) -> Tensor:
    """Features of different units, one of them constant."""
    x = KEY.fold("real").normal(shape)
    scale = torch.linspace(0.5, 40.0, x[0].numel()).view(shape[1:])
    x = 7.0 + scale * x
    x.flatten(1)[:, 1] = 2.5
    return x


def positive(shape: tuple[int, ...]) -> Tensor:
    return (real(shape) / 20).exp()


def student(net: nn.Module, event: tuple[int, ...]) -> Likelihood:
    return likelihoods.StudentT(net, event, likelihoods.PredictedScale(), degrees=3.0)


Make = Callable[[nn.Module, tuple[int, ...]], Likelihood]
LIKELIHOODS: dict[str, tuple[int, Make, Callable[[tuple[int, ...]], Tensor]]] = {
    # name → heads, constructor, data
    "bernoulli": (1, lambda net, event: likelihoods.Bernoulli(net), lambda shape: levels(shape, 2)),
    "continuous-bernoulli": (1, lambda net, event: likelihoods.ContinuousBernoulli(net), lambda s: levels(s, 9) / 8),
    "binomial": (1, lambda net, event: likelihoods.Binomial(net, 16), lambda shape: levels(shape, 17)),
    "categorical": (3, lambda net, event: likelihoods.Categorical(net, 3), lambda shape: levels(shape, 3)),
    "logistic": (2, lambda net, event: likelihoods.DiscretizedLogistic(net, 2, 17), lambda s: 2 + levels(s, 16)),
    "negative-binomial": (1, likelihoods.NegativeBinomial, lambda shape: levels(shape, 30)),
    "gaussian": (1, likelihoods.Gaussian, real),
    "gaussian-fixed": (1, lambda net, e: likelihoods.Gaussian(net, e, likelihoods.FixedScale(3.0)), real),
    "gaussian-shared": (1, lambda net, e: likelihoods.Gaussian(net, e, likelihoods.LearnedScale()), real),
    "gaussian-predicted": (2, lambda net, e: likelihoods.Gaussian(net, e, likelihoods.PredictedScale()), real),
    "laplace": (1, likelihoods.Laplace, real),
    "student-t": (1, likelihoods.StudentT, real),
    "student-t-predicted": (2, student, real),
    "log-normal": (1, likelihoods.LogNormal, positive),
    "poisson": (1, likelihoods.Poisson, lambda shape: levels(shape, 30)),
    "zero-inflated": (2, likelihoods.ZeroInflatedNegativeBinomial, lambda shape: levels(shape, 3)),
    "mixture": (6, lambda net, e: likelihoods.DiscretizedLogisticMixture(net, 2, 0, 2), lambda shape: levels(shape, 3)),
    "ordinal": (1, lambda net, event: likelihoods.Ordinal(net, 4, event), lambda shape: levels(shape, 4)),
}
NETWORKS = ("mlp", "mlp-image", "conv", "own")


class Own(nn.Module):
    """A network that vaelid has never heard of, with dropout and batch statistics."""

    def __init__(self, inputs: int, outputs: tuple[int, ...], context: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.body = nn.Sequential(nn.Linear(inputs + context, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3))
        self.head = nn.Linear(8, math.prod(outputs))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        flat = x.flatten(1) if context is None else torch.cat((x.flatten(1), context), 1)
        return self.head(self.body(flat)).view(-1, *self.outputs)


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    model: VAE
    x: Tensor
    mask: Tensor | None
    context: Tensor | None

    @property
    def batch(self) -> Batch:
        return Batch(self.x, self.mask, self.context, torch.arange(ROWS) + 100)

    @property
    def own(self) -> bool:
        return "own" in self.name


def make(likelihood: str, network: str, extras: str = "") -> Case:
    torch.manual_seed(1)
    heads, build, draw = LIKELIHOODS[likelihood]
    event = {"mlp": (6,), "mlp-image": (2, 3, 2), "conv": (2, 5, 6), "own": (6,)}[network]
    c = 2 if "context" in extras else 0
    features = (3 * event[0], *event[1:]) if likelihood == "categorical" else event
    outputs = (heads * event[0], *event[1:])
    match network:
        case "conv":
            encoder: nn.Module = networks.ConvEncoder(features, LATENT, channels=(4, 5), hidden=8, context=c)
            decoder: nn.Module = networks.ConvDecoder(LATENT, event, heads, channels=(4, 5), hidden=8, context=c)
        case "own":
            encoder, decoder = Own(math.prod(features), (2 * LATENT,), c), Own(LATENT, outputs, c)
        case _:
            encoder = networks.MLP(features, LATENT, (8,), heads=2, context=c)
            decoder = networks.MLP(LATENT, event, (8,), heads=heads, context=c)
    model = VAE(StandardNormal(LATENT), build(decoder, event), DiagonalNormal(encoder))
    x = draw((ROWS, *event))
    model.likelihood.adapt(x)
    mask = (KEY.fold("mask").uniform((ROWS, *event)) < 0.6) if "mask" in extras else None
    context = KEY.fold("context").normal((ROWS, c)) if c else None
    return Case(f"{likelihood} {network} {extras}", model, x, mask, context)


PLAIN = [
    *product(LIKELIHOODS, NETWORKS, [""]),
    *((likelihood, NETWORKS[i % len(NETWORKS)], "mask context") for i, likelihood in enumerate(LIKELIHOODS)),
]


@pytest.fixture(params=PLAIN, ids=lambda p: "-".join(part.replace(" ", "-") for part in p if part))
def case(request: pytest.FixtureRequest) -> Case:
    return make(*request.param)


def move_parameters(model: VAE) -> None:
    """Off the initial values, at which some gradients vanish."""
    with torch.no_grad():
        for index, p in enumerate(model.parameters()):
            p.add_(0.1 * KEY.fold("move", index).normal(tuple(p.shape), dtype=p.dtype))


# -- the seam ----------------------------------------------------------------------------------------------------------


def test_shapes(case: Case) -> None:
    problem = case.model.given(case.batch)
    u = problem.noise(KEY, 4)
    trace = problem.trace(u)
    assert u.shape == (4, ROWS, LATENT) == trace.groups[0].z.shape
    for value in (trace.log_weight, trace.log_joint, trace.log_likelihood, problem.log_joint(trace.groups[0].z)):
        assert value.shape == (4, ROWS)
        assert value.isfinite().all()
    assert trace.likelihood.mean.shape == (4, *case.x.shape)


def test_parts_of_the_weight(case: Case) -> None:
    """log w = log p(x|z) + log p(z) − log q(z|x), and log p(x, z) does not depend on how z came about."""
    with evaluating(case.model):
        problem = case.model.given(case.batch)
        trace = problem.trace(problem.noise(KEY, 4))
        group = trace.groups[0]
        again = problem.log_joint(group.z)
    assert torch.equal(trace.log_joint, again)
    expected = again - problem.start.log_prob(group.z)
    # log q is computed from u in one and from z in the other: a few roundings of (z − loc) / scale apart
    assert torch.allclose(trace.log_weight, expected, atol=1e-4, rtol=1e-5)
    assert torch.equal(group.log_prior, problem.prior.log_prob(group.z))


def test_noise_of_inverts_trace(case: Case) -> None:
    model = copy.deepcopy(case.model).double()
    problem = model.given(case.batch)
    u = problem.noise(KEY, 4)
    assert (problem.noise_of(problem.trace(u).groups[0].z) - u).abs().max() < 1e-10


@pytest.mark.parametrize("objective", [ELBO(samples=2), IWAE(samples=2)], ids=["elbo", "iwae"])
def test_gradients_are_finite_and_reach_every_parameter(case: Case, objective: ELBO | IWAE) -> None:
    move_parameters(case.model)
    problem = case.model.given(case.batch)
    objective(problem, problem.noise(KEY, 2), 0).surrogate.backward()
    for name, p in case.model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0 or "body.0.bias" in name, name  # batch statistics take that bias out again


def test_precisions_agree(case: Case) -> None:
    """float32 differs from float64 by roundings: a few hundred units in the last place of the largest partial sum."""
    double = copy.deepcopy(case.model).double()
    results = []
    for model in (case.model, double):
        with evaluating(model), torch.no_grad():
            problem = model.given(case.batch)
            trace = problem.trace(KEY.normal((4, ROWS, LATENT)).to(model.dtype))
            results.append((trace.log_weight.double(), trace.log_likelihood.double()))
    size = 1 + results[1][1].abs().max()
    for single, exact in zip(*results, strict=True):
        assert (single - exact).abs().max() < 300 * torch.finfo(torch.float32).eps * size


def test_log_likelihood_is_a_sum_over_observed_cells(case: Case) -> None:
    with evaluating(case.model), torch.no_grad():
        problem = case.model.given(case.batch)
        trace = problem.trace(problem.noise(KEY, 2))
    cells = trace.likelihood.cell_log_prob(case.x)
    observed = torch.ones_like(case.x, dtype=torch.bool) if case.mask is None else case.mask
    expected = (cells.double() * observed).flatten(2).sum(-1)
    assert torch.allclose(trace.log_likelihood.double(), expected, rtol=1e-5, atol=1e-4)


# -- verbs -------------------------------------------------------------------------------------------------------------


def test_encode_is_deterministic_and_the_centre(case: Case) -> None:
    first, second = case.model.encode(case.batch), case.model.encode(case.batch)
    assert first.shape == (ROWS, LATENT)
    assert torch.equal(first, second)
    with evaluating(case.model):
        problem = case.model.given(case.batch)
        zero = problem.trace(torch.zeros(1, ROWS, LATENT)).groups[0].z[0]
    assert torch.equal(first, zero)
    assert case.model.training  # as it was


def test_reconstruct(case: Case) -> None:
    found = case.model.reconstruct(case.batch)
    assert found.shape == case.x.shape
    with evaluating(case.model):
        assert torch.equal(found, case.model.decode(case.model.encode(case.batch), case.context).point)
    support = case.model.likelihood.support
    slack = 1e-5 * (1 + abs(support.low)) if math.isfinite(support.low) else 0.0
    assert (found >= support.low - slack).all()
    assert (found <= support.high * (1 + 1e-6)).all()


def test_samples_lie_in_the_support_and_depend_on_their_number_alone(case: Case) -> None:
    context = None if case.context is None else case.context[:1].expand(20, -1)
    drawn = case.model.sample(20, KEY, context)
    assert drawn.shape == (20, *case.x.shape[1:])
    assert drawn.isfinite().all()
    checks.support(drawn, case.model.likelihood.support, case.name)
    fewer = case.model.sample(7, KEY, None if context is None else context[:7])
    assert torch.allclose(drawn[:7], fewer, atol=1e-4, rtol=1e-5)
    assert not torch.equal(drawn, case.model.sample(20, KEY.fold("other"), context))
    if "own" not in case.name:
        assert (drawn[0] != drawn[1]).any()


def test_log_prob_takes_what_sample_gives(case: Case) -> None:
    context = None if case.context is None else case.context[:1].expand(20, -1)
    found = importance(case.model, Batch(case.model.sample(20, KEY, context), None, context), 3, KEY)
    assert found.log_evidence.isfinite().all()


# -- context and mask --------------------------------------------------------------------------------------------------

CONDITIONAL = list(product(LIKELIHOODS, NETWORKS, ["context"]))
MASKED = list(product(LIKELIHOODS, NETWORKS, ["mask"]))


def ids(p: tuple[str, ...]) -> str:
    return "-".join(p)


@pytest.mark.parametrize("which", CONDITIONAL, ids=ids)
def test_context_reaches_encoder_and_decoder(which: tuple[str, str, str]) -> None:
    case = make(*which)
    assert case.context is not None
    other = torch.flip(case.context, (0,)) + 1
    z = case.model.encode(case.x, context=case.context)
    moved = case.model.encode(case.x, context=other)
    assert (z != moved).any(dim=1).all()
    with evaluating(case.model), torch.no_grad():
        here, there = case.model.decode(z, case.context), case.model.decode(z, other)
        assert (here.mean != there.mean).flatten(1).any(dim=1).all()
        # with samples in front, every sample of a row meets that row's context
        many = case.model.decode(z.expand(2, -1, -1), case.context)
        assert torch.allclose(many.mean[1], here.mean, rtol=1e-5, atol=1e-5)
    assert not torch.equal(case.model.sample(ROWS, KEY, case.context), case.model.sample(ROWS, KEY, 5 * other))


@pytest.mark.parametrize("which", MASKED, ids=ids)
def test_encoder_sees_zero_where_nothing_was_observed(which: tuple[str, str, str]) -> None:
    """0 on the network's scale: the feature's mean, or no class at all. Every cell's codes lie side by side."""
    case = make(*which)
    assert case.mask is not None
    plain, masked = (case.model.likelihood.features(case.x, mask) for mask in (None, case.mask))
    codes = plain.shape[1] // case.x.shape[1]
    seen = torch.stack([case.mask[:, i // codes] for i in range(plain.shape[1])], dim=1)
    assert plain.shape[1:] == case.model.likelihood.feature_shape(tuple(case.x.shape[1:]))
    assert torch.equal(masked[seen], plain[seen])
    assert (masked[~seen] == 0).all()
    assert (~seen).any()


@pytest.mark.parametrize("which", MASKED, ids=ids)
def test_unobserved_cells_do_not_matter(which: tuple[str, str, str]) -> None:
    """Whatever they hold: a legal value, one outside the support, NaN."""
    case = make(*which)
    assert case.mask is not None
    model, mask = case.model, case.mask.clone()
    mask[0] = False  # a row of which nothing is known
    found = []
    for hidden in (None, -3.7, 1e9, NAN):
        x = case.x if hidden is None else torch.where(mask, case.x, hidden)
        model.zero_grad()
        with evaluating(model):
            problem = model.given(Batch(x, mask))
            trace = problem.trace(problem.noise(KEY, 3))
        trace.log_weight.sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        found.append((trace.log_likelihood.detach(), trace.log_weight.detach(), *gradients))
        assert (trace.log_likelihood[:, 0] == 0).all()
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    through = model.batch(torch.where(mask, case.x, NAN), mask)
    assert torch.equal(model.encode(through), model.encode(Batch(case.x, mask)))
    assert not torch.equal(model.encode(Batch(case.x, mask)), model.encode(Batch(case.x)))


# -- saving ------------------------------------------------------------------------------------------------------------

NAMED = [which for which in PLAIN if which[1] != "own"]


@pytest.mark.parametrize("which", NAMED, ids=lambda p: "-".join(part.replace(" ", "-") for part in p if part))
def test_description_builds_the_same_model(which: tuple[str, str, str]) -> None:
    case = make(*which)
    move_parameters(case.model)
    table = parts.describe(case.model)
    assert parts.is_named(table)
    read = tomllib.loads(tomli_w.dumps(table))
    built = parts.build(read)
    assert isinstance(built, VAE)
    assert parts.describe(built) == table
    assert built.likelihood.support == case.model.likelihood.support
    built.load_state_dict(case.model.state_dict())
    for name, value in case.model.state_dict().items():
        assert torch.equal(built.state_dict()[name], value), name
    one, other = importance(case.model, case.batch, 3, KEY), importance(built, case.batch, 3, KEY)
    assert torch.equal(one.log_evidence, other.log_evidence)
    assert torch.equal(case.model.sample(3, KEY, _three(case)), built.sample(3, KEY, _three(case)))


def _three(case: Case) -> Tensor | None:
    return None if case.context is None else case.context[:3]


def test_everything_adapted_is_saved() -> None:
    """Weights alone carry what `adapt` learned: an unadapted twin with the same state gives the same numbers."""
    case = make("gaussian", "mlp")
    assert {"likelihood.loc", "likelihood.unit", "likelihood.floor"} <= case.model.state_dict().keys()
    case = make("negative-binomial", "mlp")
    assert {"likelihood.log_mean", "likelihood.loc", "likelihood.unit"} <= case.model.state_dict().keys()
    case = make("ordinal", "mlp")
    assert {"likelihood.start", "likelihood.loc", "likelihood.unit"} <= case.model.state_dict().keys()


def test_own_network_names_itself() -> None:
    table = parts.describe(make("bernoulli", "own").model)
    assert not parts.is_named(table)
    with pytest.raises(InputError, match=r"network of your own, .*Own; .*vaelid.load\(path, model=model\)"):
        parts.build(table)


class Registered(nn.Module):
    def __init__(self, size: int, widths: tuple[int, ...] = (2,), note: str | None = None) -> None:
        super().__init__()
        self.size, self.widths, self.note = size, widths, note


class Forgetful(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_PARTS", dict(parts._PARTS))
    parts.part("tests.Registered")(Registered)
    parts.part("tests.Forgetful")(Forgetful)


@pytest.mark.usefixtures("register")
def test_own_parts_can_be_registered() -> None:
    table = parts.describe(Registered(np.int64(4), (np.int32(3), 5)))  # type: ignore[arg-type]
    assert table == {"part": "tests.Registered", "size": 4, "widths": [3, 5]}
    built = parts.build(tomllib.loads(tomli_w.dumps(table)))
    assert isinstance(built, Registered)
    assert (built.size, built.widths, built.note) == (4, (3, 5), None)


@pytest.mark.usefixtures("register")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parts.describe(Forgetful(3)), "'tests.Forgetful' does not store its argument 'size'"),
        (lambda: parts.build({"part": "tests.Registred"}), "Did you mean 'tests.Registered'"),
        (lambda: parts.build({}), "unknown part, None"),
        (lambda: parts.build({"part": "tests.Registered", "sise": 3}), "cannot be built: .*size"),
        (lambda: parts.build({"part": "tests.Registered", "size": 3, "depth": 1}), "cannot be built: .*depth"),
    ],
)
def test_description_refusals(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# -- what is left ------------------------------------------------------------------------------------------------------


def test_batch_takes_and_keeps_numbers() -> None:
    x = levels((4, 6), 2)
    batch = Batch(x, x > 0, x[:, :2], None, x[:, 0])
    for index in (torch.tensor([2, 0]), slice(1, 3)):
        taken = batch.take(index)
        assert torch.equal(taken.ids(), torch.arange(4)[index])
        for name in ("x", "mask", "context", "weight"):
            assert torch.equal(getattr(taken, name), getattr(batch, name)[index])
    assert torch.equal(batch.take(slice(1, 4)).take(torch.tensor([2, 1])).ids(), torch.tensor([3, 2]))


@pytest.mark.parametrize(
    ("support", "text"),
    [
        (Support(), "numbers"),
        (Support(0, integer=True), "whole numbers ≥ 0"),
        (Support(0, 1), "numbers from 0 to 1"),
        (Support(0, strict=True), "numbers > 0"),
        (Support.grid(0, 255, 1), "whole numbers from 0 to 255"),
        (Support.grid(-1, 1, 0.25), "numbers from -1 to 1 in steps of 0.25"),
    ],
)
def test_support_says_what_it_is(support: Support, text: str) -> None:
    assert str(support) == text


def test_single_latent_vector_decodes() -> None:
    """z (*lead, latent) with nothing in front."""
    case = make("gaussian-predicted", "mlp-image")
    one = case.model.decode(torch.zeros(LATENT))
    assert one.mean.shape == case.x.shape[1:]
    assert one.log_prob(case.x[0]).shape == ()


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (7, 5), (28, 28), (16, 9)])
@pytest.mark.parametrize("channels", [(3,), (3, 4), (2, 3, 4)])
def test_convolutions_take_any_size(size: tuple[int, int], channels: tuple[int, ...]) -> None:
    event = (2, *size)
    encoder = networks.ConvEncoder(event, LATENT, channels=channels, hidden=4)
    decoder = networks.ConvDecoder(LATENT, event, heads=3, channels=channels, hidden=4)
    assert encoder(torch.zeros(2, *event)).shape == (2, 2 * LATENT)
    assert decoder(torch.zeros(2, LATENT)).shape == (2, 6, *size)


def test_sizes_may_be_numpy_integers() -> None:
    net = networks.MLP(np.int64(6), np.int64(2), (np.int32(3),))  # type: ignore[arg-type]
    assert tomllib.loads(tomli_w.dumps(parts.describe(net)))["inputs"] == [6]
