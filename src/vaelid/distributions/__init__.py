"""Distribution values: small frozen families over tensors, with density, moments and quantiles per cell."""

from vaelid.distributions.base import Distribution
from vaelid.distributions.continuous import ContinuousBernoulli, Normal
from vaelid.distributions.counts import Bernoulli, Binomial, Categorical, NegativeBinomial
from vaelid.distributions.divergence import has_kl, kl_cells
from vaelid.distributions.pixels import DiscretizedLogistic

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Distribution",
    "NegativeBinomial",
    "Normal",
    "has_kl",
    "kl_cells",
]
