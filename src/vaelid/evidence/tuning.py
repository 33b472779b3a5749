"""What is found out before a run and then frozen: where chains start, how far they step, how far log w spreads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor

from vaelid.distributions import Normal
from vaelid.errors import InputTypeError
from vaelid.evidence.hmc import transition
from vaelid.evidence.paths import NoisePath, Path, State, from_prior
from vaelid.evidence.weights import reduced
from vaelid.fitted import PerDatum
from vaelid.model import Problem
from vaelid.random import Key
from vaelid.types import Batch

CHAINS, LEAPFROGS = 8, 4  # of a pilot
TEMPERATURES = 12  # of the pilot that tunes steps
SCOUT = 10  # temperatures of the pilot that finds the start, and
STAY = 4  # its transitions at β = 1
TARGET = 0.7  # acceptance that step sizes are tuned to
GAIN = 1.0  # change of the log step per unit of acceptance off the target
WINDOW = 5  # temperatures over which the noise of a few chains is averaged
DRAWS = 24  # effective number of draws that a scout's chains are taken for
MARGIN = 1.05  # by how much a start is wider than what the scout saw
LOST = 5.0  # nats over which log w may spread, and
FAR = 6.0  # standard deviations of q that chains may go, before q is fitted to the row
GAINED = 1.0  # nats by which the pilot from there must be higher
FIT = PerDatum()
PAIRS = 32  # pairs of its draws that say where it lies in the noise of q(z|x)


class Hint(NamedTuple):
    """Draws from p(z|x) that another method suggests, z (chain, row, d), and its estimate of log p(x), (row,)."""

    z: Tensor
    log_evidence: Tensor


@final
@dataclass(frozen=True, eq=False)
class Tuning:
    """Frozen settings of a path for some rows: float64 on the CPU, but loc and scale, which are where the model is.

    Attributes:
        grid: inverse temperatures, (n,), from 0 to 1.
        log_step: log of the step size that is accepted with probability `TARGET`, (n, row).
        spread: standard deviation of log w over the pilot's chains, (n, row).
        loc: where the start is moved to, (row, k); None where it is the prior.
        scale: by how much it is stretched, (row, k).
        own: whether loc and scale are those of a normal over z, the start itself, and not of the noise of q(z|x).
    """

    grid: Tensor
    log_step: Tensor
    spread: Tensor
    loc: Tensor | None = None
    scale: Tensor | None = None
    own: bool = False

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.log_step.shape[1]

    @property
    def length(self) -> Tensor:
        """∫ σ(β) dβ, (row,), nats: the spread of log w along the path, 0 where the start is p(z|x)."""
        return (self.grid.diff().unsqueeze(-1) * (self.spread[1:] + self.spread[:-1]) / 2).sum(0)

    def path(self, model: Any, batch: Batch) -> Path:
        """The path of the rows that these settings were made for."""
        if self.loc is None or self.scale is None:
            return from_prior(model, batch)
        with torch.no_grad():
            if self.own:  # nothing need be encoded
                return NoisePath(model.given(batch, start="prior")).starting(Normal(self.loc, self.scale))
            return NoisePath(model.given(batch), self.loc, self.scale)

    def steps(self, betas: Tensor, leapfrogs: int, longest: float) -> Tensor:
        """Step sizes at ``betas`` (m, row), linear in log between the grid's; no trajectory exceeds ``longest``."""
        grid = self.grid.unsqueeze(-1).expand_as(self.log_step)
        return interpolate(betas, grid, self.log_step).exp().clamp(max=longest / leapfrogs)

    def take(self, index: Tensor) -> Tuning:
        """The rows at ``index``."""
        loc = None if self.loc is None else self.loc[index]
        scale = None if self.scale is None else self.scale[index]
        return Tuning(self.grid, self.log_step[:, index], self.spread[:, index], loc, scale, self.own)

    def with_rows(self, index: Tensor, other: Tuning) -> Tuning:
        """The same with the rows at ``index`` from other settings."""

        def put(name: str, dim: int) -> Any:
            mine = getattr(self, name)
            return None if mine is None else mine.index_copy(dim, index.to(mine.device), getattr(other, name))

        return Tuning(self.grid, put("log_step", 1), put("spread", 1), put("loc", 0), put("scale", 0), self.own)

    @staticmethod
    def join(parts: list[Tuning]) -> Tuning:
        """The rows of all parts, in order."""

        def joined(name: str, dim: int) -> Any:
            columns = [getattr(part, name) for part in parts]
            return None if columns[0] is None else torch.cat(columns, dim)

        return Tuning(
            parts[0].grid,
            joined("log_step", 1),
            joined("spread", 1),
            joined("loc", 0),
            joined("scale", 0),
            parts[0].own,
        )


class Pilot(NamedTuple):
    """Settings for later runs, and the decoder rows that finding them took.

    ``height`` is what the pilot's chains say of log p(x), (row,). They were tuned while they ran, so it is no bound and
    serves to choose between settings.
    """

    tuning: Tuning
    height: Tensor
    decoder_rows: int


def tuned(model: Any, batch: Batch, start: Literal["posterior", "prior"], key: Key, hint: Hint | None = None) -> Pilot:
    """Find the settings of some rows: 848 decoder rows for each from the posterior, 392 from the prior.

    From the posterior a scout goes first. It anneals a few chains from q(z|x) to p(x, z), keeps what they visit for
    β ≥ ½, and takes mean and standard deviation of that as the start of all later runs: an encoder that is off by
    a few standard deviations for one row costs that row nothing. Where that is not enough, since log w still spreads
    over more than `LOST` nats or the chains went further than `FAR` standard deviations, q is fitted to the row by
    itself, and scout and pilot begin again from there. The first start stays unless the second one's pilot is higher by
    `GAINED`: a fit has one mode, while a scout that spreads may have seen several.
    """
    if start == "prior":
        return _pilot(from_prior(model, batch), key.fold("pilot"))
    with torch.no_grad():
        path = NoisePath(model.given(batch))
    found, distance = _scouted(path, key, hint)
    tuning = found.tuning
    lost = ((distance > FAR) | ~(tuning.length <= LOST)).nonzero()[:, 0]
    if not len(lost) or not isinstance(path.problem, Problem):  # a fit needs log p(x, z) at any z, which a trace lacks
        return found
    try:
        fitted = _fitted(model, batch.take(lost), key.fold("fitted"))
    except InputTypeError:  # the posterior has no inverse, so that nothing can be moved to where the fit is
        return found
    again, _ = _scouted(fitted, key.fold("again"), None)
    better = ~(again.height <= found.height[lost] + GAINED)
    joint = tuning.with_rows(lost[better], again.tuning.take(better.nonzero()[:, 0]))
    height = found.height.index_copy(0, lost[better], again.height[better])
    return Pilot(joint, height, found.decoder_rows + again.decoder_rows + FIT.cost * len(lost))


def _scouted(path: NoisePath, key: Key, hint: Hint | None) -> tuple[Pilot, Tensor]:
    """Scout and pilot from a path's start; and how far the scout moved it, (row,), in its standard deviations."""
    loc, scale = _scout(path, key.fold("scout"), hint)
    found = _pilot(path.moved(loc, scale), key.fold("pilot"))
    rows = pilot_cost("posterior", hinted=hint is not None) * path.problem.batch.rows
    return found._replace(decoder_rows=rows), loc.abs().amax(-1).cpu()


def _fitted(model: Any, batch: Batch, key: Key) -> NoisePath:
    """The path that starts at a normal fitted to each row (`vaelid.fitted.PerDatum`)."""
    with torch.no_grad():
        path = NoisePath(model.given(batch))
        if path.normal is None:
            path.of(path.latents(path.problem.noise(key, 1)))  # refused now, and not after the fit
    q = FIT(model.given(batch, start="prior").batch, lambda rows: model.given(rows, start="prior"))
    if path.normal is not None:
        return path.starting(q)
    with torch.no_grad():
        u = key.normal_rows(batch.ids(), PAIRS, q.size, dtype=q.loc.dtype)
        noise = path.of(q.push(torch.cat((u, -u)))[0])
    return path.moved(noise.mean(0), noise.std(0).clamp(min=1e-6))


def pilot_cost(start: Literal["posterior", "prior"], *, hinted: bool = False) -> int:
    """Decoder rows per row of data of `tuned`, where no q has to be fitted."""
    scout = 1 + (SCOUT + STAY) * LEAPFROGS + hinted if start == "posterior" else 0
    return CHAINS * (scout + 1 + TEMPERATURES * LEAPFROGS)


def _scout(path: NoisePath, key: Key, hint: Hint | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of noise under p(z|x), (row, k), drawn toward 0 and 1 as far as chance explains them.

    Where a hint's estimate of log p(x) is larger than the chains' own, as many of them as its share of the sum go on
    from the hint's draws, and what those chains saw before is forgotten.
    """
    state, log_step = _begin(path, key)
    log_weight = torch.zeros_like(state.log_weight, dtype=torch.float64)
    visits: list[Tensor] = []
    counted: list[Tensor] = []
    for t in range(SCOUT + STAY):
        beta = min(1.0, (t + 1) / SCOUT)
        if t < SCOUT:
            log_weight = log_weight + state.log_weight.double() / SCOUT
        elif t == SCOUT and hint is not None:
            moved = _moved(log_weight, hint)
            state = path.state(torch.where(moved.unsqueeze(-1), path.of(hint.z), state.position))
            counted = [~moved for _ in counted]
        state, log_step = _tuned_move(path, state, beta, log_step, key.fold("move", t))
        if 2 * beta >= 1:
            visits.append(state.position)
            counted.append(torch.ones_like(state.log_weight, dtype=torch.bool))
    position, weight = torch.cat(visits), torch.cat(counted).unsqueeze(-1).to(state.position.dtype)
    weight = weight / weight.sum(0)
    mean = (weight * position).sum(0)
    variance = (weight * (position - mean).square()).sum(0).clamp(min=1e-6)
    loc = _shrunk(mean, variance / DRAWS)
    log_scale = 0.5 * _shrunk(variance.log(), torch.full_like(variance, 2 / DRAWS))
    return loc, log_scale.exp() * MARGIN


def _moved(log_weight: Tensor, hint: Hint) -> Tensor:
    """Which chains go on from a hint's draws, (chain, row): its share of the two estimates' sum, rounded."""
    own = reduced(log_weight, reverse=False)[0]
    share = torch.sigmoid((hint.log_evidence - own).nan_to_num(nan=-math.inf))
    chain = torch.arange(len(log_weight), device=share.device).unsqueeze(-1)
    return chain < (share * len(log_weight)).round()


def _shrunk(values: Tensor, noise: Tensor) -> Tensor:
    """Estimates (row, k) with error variances ``noise``, drawn toward 0: v τ² / (τ² + noise), where τ² is the variance
    of a row's true values as its k estimates tell (Efron & Morris 1973).
    """
    signal = (values.square() - noise).mean(-1, keepdim=True).clamp(min=0)
    return values * signal / (signal + noise)


def _pilot(path: Path, key: Key) -> Pilot:
    """Anneal a few chains along the path, and tune the step size of every row and temperature as they go.

    After each transition log step moves by `GAIN` · (mean acceptance − `TARGET`). Steps and spreads are then averaged
    over neighbouring temperatures.
    """
    grid = torch.linspace(0, 1, TEMPERATURES + 1, dtype=torch.float64) ** path.power
    state, log_step = _begin(path, key)
    log_weight = torch.zeros_like(state.log_weight, dtype=torch.float64)
    steps, spreads = [], [_spread(state)]
    for t in range(1, TEMPERATURES + 1):
        log_weight = log_weight + (grid[t] - grid[t - 1]).item() * state.log_weight.double()
        state, log_step = _tuned_move(path, state, grid[t].item(), log_step, key.fold("move", t))
        steps.append(log_step)
        spreads.append(_spread(state))
    loc, scale, own = path.place if isinstance(path, NoisePath) else (None, None, False)
    tuning = Tuning(grid, _smooth([steps[0], *steps]).cpu(), _smooth(spreads).cpu(), loc, scale, own)
    return Pilot(tuning, reduced(log_weight, reverse=False)[0].cpu(), pilot_cost("prior") * path.problem.batch.rows)


def _begin(path: Path, key: Key) -> tuple[State, Tensor]:
    """Chains at β = 0, and the log of the step to begin with, (row,), float64."""
    state = path.state(path.start(path.problem.noise(key.fold("start"), CHAINS)))
    first = math.log(path.longest / LEAPFROGS)
    return state, torch.full_like(state.log_weight[0], first, dtype=torch.float64)


def _tuned_move(path: Path, state: State, beta: float, log_step: Tensor, key: Key) -> tuple[State, Tensor]:
    """A transition, and the log step after it."""
    move = transition(path, state, torch.full_like(log_step, beta), log_step.exp(), LEAPFROGS, key)
    log_step = log_step + GAIN * (move.acceptance.mean(0).double() - TARGET)
    # a little longer than the longest useful trajectory, so that a run of one leapfrog fewer has a whole one; much
    # longer ones would turn the noise back to where it was
    return move.state, log_step.clamp(max=math.log(path.longest / (LEAPFROGS - 1)))


def interpolate(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """y at ``at`` (m, row), linear between the points x (n, row), which increase down the columns."""
    columns = x.T.contiguous()
    right = torch.searchsorted(columns, at.T.contiguous()).clamp(1, len(x) - 1)
    left = right - 1
    x0, x1 = columns.gather(1, left), columns.gather(1, right)
    share = ((at.T - x0) / (x1 - x0)).clamp(0, 1)
    heights = y.T
    return torch.lerp(heights.gather(1, left), heights.gather(1, right), share).T


def _spread(state: State) -> Tensor:
    """Standard deviation of log w over the chains, (row,), from their quartiles: one stray chain does not rule."""
    values = state.log_weight.double().nan_to_num(nan=0.0, neginf=-1e15)
    low, high = values.quantile(0.25, dim=0), values.quantile(0.75, dim=0)
    return (high - low) / 1.35


def _smooth(values: list[Tensor]) -> Tensor:
    """Moving average over the list, with fewer terms at its ends, (n, row)."""
    half = WINDOW // 2
    return torch.stack([torch.stack(values[max(0, i - half) : i + half + 1]).mean(0) for i in range(len(values))])
