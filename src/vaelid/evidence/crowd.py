"""Importance sampling from the prior with draws that all rows share: weak in many dimensions, blind to none in few."""

from __future__ import annotations

import math
from typing import Any, Self, final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vaelid.distributions import Bernoulli, Binomial, Distribution, Normal
from vaelid.distributions.special import HALF_LOG_2PI
from vaelid.evidence.weights import reduced
from vaelid.random import Key
from vaelid.types import Batch

DRAWS = 20_000
CELLS = 1 << 24  # decoded cells held at once; larger events have fewer draws
WORK = 1 << 22  # cells per row of data where the density has to be taken cell by cell, and
BLOCK = 1 << 22  # cells at a time then
LINEAR = Bernoulli | Binomial | Normal  # what `_linear` can do


@final
class Crowd:
    """Latents decoded once, for the density of many rows under all of them.

    Drawn from the prior they give p(x) ≈ 1/N Σ_n p(x|z_n), which knows nothing of an encoder and shares none of its
    blind spots. Rows with covariates would each need draws of their own; there is no crowd for them.

    Attributes:
        z: the latents, (n, 1, d).
    """

    @torch.no_grad()
    def __init__(self, model: Any, z: Tensor) -> None:
        self.z, self._model = z, model
        linear = isinstance(model.decode(z[:1]), LINEAR)
        self._decoded: Distribution | None = model.decode(z) if linear else None

    @classmethod
    @torch.no_grad()
    def drawn(cls, model: Any, batch: Batch, key: Key) -> Self:
        """z ~ p(z): `DRAWS`, or as many as memory and time allow with events of this size."""
        cells, prior = batch.x[0].numel(), model.prior_given()
        row = torch.zeros(1, dtype=torch.int64, device=batch.x.device)
        first = prior.push(key.normal_rows(row, 1, prior.size, dtype=model.dtype))[0]
        most = CELLS if isinstance(model.decode(first), LINEAR) else WORK
        draws = max(64, min(DRAWS, most // cells))
        return cls(model, prior.push(key.normal_rows(row, draws, prior.size, dtype=model.dtype))[0])

    @torch.no_grad()
    def log_likelihood(self, batch: Batch) -> Tensor:
        """log p(x|z_n), (n, row), float64, nats."""
        x = batch.x.to(self._model.dtype)
        if self._decoded is not None:
            return _linear(self._decoded, x, batch.mask)
        block = max(1, BLOCK // x.numel())
        parts = [self._model.decode(z).log_prob(x, batch.mask) for z in torch.split(self.z, block)]
        return torch.cat(parts).double()

    @torch.no_grad()
    def log_evidence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """log (1/N Σ p(x|z_n)) and its Monte Carlo standard error, (row,)."""
        estimate, mc_se, _ = reduced(self.log_likelihood(batch), reverse=False)
        return estimate, mc_se

    @torch.no_grad()
    def hint(self, batch: Batch, chains: int, key: Key) -> tuple[Tensor, Tensor]:
        """Draws resampled by p(x|z), (chain, row, d), and log p(x) as in `log_evidence`."""
        log_weight = self.log_likelihood(batch).nan_to_num(nan=-math.inf)
        total = log_weight.logsumexp(0)
        share = (log_weight - total).nan_to_num(nan=-math.inf).exp().cumsum(0).T.contiguous()
        uniform = key.uniform_rows(batch.ids(), chains, 1, dtype=torch.float64)[..., 0].T.contiguous()
        picked = torch.searchsorted(share, uniform * share[:, -1:]).clamp(max=len(self.z) - 1)
        return self.z[:, 0][picked.T], total - math.log(len(self.z))


def _linear(likelihood: Distribution, x: Tensor, mask: Tensor | None) -> Tensor:
    """log p(x_r | z_n) of every row r under every draw n, (n, row), float64.

    Of Bernoulli, binomial and normal cells it is linear in functions of x, log p = Σ t(x) · η(z) − a(z): matrix
    products.
    """
    seen = torch.ones_like(x) if mask is None else mask.expand_as(x).to(x.dtype)
    x = x if mask is None else torch.where(mask, x, likelihood.inside)
    x, seen = x.flatten(1).double(), seen.flatten(1).double()

    def flat(values: Tensor) -> Tensor:
        return values.reshape(len(values), -1).double()

    match likelihood:
        case Bernoulli(logits=logits):
            return flat(logits) @ (seen * x).T + flat(logsigmoid(-logits)) @ seen.T
        case Binomial(logits=logits, trials=n):
            choose = math.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
            return flat(logits) @ (seen * x).T + n * flat(logsigmoid(-logits)) @ seen.T + (seen * choose).sum(1)
        case Normal(loc=loc, scale=scale):
            precision = flat(scale.expand_as(loc)).square().reciprocal()
            constant = 0.5 * precision.log() - 0.5 * flat(loc).square() * precision - HALF_LOG_2PI
            linear = (flat(loc) * precision) @ (seen * x).T - 0.5 * precision @ (seen * x.square()).T
            return linear + constant @ seen.T
        case _:
            raise NotImplementedError(type(likelihood).__name__)
