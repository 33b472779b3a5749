"""Gradient estimators: what is differentiated in place of a bound. The values that are reported stay the bound's.

Write f_k = log p(x|z_k) + log p(z_k) − log q(z_k|x) with z_k = T_x(u_k). Its derivative has a part that passes through
z_k and a direct part, that of the densities at a given z_k. Estimators differ in the factor of each part, per draw and
row; the ELBO takes the mean over draws (shown for β = 1), the IWAE the sum, with w̃_k = e^f_k / Σ_j e^f_j:

| estimator | through z | log p(x\\|z), log p(z) direct | log q(z\\|x) direct |
|---|---|---|---|
| ELBO, pathwise | 1 | 1 | −1 |
| ELBO, STL | 1 | 1 | 0 |
| ELBO, score function | 0 | 1 | f_k − mean of the other f |
| IWAE, pathwise | w̃_k | w̃_k | −w̃_k |
| IWAE, DReG | w̃_k² | w̃_k | 0 |
| IWAE, score function | 0 | w̃_k | L − L₋ₖ − w̃_k |

Factors are applied at z and not at the encoder's parameters, so they stay right where the prior shares those.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vaelid.errors import InputError, InputTypeError
from vaelid.objectives.base import Outcome, mean
from vaelid.types import Group, Trace, Transport


class ELBOGradient(abc.ABC):
    """An estimator for the ELBO: a frozen value without state.

    Attributes:
        fewest: how many draws per row it takes at least.
    """

    fewest: ClassVar[int] = 1

    @abc.abstractmethod
    def elbo(self, outcome: Outcome, trace: Trace, beta: float | Tensor, weight: Tensor | None) -> Outcome:
        """``outcome`` with another gradient of its surrogate; every value stays.

        Args:
            outcome: the ELBO's outcome, to be differentiated pathwise.
            trace: the pass that it comes from, samples first; its z may get hooks, so it serves for this one gradient.
            beta: the weight of the rate in the surrogate.
            weight: weight of each row, (batch,); None for equal weights.

        Raises:
            InputTypeError: the trace does not allow the estimator.
            InputError: there are too few draws.
        """


class IWAEGradient(abc.ABC):
    """An estimator for the importance-weighted bound: a frozen value without state.

    Attributes:
        fewest: how many draws per row it takes at least.
    """

    fewest: ClassVar[int] = 1

    @abc.abstractmethod
    def iwae(self, outcome: Outcome, trace: Trace, weight: Tensor | None) -> Outcome:
        """``outcome`` with another gradient of its surrogate; every value stays.

        Arguments and errors are those of `ELBOGradient.elbo`.
        """


@final
@dataclass(frozen=True)
class Pathwise(ELBOGradient, IWAEGradient):
    """The derivative of the objective at fixed noise (Kingma & Welling 2014; Rezende et al. 2014).

    The one estimator that differentiates the closed form of the ELBO's rate, where there is one.
    """

    def elbo(self, outcome: Outcome, trace: Trace, beta: float | Tensor, weight: Tensor | None) -> Outcome:
        """The outcome as it is."""
        return outcome

    def iwae(self, outcome: Outcome, trace: Trace, weight: Tensor | None) -> Outcome:
        """The outcome as it is."""
        return outcome


@final
@dataclass(frozen=True)
class STL(ELBOGradient):
    """Sticking the landing: ∇ (1/S) Σ_s [log p(x|z_s) + β (log p(z_s) − log q̄(z_s|x))], parameters of q̄ held fixed.

    What it leaves out, the direct gradient of log q, is 0 in expectation. At the exact posterior (β = 1) the encoder's
    gradient is 0 for every draw, so its noise fades as q comes close (Roeder et al. 2017). The posterior has to know
    log q at any z.
    """

    def elbo(self, outcome: Outcome, trace: Trace, beta: float | Tensor, weight: Tensor | None) -> Outcome:
        """The outcome with this gradient; the rate that it pulls on is that of the draws."""
        group = _only_group(trace, self)
        log_posterior = _log_prob(group.posterior.detach(), group.z, self)
        draws = trace.log_likelihood + beta * (group.log_prior - log_posterior)
        return _with_gradient(outcome, mean(draws.mean(0), weight))


@final
@dataclass(frozen=True)
class DReG(IWAEGradient):
    """Doubly reparameterised: w̃_k² on the path through z_k, w̃_k on log p(x|z) and log p(z) directly, 0 on log q.

    The signal-to-noise ratio of the encoder's gradient then grows with the draws K as √K, where that of the pathwise
    estimator falls as 1/√K (Tucker et al. 2019; Rainforth et al. 2018). The posterior has to know log q at any z.
    """

    def iwae(self, outcome: Outcome, trace: Trace, weight: Tensor | None) -> Outcome:
        """The outcome with this gradient."""
        group = _only_group(trace, self)
        share = trace.log_weight.detach().softmax(0)
        log_posterior = _log_prob(group.posterior.detach(), group.z, self)
        draws = trace.log_likelihood + group.log_prior - log_posterior
        _scale_path(group.z, share)  # of w̃², the sum below brings the other factor
        return _with_gradient(outcome, mean((share * draws).sum(0), weight))


@final
@dataclass(frozen=True)
class ScoreFunction(ELBOGradient, IWAEGradient):
    """∇ log q(z_k|x) times how much better draw k did than the others; no gradient passes through z.

    For the ELBO, with f_s = log p(x|z_s) + β (log p(z_s) − log q(z_s|x)), the factor is (f_s − mean_{r≠s} f_r) / S
    (leave-one-out baseline: Kool et al. 2019). For the IWAE it is L − L₋ₖ − w̃_k, where L is the bound and L₋ₖ the
    same with the geometric mean of the other weights in place of w_k (VIMCO: Mnih & Rezende 2016). Far from the
    exact posterior it is much noisier than the estimators that go through z. The posterior has to know log q at any z.
    """

    fewest: ClassVar[int] = 2

    def elbo(self, outcome: Outcome, trace: Trace, beta: float | Tensor, weight: Tensor | None) -> Outcome:
        """The outcome with this gradient; the rate that it pulls on is that of the draws."""
        score, count = self._score(trace), len(trace.log_weight)
        log_prior = sum(group.log_prior for group in trace.groups)
        rate = trace.log_likelihood - trace.log_weight
        reward = (trace.log_likelihood - beta * rate).detach()
        advantage = (reward - reward.mean(0)) * (count / (count - 1))
        draws = trace.log_likelihood + beta * log_prior + advantage * score
        return _with_gradient(outcome, mean(draws.mean(0), weight))

    def iwae(self, outcome: Outcome, trace: Trace, weight: Tensor | None) -> Outcome:
        """The outcome with this gradient."""
        score, log_weight = self._score(trace), trace.log_weight.detach()
        share = log_weight.softmax(0)
        advantage = log_weight.logsumexp(0) - _with_one_replaced(log_weight)
        draws = share * trace.log_joint + (advantage - share) * score
        return _with_gradient(outcome, mean(draws.sum(0), weight))

    def _score(self, trace: Trace) -> Tensor:
        """log q(z|x) at z held fixed, (sample, batch), to be differentiated; the trace's paths through z are closed."""
        check_draws(self, len(trace.log_weight))
        held = [_log_prob(group.posterior, group.z.detach(), self) for group in trace.groups]
        for group in trace.groups:
            _scale_path(group.z, None)
        return torch.stack(held).sum(0)


def check_draws(gradient: ELBOGradient | IWAEGradient, samples: int) -> None:
    """Refuse a number of draws per row that the estimator cannot work with.

    Raises:
        InputError: there are fewer than its ``fewest``.
    """
    if samples < gradient.fewest:
        raise InputError(
            f"the gradient {gradient!r} with samples={samples}",
            f"{gradient.fewest} draws per row or more, the baseline of each being made of the others",
            "raise samples, or use Pathwise()",
        )


def _with_gradient(outcome: Outcome, surrogate: Tensor) -> Outcome:
    """The outcome's values with the gradient of ``surrogate``.

    Bound and terms leave the graph: after hooks on z, differentiating them would give something else.
    """
    value = outcome.surrogate.detach() + (surrogate - surrogate.detach())
    terms = {name: term.detach() for name, term in outcome.terms.items()}
    return Outcome(value, terms, None if outcome.bound is None else outcome.bound.detach())


def _scale_path(z: Tensor, factor: Tensor | None) -> None:
    """Multiply every gradient that will pass through z (sample, batch, d) by a factor (sample, batch); None closes it.

    z has to be an intermediate of the graph as it was recorded; the hook goes when the graph does.
    """
    if not z.requires_grad:
        return
    if factor is None:
        z.register_hook(torch.zeros_like)  # type: ignore[no-untyped-call]
    else:
        scale = factor.unsqueeze(-1).to(z.dtype)
        z.register_hook(lambda gradient: gradient * scale)  # type: ignore[no-untyped-call]


def _with_one_replaced(log_weight: Tensor) -> Tensor:
    """log Σ_j w_j with the geometric mean of the others in place of w_k, for every k, (K, batch); no cancellation."""
    geometric = (log_weight.sum(0) - log_weight) / (len(log_weight) - 1)
    nothing = torch.full_like(log_weight[:1], -math.inf)
    before = torch.cat((nothing, log_weight[:-1].logcumsumexp(0)))
    after = torch.cat((log_weight[1:].flip(0).logcumsumexp(0).flip(0), nothing))
    return torch.stack((before, after, geometric)).logsumexp(0)


def _only_group(trace: Trace, gradient: ELBOGradient | IWAEGradient) -> Group:
    if len(trace.groups) != 1:
        raise InputTypeError(
            f"the gradient {gradient!r} with {len(trace.groups)} groups of latents", "one group", "use Pathwise()"
        )
    return trace.groups[0]


def _log_prob(posterior: Transport, z: Tensor, gradient: ELBOGradient | IWAEGradient) -> Tensor:
    try:
        return posterior.log_prob(z)
    except InputTypeError as error:
        raise InputTypeError(
            f"the gradient {gradient!r} with the posterior {type(posterior).__name__}",
            "one that knows log q at any z",
            "use Pathwise()",
        ) from error
