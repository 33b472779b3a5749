"""Trained by `fit`, a linear VAE reaches the maximum-likelihood solution of probabilistic PCA, which is exact.

With z ~ N(0, I) and x | z ~ N(W z + b, σ² I), log p(x) = log N(x; b, W Wᵀ + σ² I). On training rows with covariance
S = U Λ Uᵀ it is greatest at σ² = mean of the D − k smallest eigenvalues, W = U_k (Λ_k − σ² I)^½, b = mean (Tipping and
Bishop 1999, equations 14 and 15); the ELBO of the linear VAE has the same maximum (Lucas et al. 2019).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import vaelid as vd

SIZE, LATENT, ROWS = 8, 3, 2000


def rows(seed: int) -> np.ndarray:
    """Rows of a PPCA model with correlated columns of W, features of different scale, and a mean far from 0."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(SIZE, LATENT)) * [2.0, 1.2, 0.7]
    z, noise = rng.normal(size=(ROWS, LATENT)), rng.normal(size=(ROWS, SIZE))
    return z @ loadings.T + 5 * rng.normal(size=SIZE) + 0.5 * noise


def maximum_likelihood(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the PPCA fitted to the rows."""
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    noise = values[:-LATENT].mean()
    top = vectors[:, -LATENT:]
    return x.mean(0), (top * (values[-LATENT:] - noise)) @ top.T + noise * np.eye(SIZE)


def marginal(model: vd.VAE) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of p(x), which the decoder's weights say exactly."""
    likelihood, layer = model.likelihood, model.likelihood.network.layers[0]
    with torch.no_grad():
        weight = likelihood.unit[:, None] * layer.weight
        mean = likelihood.loc + likelihood.unit * layer.bias
        sigma = likelihood.scale(None, likelihood.unit, likelihood.floor)
        covariance = weight @ weight.T + sigma.square() * torch.eye(SIZE, dtype=weight.dtype)
    return mean.numpy(), covariance.numpy()


@pytest.mark.parametrize("seed", [0, 1])
def test_fit_reaches_the_closed_form_likelihood(seed: int) -> None:
    x = rows(seed)
    encoder = vd.networks.MLP(SIZE, LATENT, hidden=(), heads=2)
    scale = vd.likelihoods.LearnedScale(())
    likelihood = vd.likelihoods.Gaussian(vd.networks.MLP(LATENT, SIZE, hidden=()), (SIZE,), scale)
    model = vd.VAE(vd.priors.StandardNormal(LATENT), likelihood, vd.posteriors.DiagonalNormal(encoder)).double()
    data = vd.data.load(x)
    parts = vd.data.standard_split(ROWS)
    model.likelihood.adapt(torch.from_numpy(data.x[parts.train]))
    history = vd.fit(model, data, split_rows=parts, seed=seed, progress=False)
    assert history.rollbacks == []

    train, test = (data.x[part].astype(np.float64) for part in (parts.train, parts.test))
    best = stats.multivariate_normal(*maximum_likelihood(train))
    ours = stats.multivariate_normal(*marginal(model))
    assert abs(ours.logpdf(test).mean() - best.logpdf(test).mean()) <= 0.05
    # on the rows it was fitted to, nothing of this form is likelier than the closed form
    shortfall = best.logpdf(train).mean() - ours.logpdf(train).mean()
    assert 0 <= shortfall <= 0.05

    # the bounds lie below log p(x), and the many-sample one has all but reached it
    evaluation = vd.evaluate(model, data.x[parts.test], samples=500)
    exact = ours.logpdf(test).mean()
    assert evaluation.elbo.value < evaluation.iwae.value < exact + 5 * evaluation.iwae_mc_se
    assert evaluation.iwae.value == pytest.approx(exact, abs=0.01 + 5 * evaluation.iwae_mc_se)
    assert math.isclose(exact, evaluation.elbo.value, abs_tol=0.5)
