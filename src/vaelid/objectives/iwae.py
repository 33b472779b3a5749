"""The importance-weighted bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from vaelid import checks
from vaelid.errors import InputTypeError
from vaelid.model import Problem
from vaelid.objectives.base import Objective, Outcome, mean
from vaelid.objectives.elbo import kl_per_dimension
from vaelid.objectives.gradients import IWAEGradient, Pathwise, check_draws


@final
@dataclass(frozen=True)
class IWAE(Objective):
    """log (1/K) Σ_k p(x, z_k) / q(z_k|x), a bound that tightens with K (Burda et al. 2016, equation 8).

    Args:
        samples: K, draws from q per row.
        gradient: how its gradient is estimated, `Pathwise` (through the logarithm of the mean weight), `DReG` or
            `ScoreFunction`; no value depends on it.
    """

    samples: int = 5
    gradient: IWAEGradient = field(default_factory=Pathwise)

    def __post_init__(self) -> None:
        checks.positive_int(self.samples, "samples")
        if not isinstance(self.gradient, IWAEGradient):
            raise InputTypeError(
                f"the gradient {self.gradient!r} with the IWAE",
                "Pathwise(), DReG() or ScoreFunction(), which are unbiased there",
                "DReG() is to the IWAE what STL() is to the ELBO",
            )
        check_draws(self.gradient, self.samples)

    @property
    def compilable(self) -> bool:
        """Whether the gradient is the pathwise one."""
        return isinstance(self.gradient, Pathwise)

    def __call__(self, problem: Problem, u: Tensor, step: int | Tensor) -> Outcome:
        """Surrogate, terms and bound for noise u (K, batch, k)."""
        trace = problem.trace(u)
        bound = trace.log_weight.logsumexp(0) - math.log(u.shape[0])
        terms = {"reconstruction": trace.log_likelihood.mean(0), "rate": kl_per_dimension(trace).sum(-1)}
        weight = problem.batch.weight
        return self.gradient.iwae(Outcome(mean(bound, weight), terms, bound), trace, weight)
