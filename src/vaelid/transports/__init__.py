"""Transports: distributions over z that are reached from noise u ~ N(0, I), as values; priors and posteriors make them.

Each is a `vaelid.types.Transport`: `push` gives z = T(u) with log q(z), `pull` the noise, `log_prob` the density at
any z, `detach` the same distribution with its parameters cut from the graph. Parameters have shape (batch, …), or any
shape that broadcasts with it; z has shape (sample, batch, d), as u has. Log-densities are in nats.
`vaelid.distributions.Normal` is the diagonal one.
"""

from vaelid.transports.divergence import has_kl, kl_cells
from vaelid.transports.flow import Autoregressive, AutoregressiveStack, Chain, DensityFlow, Flow
from vaelid.transports.full import FullNormal
from vaelid.transports.mixture import MixtureOfNormals
from vaelid.transports.planar import Planar

__all__ = [
    "Autoregressive",
    "AutoregressiveStack",
    "Chain",
    "DensityFlow",
    "Flow",
    "FullNormal",
    "MixtureOfNormals",
    "Planar",
    "has_kl",
    "kl_cells",
]
