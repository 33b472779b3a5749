"""The geometry of likelihoods: squared Jacobians of embeddings against Fisher informations by enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from families import CASES, cast, with_gradients
from support import refused
from torch import Tensor, nn

from vaelid import distributions, likelihoods, networks
from vaelid.distributions import Distribution
from vaelid.errors import InputTypeError
from vaelid.likelihoods import Likelihood, PredictedScale, embeddings
from vaelid.random import Key

KEY, LATENT, EVENT = Key(11), 2, (2, 2)
DOUBLE = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own

Make = Callable[[nn.Module, tuple[int, ...]], Likelihood]


@dataclass(frozen=True)
class Box:
    """A likelihood, and the case of `families` that its values are of."""

    heads: int
    make: Make
    family: str
    levels: int = 0  # 0: a density
    k: int = 4

    def build(self) -> Likelihood:
        """Over EVENT, its network, scales and cutpoints off their initial values; float64."""
        torch.manual_seed(2)
        box = self.make(networks.MLP(LATENT, EVENT, (8,), heads=self.heads), EVENT).double()
        with torch.no_grad():
            for index, p in enumerate(box.parameters()):
                p.add_(0.3 * KEY.fold("move", index).normal(tuple(p.shape), dtype=DOUBLE))
        return box.requires_grad_(False)


EXACT = {
    "bernoulli": Box(1, lambda net, e: likelihoods.Bernoulli(net), "Bernoulli", 2),
    "binomial": Box(1, lambda net, e: likelihoods.Binomial(net, 16), "binomial", 17),
    "categorical": Box(3, lambda net, e: likelihoods.Categorical(net, 3), "categorical", 3, 12),
    "ordinal": Box(1, lambda net, e: likelihoods.Ordinal(net, 4, e), "ordinal", 4, 16),
    "poisson": Box(1, likelihoods.Poisson, "Poisson", 100),
    "negative-binomial": Box(1, likelihoods.NegativeBinomial, "negative binomial", 1000),
    "discretised logistic": Box(
        2, lambda net, e: likelihoods.DiscretizedLogistic(net, 0, 15), "discretised logistic", 16, 64
    ),
    "mixture": Box(
        6,
        lambda net, e: likelihoods.DiscretizedLogisticMixture(net, 2, 0, 15),
        "discretised logistic mixture",
        16,
        64,
    ),
    "continuous-bernoulli": Box(1, lambda net, e: likelihoods.ContinuousBernoulli(net), "continuous Bernoulli"),
    "gaussian": Box(1, likelihoods.Gaussian, "normal"),
    "gaussian-shared": Box(1, lambda net, e: likelihoods.Gaussian(net, e, likelihoods.LearnedScale()), "normal"),
    "gaussian-fixed": Box(1, lambda net, e: likelihoods.Gaussian(net, e, likelihoods.FixedScale(0.3)), "normal"),
    "laplace": Box(1, likelihoods.Laplace, "Laplace"),
    "student-t": Box(1, likelihoods.StudentT, "Student's t"),
    "student-t-fixed": Box(1, lambda net, e: likelihoods.StudentT(net, e, degrees=2.5), "Student's t"),
    "log-normal": Box(1, likelihoods.LogNormal, "log-normal"),
}
MEAN = {
    "zero-inflated": Box(2, likelihoods.ZeroInflatedNegativeBinomial, "zero-inflated negative binomial", 1000),
    "gaussian": Box(2, lambda net, e: likelihoods.Gaussian(net, e, PredictedScale()), "normal"),
    "laplace": Box(2, lambda net, e: likelihoods.Laplace(net, e, PredictedScale()), "Laplace"),
    "student-t": Box(2, lambda net, e: likelihoods.StudentT(net, e, PredictedScale(), 0.5), "Student's t"),
    "log-normal": Box(2, lambda net, e: likelihoods.LogNormal(net, e, PredictedScale()), "log-normal"),
}
Z = torch.tensor([0.7, -1.2], dtype=DOUBLE)


def points(box: Box, value: Distribution) -> tuple[Tensor, Tensor]:
    """x, (points, *event), and weights with which Σ weight · f(x) is E[f(x)] of every cell."""
    if box.levels:
        x = torch.arange(box.levels, dtype=DOUBLE).view(-1, 1, 1)
        return x, value.cell_log_prob(x).exp()
    # x = icdf(u), by tanh-sinh nodes on (0, 1) that leave out 1e-15 on either side and never meet u = ½
    t = (torch.arange(-124, 124, dtype=DOUBLE) + 0.5) * (3.1 / 124)
    u = torch.sigmoid(math.pi * torch.sinh(t)).view(-1, 1, 1)
    weight = (3.1 / 124) * math.pi * torch.cosh(t).view(-1, 1, 1) * u * (1 - u)
    x = value.icdf(u.expand(-1, *EVENT))
    return x, weight.expand_as(x)


def fisher(box: Box, likelihood: Likelihood, z: Tensor) -> Tensor:
    """E[∇_z log p(x|z) (∇_z log p(x|z))ᵀ], (latent, latent): the sum over cells, which are independent."""
    x, weight = points(box, likelihood(z))
    torch.testing.assert_close(weight.sum(0), torch.ones(EVENT, dtype=DOUBLE), rtol=0, atol=1e-12)
    score = torch.func.jacfwd(lambda z: likelihood(z).cell_log_prob(x))(z)
    return torch.einsum("pij,pija,pijb->ab", weight, score, score)


@pytest.mark.parametrize("name", EXACT)
def test_metric_is_the_fisher_information(name: str) -> None:
    box = EXACT[name]
    likelihood = box.build()
    assert likelihood.fisher_rao
    jacobian = torch.func.jacfwd(lambda z: likelihood.embedding(likelihood(z)))(Z)
    assert jacobian.shape == (box.k, LATENT)
    torch.testing.assert_close(jacobian.T @ jacobian, fisher(box, likelihood, Z), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", MEAN)
def test_mean_embedding_where_there_is_no_flat_one(name: str) -> None:
    box = MEAN[name]
    likelihood = box.build()
    assert not likelihood.fisher_rao
    value = likelihood(Z.expand(3, 5, LATENT))
    embedded = likelihood.embedding(value)
    assert embedded.shape == (3, 5, 4)
    torch.testing.assert_close(embedded, value.point.flatten(-2), rtol=0, atol=0)  # mean, or Student's t's location
    jacobian = torch.func.jacfwd(lambda z: likelihood.embedding(likelihood(z)))(Z)
    metric = fisher(box, likelihood, Z)
    assert ((jacobian.T @ jacobian - metric).abs().max() / metric.abs().max()) > 1e-2


@pytest.mark.parametrize("name", EXACT)
def test_embedding_of_many_values(name: str) -> None:
    """(sample, batch, k), the same as one at a time; forward and reverse mode give one Jacobian."""
    box = EXACT[name]
    likelihood = box.build()
    z = KEY.fold("z").normal((3, 5, LATENT), dtype=DOUBLE)
    embedded = likelihood.embedding(likelihood(z))
    assert embedded.shape == (3, 5, box.k)
    torch.testing.assert_close(embedded[1, 2], likelihood.embedding(likelihood(z[1, 2])), rtol=1e-12, atol=1e-12)
    forward = torch.func.jacfwd(lambda z: likelihood.embedding(likelihood(z)))(Z)
    backward = torch.func.jacrev(lambda z: likelihood.embedding(likelihood(z)))(Z)
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", EXACT)
def test_embedding_is_finite_at_extremes_in_single_precision(name: str) -> None:
    """And so are its derivatives; values agree with float64."""
    likelihood = EXACT[name].build()
    (case,) = (case for case in CASES if case.name == EXACT[name].family)
    for extreme in case.extremes:
        value, leaves = with_gradients(extreme)
        embedded = likelihood.embedding(value)
        assert embedded.dtype == torch.float32
        assert embedded.isfinite().all()
        torch.testing.assert_close(
            embedded.detach().double(), likelihood.embedding(cast(extreme, DOUBLE)), rtol=1e-5, atol=1e-6
        )
        gradients = torch.autograd.grad(embedded.sum(), leaves, allow_unused=True, materialize_grads=True)
        assert all(gradient.isfinite().all() for gradient in gradients)


# -- known distances ---------------------------------------------------------------------------------------------------


def test_closed_forms() -> None:
    logits = torch.tensor([-5.0, -0.3, 0.0, 2.0], dtype=DOUBLE)
    p = torch.sigmoid(logits)
    torch.testing.assert_close(embeddings.bernoulli(logits), 2 * torch.asin(p.sqrt()), rtol=1e-13, atol=0)
    masses = torch.tensor([[0.2, 0.3, 0.5]], dtype=DOUBLE)
    torch.testing.assert_close(embeddings.finite(masses.log()), 2 * masses.sqrt().flatten(), rtol=1e-14, atol=0)
    torch.testing.assert_close(embeddings.poisson(masses.log()), 2 * masses.sqrt(), rtol=1e-14, atol=0)
    # the Poisson is the limit of large r, where 2√r asinh √(μ/r) = 2√μ (1 − μ/6r + …)
    many = embeddings.negative_binomial(masses.log(), torch.tensor(30.0, dtype=DOUBLE))
    torch.testing.assert_close(many, 2 * masses.sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("end", "error"), [(1e-3, 1e-12), (0.5, 1e-12), (3.0, 1e-12), (20.0, 1e-12), (100.0, 1e-12), (1e4, 1e-8)]
)
def test_continuous_bernoulli_by_quadrature(end: float, error: float) -> None:
    """Against 4000 panels between 0 and the logit, of widths that grow with it; odd in the logit."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.sinh(np.linspace(0, np.arcsinh(end), 4001))
    at = torch.from_numpy((edges[:-1, None] + np.diff(edges)[:, None] / 2 * (1 + nodes)).ravel())
    speed = distributions.ContinuousBernoulli(at).variance.sqrt().view(-1, 8) @ torch.from_numpy(weights)
    expected = (speed * torch.from_numpy(np.diff(edges)) / 2).sum()
    found = embeddings.continuous_bernoulli(torch.tensor([end, -end], dtype=DOUBLE))
    torch.testing.assert_close(found[0], expected, rtol=error, atol=0)
    torch.testing.assert_close(found[1], -found[0], rtol=1e-14, atol=0)


def test_finite_masses_lie_on_a_sphere() -> None:
    """|2√p| = 2, whose great circles have length 2 arccos Σ √(pq)."""
    likelihood = EXACT["categorical"].build()
    one, other = (likelihood.embedding(likelihood(z)).view(4, 3) for z in (Z, -Z))
    torch.testing.assert_close(one.square().sum(1), torch.full((4,), 4.0, dtype=DOUBLE), rtol=1e-14, atol=0)
    p, q = (likelihood(z).probs.view(4, 3) for z in (Z, -Z))
    angle = torch.acos((one * other).sum(1) / 4)
    torch.testing.assert_close(2 * angle, 2 * torch.acos((p * q).sqrt().sum(1)), rtol=1e-12, atol=0)


def test_units_do_not_matter() -> None:
    """Centimetres or metres: distances in noise are the same."""
    torch.manual_seed(4)
    x = 3 + KEY.normal((50, *EVENT), dtype=DOUBLE)
    for kind in (likelihoods.Gaussian, likelihoods.Laplace, likelihoods.StudentT):
        net = networks.MLP(LATENT, EVENT, (8,)).double()
        boxes = [kind(net, EVENT).double().adapt(unit * x) for unit in (1.0, 100.0)]
        first, second = (box.embedding(box(torch.stack((Z, -Z)))).diff(dim=0) for box in boxes)
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)


def test_embedding_of_another_family_is_refused() -> None:
    value = distributions.Normal(torch.zeros(3), torch.ones(3))
    likelihood = EXACT["bernoulli"].build()
    refused(
        "the embedding of a Normal; expected a Bernoulli", lambda: likelihood.embedding(value), error=InputTypeError
    )
