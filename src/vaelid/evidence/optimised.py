"""q* of a family, optimised for every row by itself, many rows at once, and its ELBO under fresh noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from vaelid import checks, fitted
from vaelid.distributions import Normal
from vaelid.errors import InputError, InputTypeError
from vaelid.evidence.families import Family, Parameters
from vaelid.evidence.importance import DECODER_ROWS
from vaelid.fitted import PerDatum, climb
from vaelid.model import VAE, Problem, evaluating
from vaelid.random import Key
from vaelid.transports import FullNormal
from vaelid.types import Batch, Transport

LEAST, MOST = 2, 6  # searches one after the other, the later ones for rows that still gain by them
PAIRS = 4  # pairs of draws ±u per step
DECIDING = 256  # draws that choose between candidates; none of them is reported
TIE = 0.05  # nats that one candidate may be ahead of another by chance
MOMENTS = 256  # draws that give the moments of an encoder's q that is no normal
RATE = 0.1  # of Adam at the first step, in units of the scale that q starts with


@final
@dataclass(frozen=True, eq=False)
class Optimised:
    """ELBOs of q and of the q* found, float64 on the CPU, nats.

    Attributes:
        row: the rows' numbers in their source, (rows,).
        elbo: L[q] of the model's own q, (rows,).
        elbo_mc_se: its Monte Carlo standard error.
        best: L[q*] per family, (families, rows).
        best_mc_se: its Monte Carlo standard error.
        gain: L[q*] − L[q], (families, rows).
        gain_mc_se: its Monte Carlo standard error; both ELBOs are under the same noise, so it is less than theirs.
        unsettled: whether the last search for q* still gained more than `TIE`, (families, rows): more steps would help.
        q: q* per family, with parameters (rows, …).
    """

    row: Tensor
    elbo: Tensor
    elbo_mc_se: Tensor
    best: Tensor
    best_mc_se: Tensor
    gain: Tensor
    gain_mc_se: Tensor
    unsettled: Tensor
    q: tuple[Transport, ...]


@torch.no_grad()
def optimise(
    model: VAE,
    x: Any,
    families: Sequence[Family],
    *,
    steps: int = 300,
    samples: int = 1000,
    key: Key,
    on_rows: Callable[[int], None] | None = None,
) -> Optimised:
    """For every row the q* of each family that maximises L[q] = E_q [log p(x, z) − log q(z)], and L[q*].

    The search begins at the encoder's q (at its moments where it is no normal) and at the diagonal normal of
    `PerDatum`, which starts from draws of the prior; diagonal normals and flows also at the best full normal. A search
    is ``steps`` steps of Adam under a falling rate, in coordinates whitened by where it begins, with fresh noise in
    pairs ±u at each step and the gradient through z alone (Roeder et al. 2017), unbiased and without variance where q
    is the posterior; a second search sets out from what the first one found, whitened anew, and so on while a row gains
    by it, `MOST` times at most. Among start, encoder's q and what was found, the highest ELBO under `DECIDING` draws of
    a key of their own is kept, row by row: where the encoder's q belongs to the family, no failed search makes q* worse
    than it but by the error of that decision.

    L[q*] and L[q] are then means over ``samples`` draws that neither search nor decision has seen: unbiased for the q*
    found, and so below log p(x) in expectation whatever the search did.

    Noise is a function of (key, row id, step) alone: q* does not depend on the rows beside it (to rounding). Rows are
    taken in pieces of bounded memory. All three families cost about ``60 · steps`` decoder rows with a gradient per row
    of data, more where rows still gain, and ``4 · samples`` without.

    Args:
        model: any model with one group of latents.
        x: rows, an array or a `Batch`.
        families: `Diagonal`, `Full`, `Flow`.
        steps: steps of each search.
        samples: draws behind the reported ELBOs, at least 2.
        key: names the noise.
        on_rows: called with the number of rows done after each piece.

    Raises:
        InputError: called inside ``torch.inference_mode()``, or there is no family.
        InputTypeError: something else than a family.
    """
    if torch.is_inference_mode_enabled():
        raise InputError(
            "a q to be optimised inside torch.inference_mode()", "gradients", "use torch.no_grad() instead"
        )
    steps, samples = checks.positive_int(steps, "steps"), checks.positive_int(samples, "samples", minimum=2)
    if not families:
        raise InputError("no family", "one or more, such as families=(Diagonal(), Full())")
    for family in families:
        if not isinstance(family, Family):
            raise InputTypeError(f"the family {family!r}", "Diagonal(), Full() or Flow()")
    batch = model.batch(x)
    rows = max(1, fitted.DECODER_ROWS // (2 * PAIRS))
    searches, pieces, unsettled = [], [], []
    for first in range(0, batch.rows, rows):
        with evaluating(model):
            search = _Search(model, batch.take(slice(first, first + rows)), steps, key)
            found, moving = zip(*(search.best(family) for family in families), strict=True)
            values = [search.problem.start, *(family.value(p) for family, p in zip(families, found, strict=True))]
            pieces.append(log_weights(search.problem, values, key.fold("reported"), samples).cpu())
        searches.append(found)
        unsettled.append(torch.stack(moving).cpu())
        if on_rows is not None:
            on_rows(min(first + rows, batch.rows))
    weights = torch.cat(pieces, -1)  # (q and families, sample, rows)
    elbo, elbo_se = _mean(weights)
    gain, gain_se = _mean(weights[1:] - weights[0])
    joined = [tuple(torch.cat(column) for column in zip(*parts, strict=True)) for parts in zip(*searches, strict=True)]
    q = tuple(family.value(parameters) for family, parameters in zip(families, joined, strict=True))
    moved = torch.cat(unsettled, -1)
    return Optimised(batch.ids().cpu(), elbo[0], elbo_se[0], elbo[1:], elbo_se[1:], gain, gain_se, moved, q)


@final
class _Search:
    """The searches for some rows, each family's done once."""

    def __init__(self, model: VAE, batch: Batch, steps: int, key: Key) -> None:
        self.model, self.problem, self.steps, self.key = model, model.given(batch), steps, key
        self.normals = [self._normal(self.problem)]
        if not isinstance(model.posterior, PerDatum):
            self.normals.append(PerDatum(steps)(self.problem.batch, lambda rows: model.given(rows, start="prior")))
        self.known: dict[Family, tuple[Parameters, Tensor]] = {}

    def best(self, family: Family) -> tuple[Parameters, Tensor]:
        """Parameters of q*, and whether its last search still gained, (batch,)."""
        if family not in self.known:
            self.known[family] = self._search(family)
        return self.known[family]

    def _search(self, family: Family) -> tuple[Parameters, Tensor]:
        normals = list(self.normals)
        if family.origin is not None:
            normals.append(family.origin.value(self.best(family.origin)[0]))  # type: ignore[arg-type]  # of normals
        candidates = [family.near(q, self.key) for q in normals]
        if family.origin is None:  # the encoder's mode may be the better one, however little its q is worth there
            candidates.append(self._climb(self.problem, family, candidates[0], 0))
        chosen, _ = self._choose(self.problem, family, candidates)
        moving = torch.ones_like(chosen[0][:, 0], dtype=torch.bool)
        for number in range(1, 1 + MOST):
            rows = moving.nonzero().squeeze(1)
            problem = self.model.given(self.problem.batch.take(rows), start="prior")
            start = tuple(parameter[rows] for parameter in chosen)
            found, gained = self._choose(problem, family, [start, self._climb(problem, family, start, number)])
            for parameter, new in zip(chosen, found, strict=True):
                parameter[rows] = new
            if number >= LEAST:
                moving[rows] = gained
                if not gained.any():
                    break
        return chosen, moving

    def _climb(self, problem: Problem, family: Family, start: Parameters, number: int) -> Parameters:
        batch, size = problem.batch, problem.noise_size
        key, free = self.key.fold(type(family).__name__, number), family.free(start)

        def noise(step: int) -> Tensor:
            u = key.normal_rows(batch.ids(), PAIRS, size, start=step * PAIRS, dtype=batch.x.dtype)
            return torch.cat((u, -u))

        climb(free, lambda: family.value(family.moved(start, free)), problem, noise, self.steps, RATE)
        return family.moved(start, free)

    def _choose(self, problem: Problem, family: Family, candidates: list[Parameters]) -> tuple[Parameters, Tensor]:
        """Row by row the last candidate, unless the highest ELBO is another's by 2 standard errors or `TIE`; and
        whether it is above the first one's by both.
        """
        values = [family.value(parameters) for parameters in candidates]
        draws = log_weights(problem, values, self.key.fold("deciding"), DECIDING)
        best = draws.mean(1).nan_to_num(nan=-math.inf, posinf=-math.inf).argmax(0)
        rows = torch.arange(len(best), device=best.device)
        ahead, error = _mean(draws[best, :, rows].T - draws[-1])
        index = torch.where((ahead <= 2 * error) & (ahead <= TIE), len(candidates) - 1, best)  # NaN is no tie
        gain, error = _mean(draws[index, :, rows].T - draws[0])
        chosen = tuple(torch.stack(column)[index, rows] for column in zip(*candidates, strict=True))
        return chosen, (gain > 2 * error) & (gain > TIE)

    def _normal(self, problem: Problem) -> Normal | FullNormal:
        """The start of the problem, or the normal with its moments."""
        q = problem.start
        if isinstance(q, Normal | FullNormal):
            return q.detach()
        z, _ = q.push(problem.noise(self.key.fold("moments"), max(MOMENTS, 8 * problem.noise_size)))
        loc, scale = z.mean(0), z.std(0)
        unit = (z - loc) / scale
        covariance = torch.einsum("sri,srj->rij", unit, unit) / len(z)
        covariance = covariance + 1e-3 * torch.eye(problem.noise_size, dtype=z.dtype, device=z.device)
        return FullNormal(loc, scale.unsqueeze(-1) * torch.linalg.cholesky(covariance))


def log_weights(problem: Problem, values: Sequence[Transport], key: Key, samples: int) -> Tensor:
    """log p(x, z) − log q(z) of draws from each q under the same noise, (q, sample, batch), float64."""
    per_pass = max(1, DECODER_ROWS // problem.batch.rows)
    passes = []
    for first in range(0, samples, per_pass):
        u = problem.noise(key, min(per_pass, samples - first), start=first)
        drawn = (q.push(u) for q in values)
        passes.append(torch.stack([(problem.log_joint(z) - log_q).double() for z, log_q in drawn]))
    return torch.cat(passes, 1)


def _mean(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the draws (…, sample, rows), and its standard error."""
    return draws.mean(-2), draws.std(-2) / math.sqrt(draws.shape[-2])
