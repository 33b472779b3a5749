"""q fitted to every row: against exact posteriors, the best diagonal normal, quadrature, and an encoder."""

from __future__ import annotations

import math
from typing import Any, final

import numpy as np
import pytest
import torch
from scipy import optimize
from support import refused
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import vaelid as vd
from vaelid import fitted, parts
from vaelid.distributions import Normal
from vaelid.errors import InputTypeError
from vaelid.evidence import importance
from vaelid.fitted import PerDatum
from vaelid.likelihoods import Bernoulli, FixedScale, Gaussian
from vaelid.model import VAE
from vaelid.priors import Encode, Mixture, Prior, StandardNormal
from vaelid.random import Key
from vaelid.types import Batch

KEY, DOUBLE = Key(5), torch.float64


def gap(q: Normal, mean: Tensor, precision: Tensor) -> Tensor:
    """KL(q ‖ N(mean, precision⁻¹)) − its least value over diagonal normals, per row; precision is (batch, k, k)."""
    off, diagonal = q.loc - mean, precision.diagonal(dim1=-2, dim2=-1)
    scaled = q.scale.square() * diagonal
    return 0.5 * torch.einsum("bi,bij,bj->b", off, precision, off) + 0.5 * (scaled - 1 - scaled.log()).sum(1)


def linear(weight: Tensor, sigma: float, prior: Prior | None = None) -> VAE:
    """x = W z + σ ε without an encoder."""
    decoder = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        decoder.weight.copy_(weight)
        decoder.bias.zero_()
    likelihood = Gaussian(decoder, (weight.shape[0],), FixedScale(sigma))
    return VAE(prior or StandardNormal(weight.shape[1]), likelihood).double()


def exact(weight: Tensor, sigma: float, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (batch, k) and precision (batch, k, k) of the exact posterior of a linear model."""
    noise = torch.full_like(x, sigma**-2) * (1.0 if seen is None else seen)
    precision = torch.einsum("di,bd,dj->bij", weight, noise, weight) + torch.eye(weight.shape[1], dtype=DOUBLE)
    return torch.linalg.solve(precision, (noise * x) @ weight), precision


# -- against the exact posterior ---------------------------------------------------------------------------------------


def test_ppca_is_fitted_exactly(ppca: Any) -> None:
    """The exact posterior is in the family, and the estimator has no variance there: log p(x) − ELBO, which is
    KL(q ‖ p(z|x)), comes far below a thousandth of a nat, and log w is log p(x) at every draw."""
    model = VAE(StandardNormal(ppca.latent), ppca.model().likelihood).double()
    q = model.given(Batch(ppca.x)).start
    assert gap(q, *exact(ppca.weight, ppca.sigma, ppca.x - ppca.mean)).max() < 1e-6
    found = importance(model, ppca.x, 100, KEY)
    assert (found.log_evidence - ppca.log_evidence()).abs().max() < 1e-3
    assert (found.ess > 99.99).all()


@pytest.mark.parametrize(("sigma", "size"), [(0.3, 6), (0.01, 6), (0.1, 40)])
def test_best_diagonal_normal(sigma: float, size: int) -> None:
    """For columns that are not orthogonal: m exact, s_i² = 1 / Λ_ii. Posteriors down to a thousandth of the prior."""
    weight = KEY.fold("W").normal((size, 4), dtype=DOUBLE)
    x = KEY.fold("z").normal((20, 4), dtype=DOUBLE) @ weight.T + sigma * KEY.fold("e").normal((20, size), dtype=DOUBLE)
    q = linear(weight, sigma).given(Batch(x)).start
    assert gap(q, *exact(weight, sigma, x)).max() < 0.03


def test_observed_cells_alone(ppca: Any) -> None:
    seen = KEY.uniform(tuple(ppca.x.shape)) < 0.6
    x = ppca.x - ppca.mean
    q = linear(ppca.weight, ppca.sigma).given(Batch(torch.where(seen, x, math.nan), seen)).start
    assert gap(q, *exact(ppca.weight, ppca.sigma, x, seen)).max() < 0.03


@final
class Shifted(Prior):
    """p(z | context) = N(context, I)."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent

    def forward(self, context: Tensor | None = None, posterior: Encode | None = None) -> Normal:
        assert context is not None
        assert posterior is None  # there is no encoder to make a prior of
        return Normal(context, torch.ones_like(context))


class WithoutContext(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        out: Tensor = self.network(z)
        return out


def test_prior_of_each_row(ppca: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prior around the context moves z by it, in whatever pieces the rows are fitted."""
    monkeypatch.setattr(fitted, "DECODER_ROWS", 12)  # three rows at a time
    model = linear(ppca.weight, ppca.sigma, Shifted(2))
    model.likelihood.network = WithoutContext(model.likelihood.network)
    context, x = 3 * KEY.fold("context").normal((16, 2), dtype=DOUBLE), ppca.x - ppca.mean
    mean, precision = exact(ppca.weight, ppca.sigma, x - context @ ppca.weight.T)
    assert gap(model.given(Batch(x, None, context)).start, mean + context, precision).max() < 1e-4


def test_mixture_prior() -> None:
    """log p(x) = log Σ_k w_k N(x; W μ_k, W diag σ_k² Wᵀ + σ² I), from draws of the one normal fitted to each row."""
    torch.manual_seed(0)
    prior, sigma = Mixture(2, 3), 0.4
    with torch.no_grad():
        prior.loc.mul_(6)
        prior.logits.copy_(torch.tensor([0.0, 1.0, -0.5]))
    weight = KEY.fold("W").normal((5, 2), dtype=DOUBLE)
    model = linear(weight, sigma, prior)
    with torch.no_grad():
        x = model.sample(20, KEY)
        log_w, loc, scale = prior.logits.log_softmax(0), prior.loc, prior.log_scale.exp()
        components = [
            MultivariateNormal(weight @ m, weight @ torch.diag(s**2) @ weight.T + sigma**2 * torch.eye(5, dtype=DOUBLE))
            for m, s in zip(loc, scale, strict=True)
        ]
        truth = torch.stack([w + part.log_prob(x) for w, part in zip(log_w, components, strict=True)]).logsumexp(0)
    found = importance(model, x, 4000, KEY)
    assert ((found.log_evidence - truth).abs() < 4 * found.mc_se + 1e-9).all()
    assert found.ess.median() > 2000


# -- against quadrature and an encoder ---------------------------------------------------------------------------------


def test_nonlinear_decoder_against_quadrature() -> None:
    """One latent, binary cells: the best ELBO over (m, s) by Gauss–Hermite quadrature and a search; log p(x) as well.

    The search is what the fit may stay below by 0.01 nat; log p(x) is compared within 4 standard errors.
    """
    torch.manual_seed(2)
    decoder = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    with torch.no_grad():
        decoder[0].weight.mul_(2)
        decoder[2].weight.mul_(4)
    model = VAE(StandardNormal(1), Bernoulli(decoder)).double()
    x = (KEY.uniform((12, 5)) < 0.5).double()
    problem = model.given(Batch(x))
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(80))
    weights = weights / weights.sum()

    @torch.no_grad()
    def elbo(m: Tensor, s: Tensor) -> Tensor:
        q = Normal(m, s)
        z, log_q = q.push(nodes.view(-1, 1, 1).expand(-1, 12, 1))
        return (weights[:, None] * (problem.log_joint(z) - log_q)).sum(0)

    def best(row: int) -> float:
        def loss(p: np.ndarray) -> float:
            m, s = torch.full((12, 1), p[0], dtype=DOUBLE), torch.full((12, 1), math.exp(p[1]), dtype=DOUBLE)
            return -float(elbo(m, s)[row])

        starts = [(m, s) for m in (-1.5, 0.0, 1.5) for s in (-1.0, 0.0)]
        return max(-optimize.minimize(loss, start, method="Nelder-Mead").fun for start in starts)

    found = elbo(problem.start.loc, problem.start.scale)
    assert (found > torch.tensor([best(row) for row in range(12)]) - 0.01).all()
    grid = torch.linspace(-9, 9, 4001, dtype=DOUBLE)
    with torch.no_grad():
        joint = problem.log_joint(grid.view(-1, 1, 1).expand(-1, 12, 1))
    truth = joint.logsumexp(0) + math.log(18 / 4000)
    sampled = importance(model, x, 4000, KEY)
    assert ((sampled.log_evidence - truth).abs() < 4 * sampled.mc_se + 1e-9).all()
    assert (found < truth).all()


def test_amortisation_gap_of_a_trained_encoder() -> None:
    """The fitted q is at least as good as the encoder's on nearly every row, and better on the whole."""
    data = vd.data.load("digits")
    model = vd.recipes.vae(data, latent=4, hidden=(32,))
    history = vd.fit(model, data, epochs=15, progress=False)
    x = data.x[history.split.test[:60]]
    alone = VAE(model.prior, model.likelihood)
    encoder, fit = importance(model, x, 400, KEY), importance(alone, x, 400, KEY)
    difference = fit.elbo - encoder.elbo  # under the same noise: its error is a few hundredths of a nat per row
    assert (difference > 0).float().mean() >= 0.95
    assert difference.mean() > 1
    assert fit.elbo.mean() <= fit.log_evidence.mean()


# -- what a fit depends on, and what it leaves alone -------------------------------------------------------------------


@pytest.fixture
def own() -> VAE:
    torch.manual_seed(1)
    decoder = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 6))
    return VAE(StandardNormal(2), Gaussian(decoder, (6,), FixedScale(0.5)), PerDatum(steps=60)).double()


X = KEY.fold("x").normal((9, 6), dtype=DOUBLE)


def test_same_q_at_every_call(own: VAE) -> None:
    first, second = own.given(Batch(X)).start, own.given(Batch(X)).start
    assert torch.equal(first.loc, second.loc)
    assert torch.equal(first.scale, second.scale)
    assert torch.equal(own.encode(X), first.loc)


def test_rows_are_fitted_by_themselves(own: VAE, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any company, order and pieces, a row keeps its q by its number; roundings are all that differs."""
    ids = torch.arange(9) + 40
    together = own.given(Batch(X, row_id=ids)).start
    for rows in (4, 8, 2048):
        monkeypatch.setattr(fitted, "DECODER_ROWS", rows)
        index = torch.tensor([7, 2, 5])
        some = own.given(Batch(X, row_id=ids).take(index)).start
        assert (some.loc - together.loc[index]).abs().max() < 1e-9
        assert (some.scale - together.scale[index]).abs().max() < 1e-9
    other = own.given(Batch(X)).start
    assert (other.loc - together.loc).abs().max() > 0  # another number, other noise


@pytest.mark.parametrize("gradients", [True, False])
def test_nothing_else_is_touched(own: VAE, gradients: bool) -> None:
    """Weights, batch statistics, gradients, requires_grad and modes stay; q carries no gradient, the rest does."""
    before = {name: value.clone() for name, value in own.state_dict().items()}
    own.likelihood.network[0].weight.requires_grad_(False)
    asks = [p.requires_grad for p in own.parameters()]
    with torch.set_grad_enabled(gradients):
        problem = own.given(Batch(X))
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    assert all(p.grad is None for p in own.parameters())
    assert [p.requires_grad for p in own.parameters()] == asks
    assert all(module.training for module in own.modules())
    assert not problem.start.loc.requires_grad
    assert problem.trace(problem.noise(KEY, 2)).log_likelihood.requires_grad


def test_checking_rows_fits_nothing(own: VAE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PerDatum, "forward", None)
    assert own.batch(X).rows == 9
    assert own.sample(3, KEY).shape == (3, 6)


def test_settings_are_described_and_built() -> None:
    model = VAE(StandardNormal(2), Bernoulli(vd.networks.MLP(2, 4, (3,))), PerDatum(steps=7, rate=0.3))
    table = parts.describe(model)
    assert table["posterior"] == {"part": "fitted.PerDatum", "steps": 7, "pairs": 2, "draws": 64, "rate": 0.3}
    built = parts.build(table)
    assert parts.describe(built) == table
    assert model.state_dict().keys() == built.state_dict().keys()


def test_refusals(own: VAE) -> None:
    refused("steps is 0", lambda: PerDatum(steps=0))
    refused("rate is -1", lambda: PerDatum(rate=-1))
    refused("draws is 2.5", lambda: PerDatum(draws=2.5), InputTypeError)  # type: ignore[arg-type]
    refused("model without an encoder.*Give vaelid.wrap an encoder", lambda: vd.fit(own, X, epochs=1))
    with torch.inference_mode():
        refused("torch.no_grad", lambda: own.given(Batch(X)))
