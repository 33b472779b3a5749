"""Annealed importance sampling: lower bounds forward, upper bounds in reverse, with frozen settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor

from vaelid import checks
from vaelid.errors import InputError
from vaelid.evidence.budget import Budget, Spending, alike, doubled
from vaelid.evidence.hmc import transition
from vaelid.evidence.paths import Path, State
from vaelid.evidence.schedules import Placed, Schedule
from vaelid.evidence.tuning import Tuning, tuned
from vaelid.evidence.weights import reduced
from vaelid.model import evaluating
from vaelid.random import Key
from vaelid.types import Batch

PASS = 2048  # decoder rows in flight on a CPU, chains × rows of data; elsewhere `WIDE` times as many
WIDE = 16
Start = Literal["posterior", "prior", "both"]
OnProgress = Callable[[str, int, int], None]  # stage, rows done, rows in all


@final
@dataclass(frozen=True, eq=False)
class Annealing:
    """Estimates per row of data, float64, (row,) unless said otherwise, nats.

    Attributes:
        log_evidence: forward log (1/M Σ w), a lower bound on log p(x) in expectation; in reverse −log (1/M Σ 1/w), an
            upper bound in expectation if the chains started at draws from p(z|x).
        mc_se: Monte Carlo standard error by the delta method, from the effective sample size; in reverse given the
            draws that the chains started from, whose own chance the scatter over rows alone can tell.
        ess: effective sample size of the chains, at most ``chains``.
        log_weight: log w of every chain, (chain, row).
        acceptance: mean acceptance probability over transitions and chains.
        latents: where the chains ended, (chain, row, d).
        distributions: T, (row,), int64.
        decoder_rows: rows spent on the reported run, all rows of data together.
        pilot_rows: rows spent on settings and deciding runs.
        seconds: wall time of everything.
    """

    log_evidence: Tensor
    mc_se: Tensor
    ess: Tensor
    log_weight: Tensor
    acceptance: Tensor
    latents: Tensor
    distributions: Tensor
    decoder_rows: int
    pilot_rows: int
    seconds: float


@final
@dataclass(frozen=True, eq=False)
class Settings:
    """How a path is walked.

    Attributes:
        leapfrogs: leapfrog steps per transition.
        chains: M, chains per row.
        schedule: where the temperatures stand.
    """

    leapfrogs: int = 3
    chains: int = 16
    schedule: Schedule = field(default_factory=Placed)

    def __post_init__(self) -> None:
        checks.positive_int(self.leapfrogs, "leapfrogs")
        checks.positive_int(self.chains, "chains")

    def rows(self, distributions: int, *, reverse: bool = False) -> int:
        """Decoder rows per row of data of one run."""
        return self.chains * (1 + self.leapfrogs * (distributions - 1 + reverse))


@final
@dataclass(frozen=True, eq=False)
class Walk:
    """One run along a path: log w of every chain (chain, row), float64, where it ended, mean acceptance (row,)."""

    log_weight: Tensor
    state: State
    acceptance: Tensor


def forward(path: Path, tuning: Tuning, distributions: int, settings: Settings, key: Key) -> Walk:
    """Annealed importance sampling (Neal 2001): c_0 ~ b, then log w = Σ_t (β_t − β_(t−1)) log w(c_(t−1)).

    Between weights a transition leaves π_(β_t) invariant, t < T. Settings are frozen, so E[w] = p(x) exactly.
    """
    betas, steps = _plan(path, tuning, distributions, settings)
    state = path.state(path.start(path.problem.noise(key.fold("start"), settings.chains)))
    log_weight, acceptance = _zero(state), torch.zeros_like(betas[0])
    for t in range(1, distributions + 1):
        log_weight = log_weight + (betas[t] - betas[t - 1]) * _weight(state)
        if t < distributions:
            state, share = transition(path, state, betas[t], steps[t], settings.leapfrogs, key.fold("forward", t))
            acceptance = acceptance + share.mean(0) / (distributions - 1)
    return Walk(log_weight, state, acceptance)


def backward(path: Path, tuning: Tuning, distributions: int, settings: Settings, ends: Tensor, key: Key) -> Walk:
    """The same run in reverse, from c_T ~ p(z|x) at β = 1 to b: E[1/w] = 1/p(x) (Grosse et al. 2015).

    One more transition at β = 1 parts the chains where they start from one draw.
    """
    betas, steps = _plan(path, tuning, distributions, settings)
    state = path.state(ends.expand(settings.chains, -1, -1))
    log_weight, acceptance = _zero(state), torch.zeros_like(betas[0])
    for t in range(distributions, 0, -1):
        state, share = transition(path, state, betas[t], steps[t], settings.leapfrogs, key.fold("backward", t))
        acceptance = acceptance + share.mean(0) / distributions
        log_weight = log_weight + (betas[t] - betas[t - 1]) * _weight(state)
    return Walk(log_weight, state, acceptance)


def annealing(
    model: Any,
    x: Any,
    *,
    distributions: int = 20,
    leapfrogs: int = 3,
    chains: int = 16,
    schedule: Schedule | None = None,
    start: Start = "posterior",
    tolerance: float | None = None,
    budget: Budget | None = None,
    key: Key | None = None,
    on_progress: OnProgress | None = None,
) -> Annealing:
    """A lower bound on log p(x) by annealed importance sampling, per row.

    A pilot tunes the step sizes of Hamiltonian Monte Carlo for every row and temperature, then fresh noise makes the
    reported run under frozen settings, so that exp(log_evidence) has expectation p(x).

    Args:
        model: any model with a density.
        x: rows, an array or a `Batch` (whose row ids then name the noise).
        distributions: T, steps from b to p(x, z).
        leapfrogs: leapfrog steps per transition.
        chains: M per row and start.
        schedule: where the temperatures stand; `Placed` by the pilot's measurements if None.
        start: where chains start: "posterior" walks q(z|x)^(1−β) p(x, z)^β, "prior" walks p(z) p(x|z)^β, "both"
            averages the two estimates of p(x) with weights ½ and ½.
        tolerance: double T, row by row, until ``mc_se`` of a deciding run is at most this; the deciding runs are
            discarded and a fresh run is reported.
        budget: ends the doubling.
        key: names all noise; ``Key(0)`` by default.
        on_progress: called with a stage, the rows done and the rows in all.

    Raises:
        InputError: a number out of its range; a model whose posterior is not reached from noise.
    """
    settings = Settings(leapfrogs, chains, schedule or Placed())
    batch, key = model.batch(x), Key(0) if key is None else key
    return _estimate(model, batch, None, distributions, settings, start, tolerance, budget, key, on_progress)


def reverse_annealing(
    model: Any,
    x: Any,
    z: Tensor,
    *,
    distributions: int = 20,
    leapfrogs: int = 3,
    chains: int = 16,
    schedule: Schedule | None = None,
    start: Start = "posterior",
    tolerance: float | None = None,
    budget: Budget | None = None,
    key: Key | None = None,
    on_progress: OnProgress | None = None,
) -> Annealing:
    """An upper bound on log p(x) by annealing in reverse, per row, from draws z of p(z|x).

    Where (x, z) were simulated from the model, z is one exact draw and exp(−log_evidence) has expectation 1 / p(x).
    Where z comes from anywhere else the result is approximate, and no better than z. The pilot never sees z.

    Args:
        model: any model with a density.
        x: rows.
        z: draws from p(z|x), (rows, d) or (chains, rows, d).
        distributions: as in `annealing`, like all that follow.
        leapfrogs: see `annealing`.
        chains: M per row and start.
        schedule: see `annealing`.
        start: which path is walked; "both" averages the two estimates of 1 / p(x).
        tolerance: see `annealing`.
        budget: see `annealing`.
        key: see `annealing`.
        on_progress: see `annealing`.

    Raises:
        InputError: as `annealing`; z does not fit x.
    """
    settings = Settings(leapfrogs, chains, schedule or Placed())
    batch, key = model.batch(x), Key(0) if key is None else key
    z = z if z.ndim == 3 else z.unsqueeze(0)
    size = model.given(batch.take(slice(0, 1)), start="prior").noise_size
    if z.shape[1:] != (batch.rows, size) or z.shape[0] not in (1, chains):
        shapes = f"({batch.rows}, {size}) or ({chains}, {batch.rows}, {size})"
        raise InputError(f"z of shape {tuple(z.shape)}", shapes)
    return _estimate(model, batch, z, distributions, settings, start, tolerance, budget, key, on_progress)


def starts(start: Start) -> list[Literal["posterior", "prior"]]:
    """The single starts that a start stands for."""
    if start not in ("posterior", "prior", "both"):
        raise InputError(f"start={start!r}", "posterior, prior or both")
    return ["posterior", "prior"] if start == "both" else [start]


def chunks(batch: Batch, chains: int) -> list[Tensor]:
    """Positions of the rows that are walked together."""
    return list(torch.split(torch.arange(batch.rows), rows_per_pass(batch, chains)))


def rows_per_pass(batch: Batch, chains: int) -> int:
    """How many rows of data are walked together."""
    return max(1, PASS * (1 if batch.x.device.type == "cpu" else WIDE) // chains)


def _estimate(
    model: Any,
    batch: Batch,
    z: Tensor | None,
    distributions: int,
    settings: Settings,
    start: Start,
    tolerance: float | None,
    budget: Budget | None,
    key: Key,
    on_progress: OnProgress | None,
) -> Annealing:
    distributions = checks.positive_int(distributions, "distributions")
    begun, reverse = time.perf_counter(), z is not None
    report = on_progress or (lambda stage, done, total: None)
    tunings: list[list[Tuning]] = []
    pilot_rows = 0
    for index in chunks(batch, settings.chains):
        with evaluating(model):
            pilots = [tuned(model, batch.take(index), each, key.fold(each)) for each in starts(start)]
        tunings.append([found.tuning for found in pilots])
        pilot_rows += sum(found.decoder_rows for found in pilots)
        report("pilot", int(index[-1]) + 1, batch.rows)
    frozen = [Tuning.join(list(column)) for column in zip(*tunings, strict=True)]

    def run(index: Tensor, distributions: int, key: Key) -> tuple[Tensor, Tensor, Tensor]:
        """log w (chain, row), latents and acceptance of some rows."""
        some, found = batch.take(index), []
        with evaluating(model):
            for number, tuning in enumerate(each.take(index) for each in frozen):
                path, folded = tuning.path(model, some), key.fold("start", number)
                if z is None:
                    walk = forward(path, tuning, distributions, settings, folded)
                else:
                    walk = backward(path, tuning, distributions, settings, path.of(z[:, index]), folded)
                found.append((walk.log_weight, path.latents(walk.state.position), walk.acceptance))
        columns = list(zip(*found, strict=True))
        return torch.cat(columns[0]), torch.cat(columns[1]), torch.stack(columns[2]).mean(0)

    needed = torch.full((batch.rows,), distributions)

    def cost(distributions: int) -> int:
        return settings.rows(distributions, reverse=reverse) * len(frozen)

    if tolerance is not None:
        limit = checks.non_negative(tolerance, "tolerance")
        spending, size = Spending(budget), rows_per_pass(batch, settings.chains)

        def met(index: Tensor, distributions: int, key: Key) -> Tensor:
            return reduced(run(index, distributions, key)[0], reverse=reverse)[1].cpu() <= limit

        spending.start()
        first = [met(index, distributions, key.fold("first round")) for index in chunks(batch, settings.chains)]
        spending.spend(cost(distributions) * batch.rows)
        needed = doubled(torch.cat(first), distributions, cost, met, spending, key, report, size)
        pilot_rows += spending.decoder_rows
    parts, order, decoder_rows, done = [], [], 0, 0
    for each, index in alike(needed, rows_per_pass(batch, settings.chains)):
        parts.append(run(index, each, key.fold("reported")))
        order.append(index)
        decoder_rows += cost(each) * len(index)
        done += len(index)
        report("annealing", done, batch.rows)
    back = torch.cat(order).argsort()
    log_weight = torch.cat([part[0] for part in parts], 1)[:, back]
    latents = torch.cat([part[1] for part in parts], 1)[:, back]
    acceptance = torch.cat([part[2] for part in parts])[back]
    estimate, mc_se, ess = reduced(log_weight, reverse=reverse)
    seconds = time.perf_counter() - begun
    return Annealing(estimate, mc_se, ess, log_weight, acceptance, latents, needed, decoder_rows, pilot_rows, seconds)


def _plan(path: Path, tuning: Tuning, distributions: int, settings: Settings) -> tuple[Tensor, Tensor]:
    betas = settings.schedule.betas(distributions, tuning)
    steps = tuning.steps(betas, settings.leapfrogs, path.longest)
    device = path.problem.batch.x.device
    return betas.to(device), steps.to(device)


def _zero(state: State) -> Tensor:
    return torch.zeros_like(state.log_weight, dtype=torch.float64)


def _weight(state: State) -> Tensor:
    return state.log_weight.double()
