"""The importance-weighted bound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from vaelid import checks
from vaelid.model import Problem
from vaelid.objectives.base import Objective, Outcome, mean
from vaelid.objectives.elbo import kl_per_dimension


@final
@dataclass(frozen=True)
class IWAE(Objective):
    """log (1/K) Σ_k p(x, z_k) / q(z_k|x), a bound that tightens with K (Burda et al. 2016, equation 8).

    The gradient is pathwise, through the logarithm of the mean weight.

    Args:
        samples: K, draws from q per row.
    """

    samples: int = 5

    def __post_init__(self) -> None:
        checks.positive_int(self.samples, "samples")

    def __call__(self, problem: Problem, u: Tensor, step: int) -> Outcome:
        """Surrogate, terms and bound for noise u (K, batch, k)."""
        trace = problem.trace(u)
        bound = trace.log_weight.logsumexp(0) - math.log(u.shape[0])
        terms = {"reconstruction": trace.log_likelihood.mean(0), "rate": kl_per_dimension(trace).sum(-1)}
        return Outcome(mean(bound, problem.batch.weight), terms, bound)
