"""The evidence lower bound, with β, warm-up and free bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from vaelid import checks
from vaelid.distributions import Normal, has_kl, kl_cells
from vaelid.model import Problem
from vaelid.objectives.base import Objective, Outcome, mean
from vaelid.types import Trace


@final
@dataclass(frozen=True)
class Warmup:
    """A β that rises linearly over optimiser steps: start + (end − start) · min(1, (step + 1) / steps).

    It equals ``end`` exactly from step ``steps`` − 1 on; training that plans fewer steps is refused.
    """

    steps: int
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        checks.positive_int(self.steps, "the number of warm-up steps")
        checks.non_negative(self.start, "start")
        checks.non_negative(self.end, "end")

    def __call__(self, step: int) -> float:
        """β at ``step``, counted from 0."""
        if step + 1 >= self.steps:
            return self.end
        return self.start + (self.end - self.start) * (step + 1) / self.steps


@final
@dataclass(frozen=True)
class ELBO(Objective):
    """E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) ≤ log p(x) (Kingma & Welling 2014, equation 3).

    The surrogate is E_q[log p(x|z)] − β Σ_j max(λ, KL_j) with KL_j the batch's mean in latent dimension j (β:
    Higgins et al. 2017; free bits λ: Kingma et al. 2016). The bound has β = 1 and λ = 0, whatever they are.

    Args:
        beta: a number, or a function of the step. Prefer `Warmup` for a schedule: training then knows when it is over
            and compares validation surrogates from there on only.
        free_bits: λ, nats per latent dimension that cost nothing.
        samples: draws from q per row.
        analytic_kl: use the closed form of the KL where there is one; else, and where there is none, the mean of
            log q − log p over the draws.
    """

    beta: float | Callable[[int], float] = 1.0
    free_bits: float = 0.0
    samples: int = 1
    analytic_kl: bool = True

    def __post_init__(self) -> None:
        checks.positive_int(self.samples, "samples")
        checks.non_negative(self.free_bits, "free_bits")
        if not callable(self.beta):
            checks.non_negative(self.beta, "beta")

    @property
    def settled_at(self) -> int:
        """The step at which β has reached its end value."""
        return self.beta.steps - 1 if isinstance(self.beta, Warmup) else 0

    def __call__(self, problem: Problem, u: Tensor, step: int) -> Outcome:
        """Surrogate, terms and bound for noise u (samples, batch, k)."""
        trace = problem.trace(u)
        reconstruction = trace.log_likelihood.mean(0)
        cells = kl_per_dimension(trace, analytic=self.analytic_kl)
        rate = cells.sum(-1)
        beta = self.beta(step) if callable(self.beta) else self.beta
        weight = problem.batch.weight
        if self.free_bits:
            per_dimension = torch.stack([mean(cell, weight) for cell in cells.unbind(-1)])
            penalty = per_dimension.clamp(min=self.free_bits).sum()
        else:
            penalty = mean(rate, weight)
        surrogate = mean(reconstruction, weight) - beta * penalty
        return Outcome(surrogate, {"reconstruction": reconstruction, "rate": rate}, reconstruction - rate)


def kl_per_dimension(trace: Trace, *, analytic: bool = True) -> Tensor:
    """KL(q(z|x) ‖ p(z)) per row and latent dimension, (batch, Σ latent), nats.

    The closed form where it is asked for and exists; otherwise the mean over samples of log q − log p, per dimension
    where both are products over dimensions, else as one column per group.
    """
    columns = []
    for group in trace.groups:
        q, p = group.posterior, group.prior
        if analytic and has_kl(q, p):
            columns.append(kl_cells(q, p).expand(group.z.shape[1:]))
        elif isinstance(q, Normal) and isinstance(p, Normal):
            columns.append((q.cell_log_prob(group.z) - p.cell_log_prob(group.z)).mean(0))
        else:
            columns.append((group.log_posterior - group.log_prior).mean(0).unsqueeze(-1))
    return torch.cat(columns, dim=-1)
