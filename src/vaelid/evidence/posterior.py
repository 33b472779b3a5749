"""Draws from the posterior p(z|x) by Hamiltonian Monte Carlo, with what they are worth, and what they predict."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from vaelid import checks
from vaelid.errors import InputError, InputTypeError
from vaelid.evidence.annealing import PASS, OnProgress, Settings, Start, chunks, forward, starts
from vaelid.evidence.chains import effective_draws, r_hat
from vaelid.evidence.hmc import VARIED, transition, varied
from vaelid.evidence.paths import Path
from vaelid.evidence.tuning import CHAINS, Hint, Tuning, tuned
from vaelid.evidence.weights import reduced, resampled
from vaelid.model import VAE, evaluating
from vaelid.random import Key
from vaelid.types import Batch

PARTICLES = 16  # annealed particles per start that chains are begun from, at least; as many as chains if those are more
DISTRIBUTIONS = 20  # steps of their annealing
WARMUP = 20  # transitions of every chain that are discarded
DISAGREE = 1.05  # R-hat above which chains are said to disagree
FEW = 0.1  # effective draws per draw below which they are said to be few


@final
@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws from p(z|x) and what they are worth, per row of data.

    Attributes:
        z: draws, (sample, row, d), in the model's dtype, chain after chain: all draws of the first chain in their
            order, then those of the second. NaN in a row where log p(x, z) is nowhere finite.
        chains: number of chains per row.
        row: the rows' numbers in their source, (row,), int64.
        r_hat: rank-normalised split R-hat, (row, d), float64; NaN for one chain or fewer than four draws per chain.
        ess: bulk effective sample size of all chains together, (row, d), float64; NaN like ``r_hat``.
        acceptance: mean acceptance probability of the transitions, (row,), float64.
        warnings: sentences about single rows, row number → sentences.
        context: the rows' observed covariates, (row, c), or None.
        decoder_rows: decoder rows of everything, the pilots and the annealing included.
        seconds: wall time of everything.
    """

    z: Tensor
    chains: int
    row: Tensor
    r_hat: Tensor
    ess: Tensor
    acceptance: Tensor
    warnings: dict[int, tuple[str, ...]]
    context: Tensor | None
    decoder_rows: int
    seconds: float

    @property
    def samples(self) -> int:
        """Draws per row, all chains together."""
        return len(self.z)

    @property
    def mean(self) -> Tensor:
        """Posterior mean, (row, d), float64; its Monte Carlo standard error is about ``sd / ess.sqrt()``."""
        return self.z.double().mean(0)

    @property
    def sd(self) -> Tensor:
        """Posterior standard deviation, (row, d), float64; NaN for one draw."""
        return self.z.double().var(0, correction=min(1, self.samples - 1)).sqrt()

    @property
    def worst_r_hat(self) -> Tensor:
        """The largest R-hat of each row, (row,)."""
        return self.r_hat.amax(-1)

    @property
    def worst_ess(self) -> Tensor:
        """The smallest effective sample size of each row, (row,)."""
        return self.ess.amin(-1)

    def __str__(self) -> str:
        rows, latents = self.r_hat.shape
        lines = [
            f"p(z|x) of {rows:,} rows, {latents} latents: {self.samples:,} draws per row from {self.chains} chains",
            f"  R-hat            {_range(self.worst_r_hat, '.3f', largest=True)}   1 where chains agree",
            f"  effective draws  {_range(self.worst_ess, ',.0f', largest=False)}   of {self.samples:,}",
            f"  acceptance       {_range(self.acceptance, '.2f', largest=False)}",
            f"  {len(self.warnings):,} rows with a warning; {self.decoder_rows:,} decoder rows, {self.seconds:.1f} s",
        ]
        return "\n".join(lines)


def posterior(
    model: Any,
    x: Any,
    *,
    samples: int = 1000,
    chains: int = 4,
    leapfrogs: int = 5,
    thin: int = 1,
    start: Start = "both",
    key: Key | None = None,
    on_progress: OnProgress | None = None,
) -> Posterior:
    """Draws from p(z|x) of many rows at once, by Hamiltonian Monte Carlo (Neal 2011).

    Chains begin at particles of annealed importance sampling, resampled by their weights, so that each mode gets
    chains in proportion to its mass even where no chain ever crosses from one to another: take more chains where that
    matters, since of four a mode of mass 0.2 has none two times in five. Step sizes are a pilot's, frozen, times a
    random factor per transition, because trajectories of one length can take a normal coordinate to its mirror image
    for ever (Neal 2011, section 3.2). `WARMUP` transitions are discarded. A mode that no particle found is missing,
    and R-hat cannot tell.

    Rows are walked in chunks of 2048 chains; beyond those, memory is that of the result, samples × rows × d numbers.
    A row's draws depend on the key and its row id, not on the rows beside it (to rounding).

    Args:
        model: any model with a density.
        x: rows, an array or a `Batch` (whose mask and covariates then count, and whose row ids name the noise).
        samples: draws kept per row, all chains together; a multiple of ``chains``.
        chains: chains per row.
        leapfrogs: leapfrog steps per transition of a chain.
        thin: transitions per draw kept.
        start: where the particles start: "posterior" at q(z|x), "prior" at p(z), "both" at either, half of them each.
            "both" needs the inverse of q's transport.
        key: names all noise; ``Key(0)`` by default.
        on_progress: called with a stage, the rows done and the rows in all.

    Raises:
        InputError: a number out of its range; ``chains`` do not divide ``samples``; rows that the model cannot take.
        InputTypeError: start="both", and q's transport has no inverse.
    """
    begun = time.perf_counter()
    samples, thin = checks.positive_int(samples, "samples"), checks.positive_int(thin, "thin")
    chains = checks.positive_int(chains, "chains")
    leapfrogs = checks.positive_int(leapfrogs, "leapfrogs")
    settings = Settings(chains=max(PARTICLES, chains))
    if samples % chains:
        near = chains * max(1, round(samples / chains))
        raise InputError(f"samples={samples} from chains={chains}", "as many from each", f"ask for samples={near}")
    starts(start)
    batch, key = model.batch(x), Key(0) if key is None else key
    parts, rows, done = [], 0, 0
    for index in chunks(batch, settings.chains):
        some = batch.take(index)
        with evaluating(model):
            particles = _particles(model, some, settings, start, key)
            draws, acceptance, moved, cost = _walked(particles, some, leapfrogs, samples, chains, thin, key)
        parts.append((draws.flatten(0, 1), r_hat(draws), effective_draws(draws), acceptance, moved))
        rows, done = rows + particles.decoder_rows + cost, done + len(index)
        if on_progress is not None:
            on_progress("posterior", done, batch.rows)
    columns = list(zip(*parts, strict=True))
    z = torch.cat(columns[0], 1)
    hats, ess, acceptance, moved = map(torch.cat, columns[1:])
    warnings = _warnings(batch.ids(), z, hats, ess, moved)
    seconds = time.perf_counter() - begun
    return Posterior(z, chains, batch.ids(), hats, ess, acceptance, warnings, batch.context, rows, seconds)


@torch.no_grad()
def predictive(model: VAE, posterior: Posterior, key: Key, samples: int | None = None) -> Tensor:
    """Draws x' ~ p(x'|z) for draws z ~ p(z|x), which together are draws from p(x'|x).

    Every cell is drawn, those that a mask hid among them. Passes are of 2048 decoder rows; the result holds samples ×
    rows × cells numbers.

    Args:
        model: the model that the posterior is of.
        posterior: its draws.
        key: names the noise.
        samples: draws per row, spread evenly over the posterior's; one for each of those if None.

    Returns:
        x', (sample, row, *event), in the data's own units.

    Raises:
        InputError: more samples than the posterior has.
    """
    samples = posterior.samples if samples is None else checks.positive_int(samples, "samples")
    if samples > posterior.samples:
        raise InputError(f"samples={samples}", f"at most {posterior.samples}, the draws that the posterior has")
    picked = posterior.z[torch.arange(samples, device=posterior.z.device) * posterior.samples // samples]
    columns = []
    with evaluating(model):
        for index in torch.split(torch.arange(len(posterior.row)), PASS):
            context = None if posterior.context is None else posterior.context[index]
            ids, each, drawn = posterior.row[index], max(1, PASS // len(index)), []
            for first in range(0, samples, each):
                likelihood = model.decode(picked[first : first + each, index], context)
                event = likelihood.mean.shape[2:]
                count = min(each, samples - first)
                uniform = key.uniform_rows(ids, count, event.numel(), start=first, dtype=picked.dtype)
                drawn.append(likelihood.icdf(uniform.view(count, len(index), *event)))
            columns.append(torch.cat(drawn))
    return torch.cat(columns, 1)


class _Particles(NamedTuple):
    """Annealed particles of some rows, (particle, row, k), with log w, (particle, row), and how to go on from them."""

    path: Path
    tuning: Tuning
    position: Tensor
    log_weight: Tensor
    decoder_rows: int


def _particles(model: Any, batch: Batch, settings: Settings, start: Start, key: Key) -> _Particles:
    """Anneal from each start, and give all particles as positions on the last path.

    The prior goes first: what it finds tells the pilot from the posterior where else to look.
    """
    z, log_weights, hint, cost = [], [], None, 0
    for each in reversed(starts(start)):
        folded = key.fold(each)
        try:
            pilot = tuned(model, batch, each, folded, hint)
        except InputTypeError as error:
            if hint is None:
                raise
            expected, remedy = "a posterior whose transport has an inverse", "take start='posterior'"
            raise InputTypeError(f"start={start!r}", expected, remedy) from error
        path = pilot.tuning.path(model, batch)
        walk = forward(path, pilot.tuning, DISTRIBUTIONS, settings, folded)
        z.append(path.latents(walk.state.position))
        log_weights.append(walk.log_weight)
        hint = Hint(
            _resampled(z[-1], walk.log_weight, CHAINS, batch, folded), reduced(walk.log_weight, reverse=False)[0]
        )
        cost += pilot.decoder_rows + settings.rows(DISTRIBUTIONS) * batch.rows
    positions = [*map(path.of, z[:-1]), walk.state.position]
    return _Particles(path, pilot.tuning, torch.cat(positions), torch.cat(log_weights), cost)


def _walked(
    particles: _Particles, batch: Batch, leapfrogs: int, samples: int, chains: int, thin: int, key: Key
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Draws (chain, draw, row, d), mean acceptance (row,), how many chains moved (row,), and decoder rows spent."""
    path, tuning = particles.path, particles.tuning
    beta = torch.ones(batch.rows, dtype=torch.float64, device=batch.x.device)
    longest = tuning.steps(torch.ones_like(tuning.log_step[:1]), leapfrogs, VARIED * path.longest)[0].to(beta)
    state = path.state(_resampled(particles.position, particles.log_weight, chains, batch, key))
    moved = torch.zeros_like(state.log_weight, dtype=torch.bool)
    draws, acceptance, kept = [], torch.zeros_like(beta), samples // chains * thin
    for t in range(1, WARMUP + kept + 1):
        before = state.position
        step = varied(longest, batch.ids(), key.fold("step", t))
        state, share = transition(path, state, beta, step, leapfrogs, key.fold("chain", t))
        if t > WARMUP:
            acceptance = acceptance + share.double().mean(0) / kept
            moved |= (state.position != before).any(-1)
            if (t - WARMUP) % thin == 0:
                draws.append(path.latents(state.position))
    cost = 1 + leapfrogs * (WARMUP + kept)
    finite = particles.log_weight.isfinite().any(0).unsqueeze(-1)
    z = torch.where(finite, torch.stack(draws, 1), torch.nan)
    return z, acceptance, moved.sum(0), cost * chains * batch.rows


def _resampled(at: Tensor, log_weight: Tensor, chains: int, batch: Batch, key: Key) -> Tensor:
    """Particles (particle, row, k) resampled by their weights, (chain, row, k)."""
    picked = resampled(log_weight, chains, batch.ids(), key)
    return at.gather(0, picked.unsqueeze(-1).expand(-1, -1, at.shape[-1]))


def _warnings(ids: Tensor, z: Tensor, hats: Tensor, ess: Tensor, moved: Tensor) -> dict[int, tuple[str, ...]]:
    """What is wrong with single rows."""
    found: dict[int, tuple[str, ...]] = {}
    worst, fewest, finite = hats.amax(-1).tolist(), ess.amin(-1).tolist(), z.isfinite().all(-1).all(0).tolist()
    for i, row in enumerate(ids.tolist()):
        said = []
        if not finite[i]:
            said.append("log p(x, z) is not finite anywhere the chains could begin: there are no draws")
        elif not moved[i]:
            said.append("no chain ever moved: no proposal was accepted")
        else:
            if worst[i] > DISAGREE:
                said.append(f"R-hat {worst[i]:.2f}: the chains disagree, so modes or tails may be out of proportion")
            if fewest[i] < FEW * len(z):
                said.append(f"{fewest[i]:.0f} effective draws of {len(z)}: take more, or thin")
        if said:
            found[row] = tuple(said)
    return found


def _range(values: Tensor, form: str, *, largest: bool) -> str:
    """Median and worst of what is known of the rows."""
    known = values[~values.isnan()]
    if not len(known):
        return "unknown"
    worst = known.max() if largest else known.min()
    return f"{float(known.median()):{form}} in the median row, {float(worst):{form}} in the worst"
