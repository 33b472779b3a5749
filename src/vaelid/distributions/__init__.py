"""Distribution values: small frozen families over tensors, with density, moments and quantiles per cell."""

from vaelid.distributions.base import Distribution
from vaelid.distributions.continuous import ContinuousBernoulli, Normal
from vaelid.distributions.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vaelid.distributions.divergence import has_kl, kl_cells
from vaelid.distributions.finite import Bernoulli, Binomial, Categorical, Ordinal
from vaelid.distributions.heavy_tails import Laplace, LogNormal, StudentT
from vaelid.distributions.pixels import DiscretizedLogistic, DiscretizedLogisticMixture

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Distribution",
    "Laplace",
    "LogNormal",
    "NegativeBinomial",
    "Normal",
    "Ordinal",
    "Poisson",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
    "has_kl",
    "kl_cells",
]
