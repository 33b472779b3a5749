"""Models whose log p(x), posterior and tempered integrals are known in closed form, for several files; float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vaelid.distributions import Normal
from vaelid.evidence.tuning import Tuning
from vaelid.likelihoods import Gaussian, LearnedScale
from vaelid.model import VAE
from vaelid.posteriors import DiagonalNormal, FullNormal
from vaelid.priors import Mixture, Prior, StandardNormal
from vaelid.random import Key
from vaelid.types import Batch, Group, Trace

FLOOR = 1e-3  # of a LearnedScale


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """x = W z + b + ψ ε with z ~ Σ_k w_k N(μ_k, diag s_k²): factor analysis where there is one component, N(0, I).

    Given x, z is a mixture of normals N(m_k, Λ_k⁻¹), Λ_k = diag s_k⁻² + Wᵀ Ψ⁻¹ W, Ψ = diag ψ², with weights in
    proportion to w_k N(x; W μ_k + b, W diag s_k² Wᵀ + Ψ), whose sum is p(x).
    """

    weight: Tensor  # W, (D, d)
    mean: Tensor  # b, (D,)
    psi: Tensor  # (D,)
    x: Tensor  # (rows, D)
    prior_weight: Tensor  # (K,)
    prior_loc: Tensor  # (K, d)
    prior_scale: Tensor  # (K, d)

    @property
    def latent(self) -> int:
        return self.weight.shape[1]

    @property
    def components(self) -> int:
        return len(self.prior_weight)

    def log_evidence(self, beta: float = 1.0) -> Tensor:
        """log ∫ p(z) p(x|z)^β dz of every row: N(x; W z + b, Ψ)^β is c_β N(x; W z + b, Ψ/β)."""
        variance = self.psi.square()
        constant = 0.5 * (1 - beta) * (2 * math.pi * variance).log().sum() - 0.5 * len(self.psi) * math.log(beta)
        return constant + self._marginals(beta).logsumexp(-1)

    def _marginals(self, beta: float = 1.0) -> Tensor:
        """log w_k + log N(x; W μ_k + b, W diag s_k² Wᵀ + Ψ/β), (rows, K)."""
        wide = self.weight * self.prior_scale.unsqueeze(-2)  # (K, D, d)
        covariance = wide @ wide.mT + torch.diag(self.psi.square() / beta)
        loc = self.prior_loc @ self.weight.T + self.mean
        return self.prior_weight.log() + MultivariateNormal(loc, covariance).log_prob(self.x.unsqueeze(1))

    def posterior(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (rows, K), means (rows, K, d) and precisions (K, d, d) of p(z|x)."""
        scaled = self.weight / self.psi.square().unsqueeze(-1)
        inner = torch.diag_embed(self.prior_scale.square().reciprocal())
        precision = inner + self.weight.T @ scaled
        pull = (inner @ self.prior_loc.unsqueeze(-1)).squeeze(-1) + ((self.x - self.mean) @ scaled).unsqueeze(1)
        loc = torch.linalg.solve(precision, pull.unsqueeze(-1)).squeeze(-1)
        return self._marginals().softmax(-1), loc, precision

    def draws(self, key: Key) -> Tensor:
        """One exact draw from p(z|x) for every row, (rows, d)."""
        weight, loc, precision = self.posterior()
        rows = len(self.x)
        uniform = key.fold("component").uniform((rows, 1), dtype=torch.float64)
        pick = (weight.cumsum(-1) < uniform).sum(-1).clamp(max=self.components - 1)
        root = torch.linalg.cholesky(torch.linalg.inv(precision))[pick]
        noise = key.fold("z").normal((rows, self.latent, 1), dtype=torch.float64)
        return loc[torch.arange(rows), pick] + (root @ noise).squeeze(-1)

    def repeated(self, row: int, times: int) -> LinearGaussian:
        """The same model with one row many times over: under other row ids, independent repetitions of a run."""
        x = self.x[row].expand(times, -1)
        parts = (self.prior_weight, self.prior_loc, self.prior_scale)
        return LinearGaussian(self.weight, self.mean, self.psi, x, *parts)

    def model(self, *, shift: float = 0.0, stretch: float = 1.0, full: bool = False) -> VAE:
        """The model as a VAE. Its q has the mean that p(z|x) would have under a prior N(0, I), moved by ``shift``, and
        that posterior's standard deviations times ``stretch``; its correlations too where ``full``.
        """
        size, latent = self.weight.shape
        scaled = self.weight / self.psi.square().unsqueeze(-1)
        covariance = torch.linalg.inv(torch.eye(latent, dtype=torch.float64) + self.weight.T @ scaled)
        slope = covariance @ scaled.T
        decoder, scale = nn.Linear(latent, size), LearnedScale((size,))
        encoder = nn.Linear(size, latent + latent * (latent + 1) // 2 if full else 2 * latent)
        posterior = FullNormal(encoder, latent) if full else DiagonalNormal(encoder)
        model = VAE(self._prior(), Gaussian(decoder, (size,), scale), posterior).double()
        tril = torch.linalg.cholesky(covariance)
        spread = tril.diagonal() if full else covariance.diagonal().sqrt()
        row, column = torch.tril_indices(latent, latent, -1)
        below = (tril / spread.unsqueeze(-1))[row, column] * math.sqrt(latent) if full else torch.zeros(0)
        with torch.no_grad():
            decoder.weight.copy_(self.weight)
            decoder.bias.copy_(self.mean)
            scale.rho.copy_((self.psi - FLOOR).log())
            encoder.weight.zero_()
            encoder.weight[:latent] = slope
            encoder.bias.copy_(torch.cat((shift - slope @ self.mean, (spread * stretch).log(), below)))
        return model

    def _prior(self) -> Prior:
        if self.components == 1:
            return StandardNormal(self.latent)
        prior = Mixture(self.latent, self.components).double()
        with torch.no_grad():
            prior.logits.copy_(self.prior_weight.log())
            prior.loc.copy_(self.prior_loc)
            prior.log_scale.copy_(self.prior_scale.log())
        return prior

    def log_tempered(self, beta: float, loc: Tensor, covariance: Tensor) -> Tensor:
        """log ∫ b(z)^(1−β) p(x, z)^β dz for b = N(loc, covariance), one component; (rows, d) and (d, d).

        With p(x, z) = p(x) N(z; m, Λ⁻¹) this is β log p(x) and the integral of a product of powers of two normals:
        ½ [(1−β) log|B| + β log|Λ| − log|P| + hᵀ P⁻¹ h − (1−β) locᵀ B loc − β mᵀ Λ m], where B is the precision of b,
        P = (1−β) B + β Λ and h = (1−β) B loc + β Λ m.
        """
        _, means, precisions = self.posterior()
        m, outer, inner = means[:, 0], precisions[0], torch.linalg.inv(covariance)
        total = (1 - beta) * inner + beta * outer
        h = (1 - beta) * loc @ inner + beta * m @ outer
        squares = (h @ torch.linalg.inv(total) * h).sum(-1)
        squares = squares - (1 - beta) * (loc @ inner * loc).sum(-1) - beta * (m @ outer * m).sum(-1)
        logs = (1 - beta) * inner.logdet() + beta * outer.logdet() - total.logdet()
        return beta * self.log_evidence() + 0.5 * (logs + squares)


def correlated(rows: int = 8, latent: int = 2, common: float = 1.5) -> LinearGaussian:
    """Factor analysis of five features whose posterior has correlations, strong ones where all columns of W point one
    way, which ``common`` makes them do.
    """
    key, size = Key(31), 5
    weight = common + 0.5 * key.fold("W").normal((size, latent), dtype=torch.float64)
    mean = key.fold("mean").normal((size,), dtype=torch.float64)
    psi = torch.linspace(0.6, 1.2, size, dtype=torch.float64)
    z = key.fold("z").normal((rows, latent), dtype=torch.float64)
    x = z @ weight.T + mean + psi * key.fold("x").normal((rows, size), dtype=torch.float64)
    one = torch.ones(1, latent, dtype=torch.float64)
    return LinearGaussian(weight, mean, psi, x, one[:, 0], 0 * one, one)


def several_modes(rows: int = 8, noise: float = 1.0) -> LinearGaussian:
    """Three clusters in two dimensions, seen with noise through the first of them: a posterior of several modes."""
    key = Key(32)
    weight = torch.tensor([[1.0, 0.3], [0.5, -0.2], [0.0, 0.4]], dtype=torch.float64)
    mean, psi = torch.zeros(3, dtype=torch.float64), noise * torch.tensor([0.8, 1.0, 1.2], dtype=torch.float64)
    loc = torch.tensor([[-1.5, 1.0], [0.0, -1.5], [1.5, 1.5]], dtype=torch.float64)
    scale = torch.tensor([[0.3, 0.4], [0.4, 0.3], [0.5, 0.5]], dtype=torch.float64)
    pick = torch.arange(rows) % 3
    z = loc[pick] + scale[pick] * key.fold("z").normal((rows, 2), dtype=torch.float64)
    x = z @ weight.T + mean + psi * key.fold("x").normal((rows, 3), dtype=torch.float64)
    return LinearGaussian(weight, mean, psi, x, torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64), loc, scale)


@dataclass(frozen=True, eq=False)
class LadderProblem:
    """What a ladder shows of itself: batch, noise_size, noise, trace and noise_of, no more."""

    ladder: Ladder
    batch: Batch
    start: Literal["posterior", "prior"]

    noise_size = 3

    def noise(self, key: Key, samples: int, start: int = 0) -> Tensor:
        return key.normal_rows(self.batch.ids(), samples, self.noise_size, start=start, dtype=torch.float64)

    def trace(self, u: Tensor) -> Trace:
        top_prior = self.ladder.top()
        top_start = self.ladder.encoded_top(self.batch.x) if self.start == "posterior" else top_prior
        top, log_top = top_start.push(u[..., :1])
        low_prior = self.ladder.low(top)
        low_start = self.ladder.encoded_low(self.batch.x, top) if self.start == "posterior" else low_prior
        low, log_low = low_start.push(u[..., 1:])
        groups = (
            Group(top, top_prior, top_start, top_prior.log_prob(top), log_top),
            Group(low, low_prior, low_start, low_prior.log_prob(low), log_low),
        )
        likelihood = self.ladder.decoded(low)
        return Trace(groups, likelihood, likelihood.log_prob(self.batch.x))

    def noise_of(self, z: Tensor) -> Tensor:
        top, low = z[..., :1], z[..., 1:]
        posterior = self.start == "posterior"
        top_start = self.ladder.encoded_top(self.batch.x) if posterior else self.ladder.top()
        low_start = self.ladder.encoded_low(self.batch.x, top) if posterior else self.ladder.low(top)
        return torch.cat((top_start.pull(top), low_start.pull(low)), -1)


class Ladder(nn.Module):
    """z₂ ~ N(0, 1), z₁ | z₂ ~ N(a z₂, s² I) in two dimensions, x | z₁ ~ N(W z₁, σ² I); q is poor on purpose.

    Marginally z = (z₂, z₁) is a normal with covariance C, and x ~ N(0, W C₁₁ Wᵀ + σ² I).
    """

    def __init__(self) -> None:
        super().__init__()
        key, double = Key(33), torch.float64
        self.register_buffer("slope", torch.tensor([1.2, -0.7], dtype=double))
        self.register_buffer("weight", key.fold("W").normal((4, 2), dtype=double))
        self.spread, self.sigma = 0.5, 0.7

    def batch(self, x: Any) -> Batch:
        return x if isinstance(x, Batch) else Batch(x)

    def given(self, batch: Batch, start: Literal["posterior", "prior"] = "posterior") -> LadderProblem:
        return LadderProblem(self, batch, start)

    def top(self) -> Normal:
        one = torch.ones(1, dtype=torch.float64)
        return Normal(0 * one, one)

    def low(self, top: Tensor) -> Normal:
        loc = top * self.slope
        return Normal(loc, torch.full_like(loc, self.spread))

    def encoded_top(self, x: Tensor) -> Normal:
        loc = 0.2 * x[:, :1] + 0.3
        return Normal(loc, torch.full_like(loc, 0.9))

    def encoded_low(self, x: Tensor, top: Tensor) -> Normal:
        loc = 0.4 * x @ self.weight + 0.2 * top
        return Normal(loc, torch.full_like(loc, 0.6))

    def decoded(self, low: Tensor) -> Normal:
        loc = low @ self.weight.T
        return Normal(loc, torch.full_like(loc, self.sigma))

    def covariance(self) -> Tensor:
        """C, of (z₂, z₁), (3, 3)."""
        slope = torch.cat((torch.ones(1, dtype=torch.float64), self.slope))
        noise = torch.diag(torch.tensor([0.0, self.spread**2, self.spread**2], dtype=torch.float64))
        return torch.outer(slope, slope) + noise

    def joint(self, rows: int, key: Key) -> tuple[Tensor, Tensor]:
        """x (rows, 4) and the z (rows, 3) behind it."""
        root = torch.linalg.cholesky(self.covariance())
        z = key.fold("z").normal((rows, 3), dtype=torch.float64) @ root.T
        return z[:, 1:] @ self.weight.T + self.sigma * key.fold("x").normal((rows, 4), dtype=torch.float64), z

    def log_evidence(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.covariance()[1:, 1:] @ self.weight.T
        covariance = covariance + self.sigma**2 * torch.eye(4, dtype=torch.float64)
        return MultivariateNormal(torch.zeros(4, dtype=torch.float64), covariance).log_prob(x)

    def draws(self, x: Tensor, key: Key) -> Tensor:
        """One exact draw from p(z|x) for every row, (rows, 3)."""
        wide = torch.cat((torch.zeros(4, 1, dtype=torch.float64), self.weight), 1) / self.sigma
        covariance = torch.linalg.inv(torch.linalg.inv(self.covariance()) + wide.T @ wide)
        loc = x / self.sigma @ wide @ covariance
        return loc + key.normal((len(x), 3), dtype=torch.float64) @ torch.linalg.cholesky(covariance).T


def fixed_steps(rows: int, step: float, loc: Tensor | None = None, scale: Tensor | None = None) -> Tuning:
    """Settings made by hand: one step size for all rows and temperatures."""
    flat = torch.full((2, rows), math.log(step), dtype=torch.float64)
    return Tuning(torch.tensor([0.0, 1.0], dtype=torch.float64), flat, torch.ones_like(flat), loc, scale)


def z_score(log_ratio: Tensor) -> tuple[float, float]:
    """(mean ratio − 1) / its standard error, and that error, over all independent entries."""
    ratio = log_ratio.double().exp().flatten()
    error = float(ratio.std()) / math.sqrt(len(ratio))
    return (float(ratio.mean()) - 1) / error, error
