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

DRAWS = 1 << 15
REPLICATES = 8  # sets of draws, each spread evenly and independent of the others
CELLS = 1 << 25  # decoded cells held at once; larger events have fewer draws
AT_ONCE = 1 << 12  # draws decoded, or multiplied, at a time
WORK = 1 << 22  # cells per row of data where the density has to be taken cell by cell, and
BLOCK = 1 << 22  # cells at a time then
IMPOSSIBLE = 1e6  # nats: larger logits are this, since infinite ones times 0 are no number
AROUND = 101  # draws whose median is taken for the origin
LINEAR = Bernoulli | Binomial | Normal  # what `_linear` can do


@final
class Crowd:
    """Latents decoded once, for the density of many rows under all of them.

    Drawn from the prior they give p(x) ≈ 1/N Σ_n p(x|z_n), which knows nothing of an encoder and shares none of its
    blind spots. Rows with covariates would each need draws of their own; there is no crowd for them.

    Attributes:
        z: the latents, (n, 1, d).
        replicates: sets that they consist of, one after the other, independent of one another.
        decoder_rows: decoder rows spent so far: the latents once, or once per call where cells are not kept.
    """

    @torch.no_grad()
    def __init__(self, model: Any, z: Tensor, replicates: int = 1) -> None:
        self.z, self.replicates, self._model = z, replicates, model
        linear = isinstance(model.decode(z[:1]), LINEAR)
        self._decoded: list[Distribution] = [model.decode(some) for some in torch.split(z, AT_ONCE)] if linear else []
        self.decoder_rows = len(z) if linear else 0

    @classmethod
    @torch.no_grad()
    def drawn(cls, model: Any, batch: Batch, key: Key) -> Self:
        """z ~ p(z): `DRAWS`, or as many as memory and time allow with events of this size.

        Each replicate is a Sobol sequence scrambled anew (Owen 1995): every draw is from p(z), and together they lie
        far more evenly than chance would have them.
        """
        cells, prior = batch.x[0].numel(), model.prior_given()
        first = prior.push(torch.zeros(1, 1, prior.size, dtype=model.dtype, device=model.device))[0]
        most = CELLS if isinstance(model.decode(first), LINEAR) else WORK
        each = 1 << max(3, (min(DRAWS, most // cells) // REPLICATES).bit_length() - 1)
        sets = [_even(each, prior.size, key.fold("set", number)) for number in range(REPLICATES)]
        u = torch.cat(sets).unsqueeze(1).to(model.device, model.dtype)
        return cls(model, prior.push(u)[0], REPLICATES)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch) -> Tensor:
        """log p(x|z_n), (n, row), float64, nats."""
        x = batch.x.to(self._model.dtype)
        if self._decoded:
            return torch.cat([_linear(decoded, x, batch.mask) for decoded in self._decoded])
        self.decoder_rows += len(self.z)
        block = max(1, BLOCK // x.numel())
        parts = [self._model.decode(z).log_prob(x, batch.mask) for z in torch.split(self.z, block)]
        return torch.cat(parts).double()

    @torch.no_grad()
    def log_evidence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """log (1/N Σ p(x|z_n)) and its Monte Carlo standard error, (row,)."""
        values = self.log_likelihood(batch)
        if self.replicates > 1:
            sets = values.view(self.replicates, -1, values.shape[1])
            values = sets.logsumexp(1) - math.log(sets.shape[1])
        estimate, mc_se, _ = reduced(values, reverse=False)
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


def _even(draws: int, size: int, key: Key) -> Tensor:
    """Standard normal noise, (draws, size), float64, from a scrambled Sobol sequence."""
    engine = torch.quasirandom.SobolEngine(size, scramble=True, seed=key.value >> 33)  # type: ignore[no-untyped-call]
    uniform = engine.draw(draws, dtype=torch.float64)
    tiny = 2.0**-32  # between the sequence's own steps
    noise: Tensor = torch.special.ndtri(uniform.clamp(tiny, 1 - tiny))
    return noise


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
        case Bernoulli(logits=logits) | Binomial(logits=logits):
            logit, n = flat(logits).clamp(-IMPOSSIBLE, IMPOSSIBLE), getattr(likelihood, "trials", 1)
            choose = math.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
            return logit @ (seen * x).T + n * logsigmoid(-logit) @ seen.T + (seen * choose).sum(1)
        case Normal(loc=loc, scale=scale):
            origin = flat(loc[:AROUND]).nanmedian(0).values  # squares of numbers far from 0 would cancel
            mean, x, precision = flat(loc) - origin, x - origin, flat(scale.expand_as(loc)).square().reciprocal()
            constant = 0.5 * precision.log() - 0.5 * mean.square() * precision - HALF_LOG_2PI
            linear = (mean * precision) @ (seen * x).T - 0.5 * precision @ (seen * x.square()).T
            return linear + constant @ seen.T
        case _:
            raise NotImplementedError(type(likelihood).__name__)
