"""Importance sampling from q(z|x): the bound L_K, and in the same pass the ELBO and its terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from vaelid import checks
from vaelid.evidence.chains import pareto_k
from vaelid.evidence.weights import reduced
from vaelid.model import VAE, evaluating
from vaelid.random import Key
from vaelid.transports import has_kl, kl_cells
from vaelid.types import Batch

KEPT = 1 << 24  # log-weights held at once, for their tail
DECODER_ROWS = 4096  # decoder rows per pass: large enough for fast matrix products, small enough for the cache


@final
@dataclass(frozen=True, eq=False)
class Importance:
    """Estimates per row of data, float64, (rows,) unless said otherwise.

    Attributes:
        log_evidence: L_K = log (1/K) Σ_k w_k, a lower bound on log p(x) in expectation, nats.
        mc_se: Monte Carlo standard error of L_K by the delta method, √((1/ESS − 1/K) · K/(K − 1)); NaN where K is 1.
        ess: effective sample size (Σ w)² / Σ w².
        k_hat: Pareto shape of the largest weights (Vehtari et al. 2024); above 0.7 neither L_K nor its error can be
            relied upon. NaN where K is too small to tell.
        elbo: mean of log w over the same draws, with the closed form of the KL where there is one.
        elbo_se: Monte Carlo standard error of ``elbo``; NaN where K is 1.
        reconstruction: mean of log p(x|z) over the draws.
        rate: KL(q ‖ p), closed form where there is one, else the mean of log q − log p.
        kl: the rate per latent dimension where there is a closed form, (rows, latent); else None.
        centre: z = T(0), (rows, latent).
        samples: K, draws per row, exactly those asked for.
    """

    log_evidence: Tensor
    mc_se: Tensor
    ess: Tensor
    k_hat: Tensor
    elbo: Tensor
    elbo_se: Tensor
    reconstruction: Tensor
    rate: Tensor
    kl: Tensor | None
    centre: Tensor
    samples: int


@torch.no_grad()
def importance(
    model: VAE,
    x: Any,
    samples: int,
    key: Key,
    *,
    on_rows: Callable[[int], None] | None = None,
) -> Importance:
    """L_K with K = ``samples`` draws from q per row (Burda et al. 2016), the encoder run once per row.

    A row's noise depends on (key, row id, sample, dimension) alone, so its result does not depend on the rows beside
    it (to rounding). Weights are summed in float64, drawn in passes of bounded memory.

    Args:
        model: any model with a density.
        x: rows, an array or a `Batch` (whose row ids then name the noise).
        samples: K.
        key: names the noise.
        on_rows: called with the number of rows done after each pass, for a progress bar.
    """
    samples = checks.positive_int(samples, "samples")
    batch = model.batch(x)
    rows = max(1, min(512, DECODER_ROWS // min(samples, 64), KEPT // samples))
    parts = []
    for first in range(0, batch.rows, rows):
        with evaluating(model):
            parts.append(_rows(model, batch.take(slice(first, first + rows)), samples, key))
        if on_rows is not None:
            on_rows(min(first + rows, batch.rows))
    columns: list[Any] = [None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True)]
    return Importance(*columns, samples)  # type: ignore[call-arg]  # ten columns and K


def _rows(model: VAE, batch: Batch, samples: int, key: Key) -> tuple[Tensor | None, ...]:
    problem = model.given(batch)
    per_pass = max(1, DECODER_ROWS // batch.rows)
    zero = torch.zeros(batch.rows, dtype=torch.float64, device=batch.x.device)
    reconstruction, square, gap, weights = zero, zero, zero, []
    for start in range(0, samples, per_pass):
        u = problem.noise(key, min(per_pass, samples - start), start=start)
        trace = problem.trace(u)
        log_weight = trace.log_weight.double()
        log_likelihood = trace.log_likelihood.double()
        reconstruction = reconstruction + log_likelihood.sum(0)
        square = square + log_likelihood.square().sum(0)
        gap = gap + (log_weight - log_likelihood).sum(0)
        weights.append(log_weight)
    log_weight = torch.cat(weights)
    estimate, mc_se, ess = reduced(log_weight, reverse=False)
    reconstruction = reconstruction / samples
    q: Any = problem.start
    p: Any = problem.prior
    kl = kl_cells(q, p).double() if has_kl(q, p) else None
    if kl is None:
        rate, variance = -gap / samples, log_weight.var(0) if samples > 1 else zero / 0
    else:
        rate = kl.sum(-1)
        variance = (square - samples * reconstruction.square()).clamp(min=0) / (samples - 1)
    return (
        estimate,
        mc_se,
        ess,
        pareto_k(log_weight),
        reconstruction - rate,
        (variance / samples).sqrt(),
        reconstruction,
        rate,
        kl,
        problem.centre,
    )
