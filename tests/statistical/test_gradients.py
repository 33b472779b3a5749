"""Gradient estimators: their expectation is the bound's gradient, their noise is what the papers say, values stay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support import refused
from torch import Tensor, nn

from vaelid import posteriors, priors
from vaelid.distributions import Normal
from vaelid.errors import InputTypeError
from vaelid.likelihoods import FixedScale, Gaussian, LearnedScale
from vaelid.model import VAE, Problem
from vaelid.objectives import ELBO, IWAE, STL, DReG, Pathwise, ScoreFunction
from vaelid.posteriors import DiagonalNormal, Posterior
from vaelid.priors import Prior, StandardNormal
from vaelid.random import Key
from vaelid.types import Batch, Group, Trace

KEY, DOUBLE = Key(33), torch.float64


@dataclass(frozen=True, eq=False)
class Mixture:
    """An even mixture of normals (component, latent); no transport, but all that an objective asks of a prior."""

    parts: Normal

    @property
    def size(self) -> int:
        return self.parts.size

    def log_prob(self, x: Tensor) -> Tensor:
        return self.parts.log_prob(x.unsqueeze(-2)).logsumexp(-1) - math.log(len(self.parts.loc))


class PseudoInputs(Prior):
    """A mixture of the model's own q at three learned inputs (Tomczak and Welling 2018): shares the encoder."""

    def __init__(self, size: int, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.inputs = nn.Parameter(Key(5).normal((3, size)))

    def forward(self, context: Any = None, posterior: Any = None) -> Any:
        return Mixture(posterior(self.inputs, None))


class LearnedNormal(Prior):
    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.loc, self.rho = nn.Parameter(torch.full((latent,), 0.3)), nn.Parameter(torch.full((latent,), -0.2))

    def forward(self, context: Any = None, posterior: Any = None) -> Normal:
        return Normal(self.loc, self.rho.exp())


def gradient(model: VAE, value: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])


# -- expectation, exactly ----------------------------------------------------------------------------------------------

X = torch.tensor([[0.5, -1.0], [-0.9, 0.3]], dtype=DOUBLE)
WEIGHT = torch.tensor([1.0, 2.5], dtype=DOUBLE)
NODES = {1: 120, 2: 120, 3: 64}  # per draw
PRIORS = {
    "fixed prior": lambda: StandardNormal(1),
    "learned prior": lambda: LearnedNormal(1),
    "prior made of q": lambda: PseudoInputs(2, 1),
}


def small(prior: str) -> VAE:
    """One latent, two cells, networks that are not linear, q far from exact."""
    encoder = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    decoder = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 2))
    return VAE(PRIORS[prior](), Gaussian(decoder, (2,), LearnedScale()), DiagonalNormal(encoder)).double()


def log_normal(z: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    return -0.5 * ((z - loc) / log_scale.exp()).square() - log_scale - 0.5 * math.log(2 * math.pi)


def by_sums(model: VAE, beta: float, draws: int | None) -> Tensor:
    """The β-ELBO, or the IWAE with 2 or 3 draws, as a sum over a fixed grid of z: no draws, no noise, no transport."""
    z = torch.linspace(-12, 12, 601 if draws != 3 else 121, dtype=DOUBLE)
    log_q = log_normal(z, *model.posterior.network(X).T.unsqueeze(-1))
    match model.prior:
        case PseudoInputs(inputs=inputs):
            parts = log_normal(z, *model.posterior.network(inputs).T.unsqueeze(-1))
            log_prior = parts.logsumexp(0) - math.log(len(inputs))
        case LearnedNormal(loc=loc, rho=rho):
            log_prior = log_normal(z, loc, rho)
        case _:
            log_prior = log_normal(z, *torch.zeros(2, 1, dtype=DOUBLE))
    log_sigma = (model.likelihood.floor.min() + model.likelihood.scale.rho.exp()).log()
    log_likelihood = log_normal(X[:, None], model.likelihood.network(z[:, None]), log_sigma).sum(-1)
    q, f = log_q.exp() * (z[1] - z[0]), log_likelihood + beta * (log_prior - log_q)
    if draws is None:
        value = (q * f).sum(1)
    elif draws == 2:
        value = torch.einsum("bi,bj,bij->b", q, q, torch.logaddexp(f[:, :, None], f[:, None]))
    else:
        w = (f - f.max()).exp()
        three = (w[:, :, None, None] + w[:, None, :, None] + w[:, None, None]).log() + f.max()
        value = torch.einsum("bi,bj,bk,bijk->b", q, q, q, three)
    return (WEIGHT * (value - math.log(draws or 1))).sum() / WEIGHT.sum()


def over_nodes(model: VAE, samples: int) -> tuple[Problem, Tensor]:
    """Rows and noise whose weighted mean over rows is the expectation over noise: Gauss–Hermite nodes as draws.

    Every combination of nodes is a row of its own, and its weight is the row's times that of the nodes.
    """
    nodes, mass = np.polynomial.hermite_e.hermegauss(NODES[samples])
    u = torch.cartesian_prod(*[torch.from_numpy(nodes)] * samples).view(-1, samples).T
    joint = torch.cartesian_prod(*[torch.from_numpy(mass / mass.sum())] * samples).view(-1, samples).prod(1)
    keep = joint > 1e-22
    u, joint = u[:, keep], joint[keep]
    batch = Batch(X.repeat_interleave(len(joint), 0), weight=(WEIGHT[:, None] * joint).flatten())
    return model.given(batch), u.repeat(1, len(X)).unsqueeze(-1)


OBJECTIVES = [
    ELBO(),
    ELBO(gradient=STL()),
    ELBO(samples=2, gradient=ScoreFunction()),
    ELBO(beta=0.4, gradient=STL()),
    ELBO(beta=0.4, samples=3, gradient=ScoreFunction()),
    IWAE(samples=2),
    IWAE(samples=2, gradient=DReG()),
    IWAE(samples=2, gradient=ScoreFunction()),
    IWAE(samples=3, gradient=DReG()),
    IWAE(samples=3, gradient=ScoreFunction()),
]


def name(objective: Any) -> str:
    return f"{objective.gradient}, β={getattr(objective, 'beta', 1)}, K={objective.samples}, {type(objective).__name__}"


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=name)
def test_expected_gradient_is_that_of_the_bound(objective: Any, prior: str) -> None:
    """Every parameter of encoder, decoder and prior, with rows of different weight, against sums over z.

    Nothing is drawn: 1e-6 allows for what both quadratures leave out, 5e-8 here and below 1e-12 without the prior.
    """
    model = small(prior)
    beta, draws = (objective.beta, None) if isinstance(objective, ELBO) else (1.0, objective.samples)
    truth = by_sums(model, beta, draws)
    problem, u = over_nodes(model, objective.samples)
    surrogate = objective(problem, u, 0).surrogate
    exact, found = gradient(model, truth), gradient(model, surrogate)
    assert surrogate.item() == pytest.approx(truth.item(), abs=1e-6)
    assert (found - exact).abs().max() < 1e-6
    assert exact.abs().max() > 0.5


@pytest.mark.parametrize("prior", PRIORS)
def test_what_is_refused_or_done_elsewhere_would_be_wrong(prior: str) -> None:
    """STL's rule is biased for the IWAE; DReG's, applied at the encoder's parameters, where the prior shares them."""
    model = small(prior)
    exact = gradient(model, by_sums(model, 1.0, 2))
    count = sum(p.numel() for p in model.posterior.parameters())

    def rule(power: int) -> Tensor:
        """log p(x, z) − log q̄(z), its every gradient times w̃^power."""
        problem, u = over_nodes(model, 2)
        trace = problem.trace(u)
        group, share = trace.groups[0], trace.log_weight.detach().softmax(0)
        draws = trace.log_likelihood + group.log_prior - group.posterior.detach().log_prob(group.z)
        weight = problem.batch.weight
        return gradient(model, (weight * (share**power * draws).sum(0)).sum() / weight.sum())

    assert (rule(1) - exact)[-count:].abs().max() > 1e-3  # VAE holds prior, likelihood, posterior in this order
    at_parameters = (rule(2) - exact)[-count:].abs().max()
    assert at_parameters > 1e-3 if prior == "prior made of q" else at_parameters < 1e-6


# -- expectation, within its error -------------------------------------------------------------------------------------


def draws_of(model: VAE, batch: Batch, objectives: list[Any], repeats: int) -> list[Tensor]:
    """Gradients (repeats, parameters) of each objective, all with the same noise."""
    found: list[list[Tensor]] = [[] for _ in objectives]
    for i in range(repeats):
        u = KEY.fold(i).normal((objectives[0].samples, batch.rows, model.prior.latent), dtype=DOUBLE)
        for objective, into in zip(objectives, found, strict=True):
            into.append(gradient(model, objective(model.given(batch), u, 0).surrogate))
    return [torch.stack(each) for each in found]


def within(draws: Tensor, exact: Tensor | float = 0.0) -> bool:
    """Whether the mean over draws is ``exact`` within 4 standard errors, or rounding where nothing varies."""
    se = draws.std(0) / math.sqrt(len(draws))
    return bool(((draws.mean(0) - exact).abs() < 4 * se + 1e-12).all())


@pytest.mark.parametrize("estimator", [Pathwise(), STL(), ScoreFunction()], ids=repr)
def test_elbo_gradient_against_the_closed_form(ppca: Any, estimator: Any) -> None:
    """Two latents, one of them given too little room by q; the ELBO of a linear model is known."""
    model = ppca.model(shift=0.3, stretch=1.2, scale=LearnedScale())
    weight = torch.linspace(0.5, 2.0, 16, dtype=DOUBLE)
    exact = gradient(model, (weight * ppca.elbo(model)).sum() / weight.sum())
    (found,) = draws_of(model, Batch(ppca.x, weight=weight), [ELBO(samples=2, gradient=estimator)], 1000)
    assert within(found, exact)
    assert not within(found, gradient(model, ppca.elbo(model).mean()))  # the weights can be told


@pytest.mark.parametrize("samples", [2, 3, 5, 8])
def test_iwae_gradient_against_pathwise(ppca: Any, samples: int) -> None:
    """Two latents, a prior made of q: at equal noise the estimators differ from pathwise by noise of mean 0."""
    linear = ppca.model(shift=0.3, stretch=1.2, scale=LearnedScale())
    model = VAE(PseudoInputs(6, 2), linear.likelihood, linear.posterior).double()
    batch = Batch(ppca.x, weight=torch.linspace(0.5, 2.0, 16, dtype=DOUBLE))
    objectives = [IWAE(samples, gradient=estimator) for estimator in (Pathwise(), DReG(), ScoreFunction())]
    pathwise, dreg, score = draws_of(model, batch, objectives, 300)
    assert within(dreg - pathwise)
    assert within(score - pathwise)
    assert not within(dreg)
    assert (dreg - pathwise).abs().max() > 1e-3


POSTERIORS = {
    "full": (5, lambda network: posteriors.FullNormal(network, 2)),
    "mixture": (10, lambda network: posteriors.Mixture(network, 2, components=2)),
    "affine flow": (6, lambda network: posteriors.Flow(network, 2, hidden=(4,), features=2)),
    "spline flow": (6, lambda network: posteriors.Flow(network, 2, hidden=(4,), features=2, bins=4)),
    "planar": (14, lambda network: posteriors.Planar(network, 2, layers=2)),
}


def rich(posterior: str) -> VAE:
    """Two latents, three cells, every weight moved away from where it starts; the prior is made of q where it can."""
    width, build = POSTERIORS[posterior]
    prior: Prior = priors.Flow(2, transforms=1, hidden=(4,))
    if posterior == "full":
        prior = priors.VampPrior(2, 3, components=3)
    elif posterior == "mixture":
        prior = priors.Mixture(2, components=2)
    decoder = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))
    model = VAE(prior, Gaussian(decoder, (3,), LearnedScale()), build(nn.Linear(3, width))).double()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.add_(0.3 * KEY.fold("weights", i).normal(tuple(p.shape), dtype=DOUBLE))
    return model


@pytest.mark.parametrize("family", [ELBO, IWAE])
@pytest.mark.parametrize("posterior", [name for name in POSTERIORS if name != "planar"])
def test_every_posterior_and_prior(posterior: str, family: Any) -> None:
    """Correlated, multimodal and flowing q: again noise of mean 0 away from pathwise, in every parameter."""
    model, rows = rich(posterior), Batch(KEY.fold("rows").normal((8, 3), dtype=DOUBLE))
    reference = ELBO(samples=3, analytic_kl=False) if family is ELBO else IWAE(samples=3)
    objectives = [family(samples=3, gradient=g) for g in (STL() if family is ELBO else DReG(), ScoreFunction())]
    pathwise, quiet, score = draws_of(model, rows, [reference, *objectives], 100)
    assert within(quiet - pathwise)
    assert within(score - pathwise)
    count = sum(p.numel() for p in model.posterior.parameters())
    assert ((quiet - pathwise)[:, -count:].std(0).max()) > 1e-3


# -- noise -------------------------------------------------------------------------------------------------------------


def test_stl_has_no_noise_at_the_exact_posterior(ppca: Any) -> None:
    """The encoder's gradient is 0 to rounding for every draw; pathwise only in the mean.

    So are DReG's, and the ELBO's score function with its baseline: all rewards are then log p(x).
    """
    model, batch = ppca.model(), Batch(ppca.x)
    count = sum(p.numel() for p in model.posterior.parameters())
    for objective, other in (
        (ELBO(samples=2), ELBO(samples=2, gradient=STL())),
        (ELBO(samples=2, analytic_kl=False), ELBO(samples=2, gradient=ScoreFunction())),
        (IWAE(samples=2), IWAE(samples=2, gradient=DReG())),
    ):
        pathwise, quiet = (found[:, -count:] for found in draws_of(model, batch, [objective, other], 50))
        assert quiet.abs().max() < 1e-13 * 50  # sums over 16 rows of numbers up to 10, in double precision
        assert within(pathwise)
        assert pathwise.std(0).min() > 1e-2
    moved = ppca.model(shift=1e-3)  # close by, the noise is as small as the distance
    (found,) = draws_of(moved, batch, [ELBO(samples=2, gradient=STL())], 50)
    assert 0 < found[:, -count:].std(0).max() < 1e-2


class FreePerRow(Posterior):
    """q without an encoder: mean and log-scale of every row are parameters, so gradients are known per row."""

    def __init__(self, rows: int, loc: float, scale: float) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.full((rows, 1), loc))
        self.log_scale = nn.Parameter(torch.full((rows, 1), math.log(scale)))

    def forward(self, features: Tensor, context: Tensor | None = None) -> Normal:
        return Normal(self.loc, self.log_scale.exp())


def replicates(objective: Any, loc: float = 0.7, scale: float = 0.78, rows: int = 8000) -> np.ndarray:
    """Independent gradients in the mean of q = N(loc, scale²), (20, rows / 20), at x = 1 where p(z|x) = N(½, ½)."""
    decoder = nn.Linear(1, 1)
    nn.init.ones_(decoder.weight)
    nn.init.zeros_(decoder.bias)
    posterior = FreePerRow(rows, loc, scale)
    model = VAE(StandardNormal(1), Gaussian(decoder, (1,), FixedScale(1.0)), posterior).double()
    u = KEY.fold("replicates", objective.samples).normal((objective.samples, rows, 1), dtype=DOUBLE)
    objective(model.given(Batch(torch.ones(rows, 1, dtype=DOUBLE))), u, 0).surrogate.backward()
    return (rows * posterior.loc.grad).view(20, -1).numpy()


def test_signal_to_noise_over_draws() -> None:
    """|mean| / standard deviation of the encoder's gradient goes as K^−½ pathwise and as K^½ with DReG.

    Twenty independent slopes of log SNR in log K say how well the slope is known. Both estimators have the same mean
    (shown above), and DReG's is the one that is known well, so the signal is taken from it.
    """
    draws = [32, 64, 128, 256]
    pathwise, dreg = ([replicates(IWAE(k, gradient=g)) for k in draws] for g in (Pathwise(), DReG()))
    signal = np.array([np.abs(found.mean(1)) for found in dreg])
    for found, expected in ((pathwise, -0.5), (dreg, 0.5)):
        ratio = np.log(signal / np.array([each.std(1) for each in found]))
        slopes = np.polyfit(np.log(draws), ratio, 1)[0]
        error = slopes.std(ddof=1) / math.sqrt(20)
        assert abs(slopes.mean() - expected) < 4 * error
        assert error < 0.01
    for few, many in zip(dreg, pathwise, strict=True):
        assert abs((few - many).mean()) < 4 * (few - many).std() / math.sqrt(few.size)


@pytest.mark.parametrize("samples", [2, 8, 32])
@pytest.mark.parametrize("family", [ELBO, IWAE])
def test_score_function_is_noisier_than_pathwise(family: Any, samples: int) -> None:
    """Far from the posterior, five times in standard deviation; close to it the baseline makes them about equal."""
    objectives = [family(samples=samples, gradient=estimator) for estimator in (Pathwise(), ScoreFunction())]
    far = [replicates(objective, loc=-1.5, scale=0.5).std() for objective in objectives]
    near = [replicates(objective).std() for objective in objectives]
    assert far[1] > 5 * far[0]
    assert 0.8 < near[1] / near[0] < 1.25


def test_baseline_lowers_the_noise(ppca: Any) -> None:
    model, batch = ppca.model(shift=0.3, stretch=1.2), Batch(ppca.x)
    count = sum(p.numel() for p in model.posterior.parameters())
    objectives = [ELBO(samples=4, gradient=estimator) for estimator in (Pathwise(), ScoreFunction())]
    pathwise, score = (found[:, -count:].var(0).sum() for found in draws_of(model, batch, objectives, 200))
    bare = []
    for i in range(200):
        u = KEY.fold(i).normal((4, 16, 2), dtype=DOUBLE)
        group = (trace := model.given(batch).trace(u)).groups[0]
        held = group.posterior.log_prob(group.z.detach())
        bare.append(gradient(model, (trace.log_weight.detach() * held).mean() + 0 * trace.log_joint.mean()))
    without = torch.stack(bare)[:, -count:].var(0).sum()
    assert pathwise < score < without


# -- other traces ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Recorded:
    """A density that is read off a tensor (sample, batch)."""

    value: Tensor

    def log_prob(self, z: Tensor) -> Tensor:
        return self.value


class Ladder:
    """Two groups: p(z₂) p(z₁|z₂) p(x|z₁) and q(z₂) q(z₁|z₂), normals all; noise (sample, batch, 2)."""

    def __init__(self, parameters: Tensor, rows: int) -> None:
        self.parameters, self.batch = parameters, Batch(torch.full((rows, 1), 0.8, dtype=DOUBLE))

    def trace(self, u: Tensor) -> Trace:
        slope, loc2, scale2, gain, loc1, scale1 = self.parameters.unsqueeze(-1)
        top, above = Normal(loc2, scale2), Normal(torch.zeros_like(loc2), torch.ones_like(loc2))
        z2, log_q2 = top.push(u[..., :1])
        bottom, below = Normal(gain * z2 + loc1, scale1), Normal(slope * z2, torch.ones_like(loc2))
        z1, log_q1 = bottom.push(u[..., 1:])
        log_p2, log_p1 = above.log_prob(z2), below.log_prob(z1)
        groups = Group(z2, Recorded(log_p2), top, log_p2, log_q2), Group(z1, Recorded(log_p1), bottom, log_p1, log_q1)
        likelihood = Normal(z1, torch.ones_like(loc2))
        return Trace(groups, likelihood, likelihood.log_prob(self.batch.x))


@pytest.mark.parametrize("family", [ELBO, IWAE])
def test_score_function_takes_several_groups(family: Any) -> None:
    parameters = torch.tensor([0.7, 0.2, 0.8, 0.4, 0.1, 0.9], dtype=DOUBLE, requires_grad=True)
    differences = []
    for i in range(200):
        problem, u = Ladder(parameters, 50), KEY.fold("ladder", i).normal((3, 50, 2), dtype=DOUBLE)
        outcomes = [family(samples=3, gradient=g)(problem, u, 0) for g in (Pathwise(), ScoreFunction())]
        pathwise, score = (torch.autograd.grad(outcome.surrogate, parameters)[0] for outcome in outcomes)
        differences.append(score - pathwise)
    stacked = torch.stack(differences)
    assert within(stacked)
    assert (stacked.std(0) / math.sqrt(200)).max() < 0.02


def test_refused_traces() -> None:
    """One line that names the estimator and a way out: several groups, densities without an inverse, one draw."""
    ladder, u = Ladder(torch.full((6,), 0.5, dtype=DOUBLE), 4), torch.zeros(1, 4, 2, dtype=DOUBLE)
    for objective in (ELBO(gradient=STL()), IWAE(gradient=DReG())):
        line = refused("with 2 groups of latents; expected one group. Use Pathwise", lambda: objective(ladder, u, 0))  # noqa: B023
        assert repr(objective.gradient) in line

    model = rich("planar")
    problem, u = model.given(Batch(torch.zeros(4, 3, dtype=DOUBLE))), torch.zeros(2, 4, 2, dtype=DOUBLE)
    match = r"\(\) with the posterior Planar; expected one that knows log q at any z. Use Pathwise\(\)\.$"
    for objective in (
        ELBO(gradient=STL()),
        ELBO(samples=2, gradient=ScoreFunction()),
        IWAE(gradient=DReG()),
        IWAE(gradient=ScoreFunction()),
    ):
        refused(match, lambda: objective(problem, u, 0), InputTypeError)  # noqa: B023
    for objective in (ELBO(samples=2, gradient=ScoreFunction()), IWAE(gradient=ScoreFunction())):
        refused("with samples=1; expected 2", lambda: objective(problem, u[:1], 0))  # noqa: B023
