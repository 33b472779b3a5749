"""Likelihoods p(x|z): decoders whose call returns a distribution value over x in the data's own units.

Preprocessing belongs here. A likelihood decides what an encoder sees (`Likelihood.features`) and how the network's
outputs become parameters in the units of x, so that log p(x) never needs a Jacobian added afterwards. What it has
to learn from data for that (means, scales) is set once, by `Likelihood.adapt` on training rows, and kept as buffers.
So does the geometry of p(x|z): `Likelihood.embedding` gives the coordinates in which distances are measured.
"""

from vaelid.likelihoods.base import Likelihood
from vaelid.likelihoods.continuous import ContinuousBernoulli, Gaussian, Laplace, LocationScale, LogNormal, StudentT
from vaelid.likelihoods.counts import Counts, NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vaelid.likelihoods.finite import Bernoulli, Binomial, Categorical, Ordinal
from vaelid.likelihoods.pixels import DiscretizedLogistic, DiscretizedLogisticMixture
from vaelid.likelihoods.scale import FixedScale, LearnedScale, PredictedScale, Scale
from vaelid.likelihoods.units import resolution

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "Counts",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "FixedScale",
    "Gaussian",
    "Laplace",
    "LearnedScale",
    "Likelihood",
    "LocationScale",
    "LogNormal",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "PredictedScale",
    "Scale",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
    "resolution",
]
