"""One value of every family of distributions, with the SciPy distribution of each of its cells, for several files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from vaelid.distributions import (
    Bernoulli,
    Binomial,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Distribution,
    Laplace,
    LogNormal,
    NegativeBinomial,
    Normal,
    Ordinal,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
)

Curve = Callable[[Tensor], tuple[Tensor, Tensor]]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """One value with a few cells; ``support`` is every level (discrete) or two ends to compare densities between.

    ``line`` maps t ∈ [−span, span] to points x of every cell, (points, cells), and gives dx/dt beside them: where
    integrals are taken.
    """

    name: str
    value: Distribution
    support: np.ndarray
    oracle: Callable[[int], stats.distributions.rv_frozen]  # the SciPy distribution of cell i
    extremes: tuple[Distribution, ...] = ()
    line: Curve | None = None
    span: float = 40.0

    @property
    def cells(self) -> int:
        return self.value.mean.numel()

    def levels(self) -> Tensor:
        """Points of the support, (points, 1): every level, or 41 points of the density."""
        if self.value.discrete:
            return torch.from_numpy(self.support)[:, None]
        return torch.linspace(self.support[0], self.support[-1], 41, dtype=torch.float64)[:, None]

    def expectation(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """Σ or ∫ p(x) f(x) in every cell; for densities Gauss–Legendre with 32 nodes on each of 64 panels."""
        if self.line is None:
            x = self.levels()
            return (self.value.cell_log_prob(x).exp() * f(x)).sum(0)
        nodes, weights = np.polynomial.legendre.leggauss(32)
        edges = np.linspace(-self.span, self.span, 65)
        half = np.diff(edges)[:, None] / 2
        t = torch.from_numpy((edges[:-1, None] + half * (1 + nodes)).reshape(-1, 1))
        x, slope = self.line(t)
        weight = self.value.cell_log_prob(x).exp() * slope * torch.from_numpy((half * weights).reshape(-1, 1))
        return (weight * f(x)).sum(0)


def mixed(*parts: tuple[float, np.ndarray]) -> stats.distributions.rv_frozen:
    """The distribution over 0, 1, … whose masses are a weighted sum."""
    mass = sum(weight * mass for weight, mass in parts)
    return stats.rv_discrete(values=(np.arange(len(mass)), mass))()


def logistic_mass(loc: float, scale: float) -> np.ndarray:
    edges = np.array([-np.inf, *np.arange(255) + 0.5, np.inf])
    below, above = stats.logistic.cdf(edges, loc, scale), stats.logistic.sf(edges, loc, scale)
    return np.where(edges[1:] < loc, np.diff(below), -np.diff(above))  # from the side where a mass keeps its digits


def cumulative_mass(location: float, cutpoints: np.ndarray) -> np.ndarray:
    edges = np.array([-np.inf, *cutpoints, np.inf]) - location
    return np.where(edges[1:] < 0, np.diff(stats.logistic.cdf(edges)), -np.diff(stats.logistic.sf(edges)))


LOC, SCALE = tensor(-1.3, 0.2, 4.0), tensor(0.3, 1.0, 2.5)
LOGITS = tensor(-5.0, -0.4, 0.0, 1.7, 6.0)
FLAT = tensor(-9.0, -2.0, 1.5, 8.0)
CLASSES = tensor(0.3, -1.0, 2.0, 0.0, 4.0, -3.0, 1.0, 1.0).view(2, 4)
LOG_MEAN, LOG_R = tensor(-2.0, 0.5, 3.0, 2.0), tensor(0.0, -0.7, 1.5, 6.0)
DROPOUT = tensor(-3.0, 0.4, 1.0, 5.0)
PIXEL_LOC, LOG_SCALE = tensor(-3.0, 12.3, 128.5, 260.0), tensor(1.0, -0.5, 2.5, 1.5)
PARTS = tensor(0.0, 1.0, 2.0, -1.0, 0.5, 0.5).view(2, 3)  # logits of a mixture
PARTS_LOC = tensor(-3.0, 12.3, 128.5, 30.0, 31.0, 250.0).view(2, 3)
PARTS_SCALE = tensor(1.0, -0.5, 2.5, 0.0, 3.0, 1.5).view(2, 3)
MU, R, PI = LOG_MEAN.exp().numpy(), LOG_R.exp().numpy(), torch.sigmoid(DROPOUT).numpy()
DEGREES = tensor(3.5, 5.0, 40.0)
POSITION = tensor(-4.0, 0.1, 3.0)
CUTS = tensor(-2.0, -0.5, 0.0, 1.5, -1.0, -0.9, 2.0, 2.5, 0.0, 1.0, 2.0, 3.0).view(3, 4)


def counts(i: int) -> stats.distributions.rv_frozen:
    return stats.nbinom(R[i], R[i] / (R[i] + MU[i]))


def around(t: Tensor) -> tuple[Tensor, Tensor]:
    """Far into both tails: x = LOC + SCALE sinh t, a kink at LOC falling between two panels."""
    return LOC + SCALE * torch.sinh(t), SCALE * torch.cosh(t)


far32 = torch.tensor([-60.0, -20.0, -1e-3, 0.0, 1e-3, 20.0, 60.0])
log32 = torch.tensor([-20.0, -8.0, 0.0, 8.0, 20.0])
wide32, narrow32 = torch.tensor([-1e4, 1e4]), torch.tensor([1e-3, 1e4])
CASES = [
    Case(
        "normal",
        Normal(LOC, SCALE),
        np.array([-30.0, 30.0]),
        lambda i: stats.norm(LOC[i], SCALE[i]),
        (Normal(wide32, narrow32),),
        around,
        4.5,
    ),
    Case(
        "Laplace",
        Laplace(LOC, SCALE),
        np.array([-30.0, 30.0]),
        lambda i: stats.laplace(LOC[i], SCALE[i]),
        (Laplace(wide32, narrow32),),
        around,
        5.0,
    ),
    Case(
        "Student's t",
        StudentT(LOC, SCALE, DEGREES),
        np.array([-300.0, 300.0]),
        lambda i: stats.t(DEGREES[i], LOC[i], SCALE[i]),
        (
            StudentT(wide32, narrow32, torch.tensor([[1e-2], [0.7], [1.0], [19.9], [20.1], [1e3], [1e6], [1e20]])),
            StudentT(torch.tensor([1e30]), torch.tensor(1e-4), torch.tensor(3.0)),
        ),
        around,
    ),
    Case(
        "log-normal",
        LogNormal(LOC, SCALE / 5),
        np.array([1e-3, 300.0]),
        lambda i: stats.lognorm(SCALE[i] / 5, scale=LOC[i].exp()),
        (LogNormal(torch.tensor([-80.0, 0.0, 80.0]), torch.tensor([[1e-3], [1.0], [1e3]])),),
        lambda t: ((LOC + SCALE * t).exp(), SCALE * (LOC + SCALE * t).exp()),
        3.0,
    ),
    Case(
        "continuous Bernoulli",
        ContinuousBernoulli(FLAT),
        np.array([0.0, 1.0]),
        # On [0, 1] an exponential cut off at 1, mirrored where the logit is positive.
        lambda i: stats.truncexpon(abs(float(FLAT[i])), scale=1 / abs(float(FLAT[i]))),
        (ContinuousBernoulli(far32), ContinuousBernoulli(torch.tensor([-1e4, 1e4]))),
        lambda t: (0.5 + t, torch.ones_like(t)),
        0.5,
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
        lambda i: mixed((1.0, torch.softmax(CLASSES[i], -1).numpy())),
        (Categorical(torch.tensor([[-1e4, 0.0, 1e4], [60.0, 60.0, -60.0]])),),
    ),
    Case(
        "ordinal",
        Ordinal(POSITION, CUTS),
        np.arange(5.0),
        lambda i: mixed((1.0, cumulative_mass(float(POSITION[i]), CUTS[i].numpy()))),
        (
            Ordinal(torch.tensor([-1e4, -60.0, 0.0, 60.0, 1e4]), torch.tensor([-30.0, -29.99, 0.0, 1e-5, 40.0])),
            Ordinal(torch.tensor([-1e3, 1e3]), torch.tensor([-1e4, 0.0, 1.0, 1e4])),
        ),
    ),
    Case(
        "Poisson",
        Poisson(LOG_MEAN),
        np.arange(200.0),
        lambda i: stats.poisson(MU[i]),
        (Poisson(log32), Poisson(torch.tensor([-80.0, 80.0]))),
    ),
    Case(
        "negative binomial",
        NegativeBinomial(LOG_MEAN, LOG_R),
        np.arange(2000.0),
        counts,
        (NegativeBinomial(log32, log32[:, None]), NegativeBinomial(log32, torch.tensor(60.0))),
    ),
    Case(
        "zero-inflated negative binomial",
        ZeroInflatedNegativeBinomial(LOG_MEAN, LOG_R, DROPOUT),
        np.arange(2000.0),
        lambda i: mixed((PI[i], np.arange(2000) == 0), (1 - PI[i], counts(i).pmf(np.arange(2000)))),
        (
            ZeroInflatedNegativeBinomial(log32, log32[:, None], far32[:, None, None]),
            ZeroInflatedNegativeBinomial(log32, torch.tensor(60.0), torch.tensor([[-1e4], [1e4]])),
        ),
    ),
    Case(
        "discretised logistic",
        DiscretizedLogistic(PIXEL_LOC, LOG_SCALE),
        np.arange(256.0),
        lambda i: mixed((1.0, logistic_mass(float(PIXEL_LOC[i]), math.exp(LOG_SCALE[i])))),
        (
            DiscretizedLogistic(torch.tensor([-1e3, 0.0, 128.0, 255.0, 1e3]), torch.tensor([[-4.0], [0.0], [10.0]])),
            DiscretizedLogistic(torch.tensor([0.0, 100.0]), torch.tensor(math.log(0.01))),
        ),
    ),
    Case(
        "discretised logistic mixture",
        DiscretizedLogisticMixture(PARTS, PARTS_LOC, PARTS_SCALE),
        np.arange(256.0),
        lambda i: mixed(
            *zip(
                torch.softmax(PARTS[i], -1).tolist(),
                map(logistic_mass, PARTS_LOC[i].tolist(), PARTS_SCALE[i].exp().tolist()),
                strict=True,
            )
        ),
        (
            DiscretizedLogisticMixture(
                torch.tensor([-1e4, 0.0, 60.0]), torch.tensor([-1e3, 128.0, 1e3]), torch.tensor([[-4.0], [0.0], [10.0]])
            ),
        ),
    ),
]


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
