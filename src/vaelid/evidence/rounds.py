"""One round on some rows: both sides of log p(x), by importance sampling or by annealing in both directions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from vaelid.evidence.annealing import PASS, Settings, backward, forward
from vaelid.evidence.bennett import bennett
from vaelid.evidence.chains import r_hat
from vaelid.evidence.hmc import VARIED, transition, varied
from vaelid.evidence.importance import importance
from vaelid.evidence.paths import Path, State
from vaelid.evidence.tuning import Tuning
from vaelid.evidence.weights import reduced, resampled
from vaelid.random import Key
from vaelid.types import Batch

SETTLE = 10  # transitions at β = 1 between resampled draws and reverse chains on real rows


class Price(NamedTuple):
    """Decoder rows per row of data of a round."""

    lower: int
    upper: int
    endpoints: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


@final
@dataclass(frozen=True, eq=False)
class Sides:
    """What a round found, (row,) each, float64 on the CPU.

    Attributes:
        lower: lower side.
        lower_se: its Monte Carlo standard error.
        upper: upper side.
        upper_se: its Monte Carlo standard error.
        bennett: Bennett's acceptance ratio; NaN without annealing.
        r_hat: of the chains whose ends the upper side starts from; NaN where those are exact.
        ess: effective number of chains or samples, the smaller of both directions'.
        acceptance: mean acceptance, the smaller of both directions'; NaN without annealing.
        broken: whether log w was not a number somewhere.
    """

    lower: Tensor
    lower_se: Tensor
    upper: Tensor
    upper_se: Tensor
    bennett: Tensor
    r_hat: Tensor
    ess: Tensor
    acceptance: Tensor
    broken: Tensor


def price(settings: Settings, distributions: int, *, exact: bool) -> Price:
    """What `annealed` costs."""
    lower = settings.rows(distributions)
    endpoints = 0 if exact else lower + settings.chains * SETTLE * settings.leapfrogs
    return Price(lower, settings.rows(distributions, reverse=True), endpoints)


def annealed(
    model: Any, batch: Batch, z: Tensor | None, tuning: Tuning, distributions: int, settings: Settings, key: Key
) -> Sides:
    """Forward chains for the lower side, reverse chains for the upper one.

    Reverse chains start at z (row, d) if it is given, else at approximate draws from chains of their own.
    """
    path = tuning.path(model, batch)
    up = forward(path, tuning, distributions, settings, key.fold("lower"))
    agreement = torch.full_like(up.acceptance, math.nan)
    if z is None:
        ends, agreement = _endpoints(path, tuning, distributions, settings, key.fold("endpoints"))
    else:
        ends = path.of(z.unsqueeze(0).to(batch.x.device, model.dtype))
    down = backward(path, tuning, distributions, settings, ends, key.fold("upper"))
    lower, lower_se, lower_ess = reduced(up.log_weight, reverse=False)
    upper, upper_se, upper_ess = reduced(down.log_weight, reverse=True)
    found = (
        lower,
        lower_se,
        upper,
        upper_se,
        bennett(up.log_weight, down.log_weight),
        agreement,
        torch.minimum(lower_ess, upper_ess),
        torch.minimum(up.acceptance, down.acceptance),
        up.log_weight.isnan().any(0) | down.log_weight.isnan().any(0),
    )
    return Sides(*(column.cpu() for column in found))


def sampled(model: Any, batch: Batch, z: Tensor | None, samples: int, key: Key) -> Sides:
    """L_K and U_K, K = ``samples`` draws of q each; in U_K one of them is a draw from p(z|x) (Sobolev & Vetrov 2019).

    That draw is z (row, d) if it is given, else one of K further draws from q, picked by weight.
    """
    lower = importance(model, batch, samples, key.fold("lower"))
    rest = importance(model, batch, samples - 1, key.fold("upper"))
    problem = model.given(batch)
    with torch.no_grad():
        if z is None:
            end = _resampled_weight(problem, samples, key.fold("endpoints"))
        else:
            end = problem.trace(problem.noise_of(z.unsqueeze(0).to(model.dtype))).log_weight[0].double()
    upper = torch.logaddexp(rest.log_evidence + math.log(samples - 1), end) - math.log(samples)
    nan = torch.full_like(upper, math.nan)
    found = (
        lower.log_evidence,
        lower.mc_se,
        upper,
        rest.mc_se,
        nan,
        nan,
        torch.minimum(lower.ess, rest.ess),
        nan,
        (lower.reconstruction + rest.reconstruction).isnan() | upper.isnan(),
    )
    return Sides(*(column.cpu() for column in found))


def _endpoints(path: Path, tuning: Tuning, distributions: int, settings: Settings, key: Key) -> tuple[Tensor, Tensor]:
    """Approximate draws from p(z|x), (chain, row, k), by chains that nothing else has seen, and their R-hat, (row,).

    The chains anneal forward, are resampled by weight, and settle for `SETTLE` transitions at β = 1. R-hat is that of
    log p(x, z) over these transitions.
    """
    walk = forward(path, tuning, distributions, settings, key)
    ids = path.problem.batch.ids()
    state = _picked(walk.state, resampled(walk.log_weight, settings.chains, ids, key))
    one = torch.ones_like(walk.acceptance)
    longest = tuning.steps(one.cpu().unsqueeze(0), settings.leapfrogs, VARIED * path.longest)[0].to(one.device)
    heights = []
    for t in range(SETTLE):
        step = varied(longest, ids, key.fold("step", t))
        state, _ = transition(path, state, one, step, settings.leapfrogs, key.fold("settle", t))
        heights.append((state.log_base + state.log_weight).double())
    return state.position, r_hat(torch.stack(heights, 1)).to(one.device)


def _picked(state: State, chain: Tensor) -> State:
    """The chains ``chain`` (chain, row) of every row."""

    def pick(values: Tensor | None) -> Tensor | None:
        if values is None or values.ndim == 2:
            return None if values is None else values.gather(0, chain)
        return values.gather(0, chain.unsqueeze(-1).expand_as(values))

    picked: Any = [pick(getattr(state, name)) for name in State.__dataclass_fields__]
    return State(*picked)


def _resampled_weight(problem: Any, samples: int, key: Key) -> Tensor:
    """log w of one of ``samples`` draws from q, picked with probability in proportion to w, (row,), float64.

    Picked as the largest of log w + Gumbel noise, in passes of bounded memory.
    """
    ids = problem.batch.ids()
    best = torch.full((len(ids),), -math.inf, dtype=torch.float64, device=ids.device)
    kept = torch.full_like(best, -math.inf)
    block = max(1, PASS // max(1, len(ids)))
    for start in range(0, samples, block):
        count = min(block, samples - start)
        log_weight = problem.trace(problem.noise(key, count, start=start)).log_weight.double()
        uniform = key.fold("pick").uniform_rows(ids, count, 1, start=start, dtype=torch.float64)[..., 0]
        score, at = (log_weight - (-uniform.log()).log()).nan_to_num(nan=-math.inf).max(0)
        kept = torch.where(score > best, log_weight.gather(0, at.unsqueeze(0))[0], kept)
        best = torch.maximum(score, best)
    return kept
