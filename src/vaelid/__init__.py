"""vaelid: variational autoencoders whose numbers hold.

    import vaelid as vd

    data = vd.data.load("digits")
    model = vd.recipes.vae(data, latent=8)
    history = vd.fit(model, data)
    vd.evaluate(model, data.x[history.split.test])

Three distributions make a model (`priors`, `likelihoods`, `posteriors`); everything else is a question asked of it.
"""

__version__ = "0.1.0"

from vaelid import (
    data,
    diagnostics,
    distributions,
    evidence,
    fitted,
    geometry,
    likelihoods,
    networks,
    objectives,
    posteriors,
    priors,
    recipes,
    runs,
    training,
    transports,
    wrapping,
)
from vaelid.diagnostics import evaluate
from vaelid.errors import InputError, Interrupted, RunError, VaelidError
from vaelid.model import VAE
from vaelid.random import Key
from vaelid.runs import fit, load, resume
from vaelid.training import Settings
from vaelid.types import Batch
from vaelid.wrapping import wrap

__all__ = [
    "VAE",
    "Batch",
    "InputError",
    "Interrupted",
    "Key",
    "RunError",
    "Settings",
    "VaelidError",
    "data",
    "diagnostics",
    "distributions",
    "evaluate",
    "evidence",
    "fit",
    "fitted",
    "geometry",
    "likelihoods",
    "load",
    "networks",
    "objectives",
    "posteriors",
    "priors",
    "recipes",
    "resume",
    "runs",
    "training",
    "transports",
    "wrap",
    "wrapping",
]
