"""One thread, fixed seeds, and the model whose every number is known: probabilistic PCA."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; child processes inherit it

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from vaelid.likelihoods import FixedScale, Gaussian, LearnedScale, Scale
from vaelid.model import VAE
from vaelid.posteriors import DiagonalNormal
from vaelid.priors import StandardNormal
from vaelid.random import Key

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Initial weights, the only thing that PyTorch's global generator draws, are the same in every run."""
    torch.manual_seed(0)


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, or the reason why there is none; one for all tests of a process, which can have no second one."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield chromium
        chromium.close()
        for child in multiprocessing.active_children():
            child.terminate()  # what was forked holds open the pipe on whose end the driver goes


@dataclass(frozen=True, eq=False)
class PPCA:
    """x = W z + μ + σ ε with orthogonal columns of W, so that the exact posterior is diagonal; float64.

    x ~ N(μ, W Wᵀ + σ² I); z | x ~ N(M⁻¹ Wᵀ (x − μ), σ² M⁻¹), M = Wᵀ W + σ² I (Tipping and Bishop 1999).
    """

    weight: Tensor
    mean: Tensor
    sigma: float
    x: Tensor

    @property
    def latent(self) -> int:
        return self.weight.shape[1]

    @property
    def covariance(self) -> Tensor:
        return self.weight @ self.weight.T + self.sigma**2 * torch.eye(len(self.mean), dtype=torch.float64)

    def log_evidence(self) -> Tensor:
        """log p(x) of every row."""
        exact = stats.multivariate_normal(self.mean.numpy(), self.covariance.numpy())
        return torch.from_numpy(np.atleast_1d(exact.logpdf(self.x.numpy())))

    def posterior(self) -> tuple[Tensor, Tensor, Tensor]:
        """Slope (k, D), offset (k,) and scale (k,) of the exact posterior N(slope x + offset, diag scale²)."""
        precision = self.weight.square().sum(0) + self.sigma**2
        slope = self.weight.T / precision[:, None]
        return slope, -slope @ self.mean, self.sigma / precision.sqrt()

    def model(self, *, shift: float = 0.0, stretch: float = 1.0, scale: Scale | None = None) -> VAE:
        """The model as a VAE; its q is the exact posterior moved by ``shift`` and stretched by ``stretch``."""
        slope, offset, spread = self.posterior()
        size, latent = self.weight.shape
        if scale is None:
            scale = FixedScale(self.sigma)
        decoder, encoder = nn.Linear(latent, size), nn.Linear(size, 2 * latent)
        model = VAE(StandardNormal(latent), Gaussian(decoder, (size,), scale), DiagonalNormal(encoder)).double()
        with torch.no_grad():
            decoder.weight.copy_(self.weight)
            decoder.bias.copy_(self.mean)
            encoder.weight.copy_(torch.cat((slope, torch.zeros_like(slope))))
            encoder.bias.copy_(torch.cat((offset + shift, (spread * stretch).log())))
            if isinstance(scale, LearnedScale):
                scale.rho.fill_(math.log(self.sigma - float(model.likelihood.floor.min())))
        return model

    def elbo(self, model: VAE, x: Tensor | None = None) -> Tensor:
        """The ELBO of a linear VAE in closed form, per row, differentiable in every parameter.

        E_q log p(x|z) = −½ D log 2πσ² − (|x − b − W m|² + Σ_j s_j² |w_j|²) / 2σ²,
        KL = ½ Σ_j (s_j² + m_j² − 1 − log s_j²).
        """
        return self.reconstruction(model, x) - self.kl(model, x).sum(1)

    def reconstruction(self, model: VAE, x: Tensor | None = None) -> Tensor:
        x = self.x if x is None else x
        decoder: nn.Linear = model.likelihood.network
        m, log_s = model.posterior.network(x).chunk(2, dim=1)
        unit, floor = model.likelihood.unit, model.likelihood.floor
        sigma = model.likelihood.scale(None, unit, floor).expand(x.shape[1])
        error = (x - decoder(m)).square() + (2 * log_s).exp() @ decoder.weight.square().T
        return -0.5 * (error / sigma.square() + 2 * sigma.log() + math.log(2 * math.pi)).sum(1)

    def kl(self, model: VAE, x: Tensor | None = None) -> Tensor:
        """KL(q ‖ p) per row and latent dimension."""
        m, log_s = model.posterior.network(self.x if x is None else x).chunk(2, dim=1)
        return 0.5 * ((2 * log_s).exp() + m.square() - 1 - 2 * log_s)


@pytest.fixture
def ppca() -> PPCA:
    """Sixteen rows of six features from two latents."""
    key, double, size, latent, rows = Key(7), torch.float64, 6, 2, 16
    directions = torch.linalg.qr(key.fold("W").normal((size, latent), dtype=double)).Q
    weight = directions * torch.linspace(1.5, 0.8, latent, dtype=double)
    mean, sigma = key.fold("mean").normal((size,), dtype=double), 0.6
    z, noise = key.fold("z").normal((rows, latent), dtype=double), key.fold("x").normal((rows, size), dtype=double)
    return PPCA(weight, mean, sigma, z @ weight.T + mean + sigma * noise)
