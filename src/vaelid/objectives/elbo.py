"""The evidence lower bound, with β, warm-up and free bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from vaelid import checks
from vaelid.distributions import Normal
from vaelid.errors import InputError, InputTypeError
from vaelid.model import Problem
from vaelid.objectives.base import Objective, Outcome, mean
from vaelid.objectives.gradients import ELBOGradient, Pathwise, check_draws
from vaelid.transports import has_kl, kl_cells
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

    def __call__(self, step: int | Tensor) -> float | Tensor:
        """β at ``step``, counted from 0; a tensor for a tensor."""
        share = (step + 1) / self.steps
        share = share.clamp(max=1.0) if isinstance(share, Tensor) else min(1.0, share)
        return share * self.end + (1.0 - share) * self.start


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
        gradient: how the surrogate's gradient is estimated, `Pathwise`, `STL` or `ScoreFunction`; no value depends on
            it. All but `Pathwise` differentiate log q − log p at the draws, whatever ``analytic_kl``, and take no free
            bits, which are a function of the closed form per dimension.
    """

    beta: float | Callable[[Any], float | Tensor] = 1.0
    free_bits: float = 0.0
    samples: int = 1
    analytic_kl: bool = True
    gradient: ELBOGradient = field(default_factory=Pathwise)

    def __post_init__(self) -> None:
        checks.positive_int(self.samples, "samples")
        checks.non_negative(self.free_bits, "free_bits")
        if not callable(self.beta):
            checks.non_negative(self.beta, "beta")
        if not isinstance(self.gradient, ELBOGradient):
            raise InputTypeError(
                f"the gradient {self.gradient!r} with the ELBO",
                "Pathwise(), STL() or ScoreFunction()",
                "STL() is to the ELBO what DReG() is to the IWAE",
            )
        if self.free_bits and not isinstance(self.gradient, Pathwise):
            raise InputError(
                f"the gradient {self.gradient!r} with free_bits={self.free_bits:g}",
                "Pathwise() with free bits",
                "leave one of the two out",
            )
        check_draws(self.gradient, self.samples)

    @property
    def settled_at(self) -> int:
        """The step at which β has reached its end value."""
        return self.beta.steps - 1 if isinstance(self.beta, Warmup) else 0

    @property
    def compilable(self) -> bool:
        """Whether the gradient is the pathwise one, and β a number or a `Warmup`."""
        return isinstance(self.gradient, Pathwise) and (isinstance(self.beta, Warmup) or not callable(self.beta))

    def __call__(self, problem: Problem, u: Tensor, step: int | Tensor) -> Outcome:
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
        outcome = Outcome(surrogate, {"reconstruction": reconstruction, "rate": rate}, reconstruction - rate)
        return self.gradient.elbo(outcome, trace, beta, weight)


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
