"""Latent space as a manifold: the metric that a decoder's distribution induces, and what follows from it.

    f = vd.geometry.embedding(model)          # Fisher–Rao; or mean_embedding, moments_embedding, any function of z
    graph = vd.geometry.Graph.build(f, z)     # optional: latent means of training rows
    found = vd.geometry.geodesic(f, a, b, graph=graph)
    found.length, found.chord, found.error, found.converged

Everything is batched over points or pairs, and works for embeddings, for a `MetricField` where it can, and for any
function (n, d) → (n, D) such as a decoder that you have.
"""

from vaelid.geometry.curvature import sectional_curvature
from vaelid.geometry.distances import Distances, Neighbours, distances, nearest
from vaelid.geometry.embedding import embedding, ensemble, joint, mean_embedding, moments_embedding
from vaelid.geometry.geodesic import Geodesics, geodesic
from vaelid.geometry.graph import Graph
from vaelid.geometry.identifiability import Identifiability, identifiability
from vaelid.geometry.manifold import Embedding, Manifold, MetricField
from vaelid.geometry.maps import Shot, distance_gradient, exp_map, log_map, parallel_transport
from vaelid.geometry.means import FrechetMean, frechet_mean
from vaelid.geometry.metrics import energy, length, log_volume, metric, speed
from vaelid.geometry.newton import Status
from vaelid.geometry.potentials import decoder_variance, disagreement, off_data, with_potential
from vaelid.geometry.targets import Flat, Hyperbolic, Product, Stretched, Target

__all__ = [
    "Distances",
    "Embedding",
    "Flat",
    "FrechetMean",
    "Geodesics",
    "Graph",
    "Hyperbolic",
    "Identifiability",
    "Manifold",
    "MetricField",
    "Neighbours",
    "Product",
    "Shot",
    "Status",
    "Stretched",
    "Target",
    "decoder_variance",
    "disagreement",
    "distance_gradient",
    "distances",
    "embedding",
    "energy",
    "ensemble",
    "exp_map",
    "frechet_mean",
    "geodesic",
    "identifiability",
    "joint",
    "length",
    "log_map",
    "log_volume",
    "mean_embedding",
    "metric",
    "moments_embedding",
    "nearest",
    "off_data",
    "parallel_transport",
    "sectional_curvature",
    "speed",
    "with_potential",
]
