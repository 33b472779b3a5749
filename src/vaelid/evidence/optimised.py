"""q* of a family, optimised for every row by itself, many rows at once, and its ELBO under fresh noise."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from vaelid import checks, fitted
from vaelid.distributions import Normal
from vaelid.errors import InputError, InputTypeError
from vaelid.evidence.importance import DECODER_ROWS
from vaelid.fitted import PerDatum, climb
from vaelid.model import VAE, Problem, evaluating
from vaelid.random import Key
from vaelid.transports import FullNormal
from vaelid.types import Batch, Transport

Parameters = tuple[Tensor, ...]  # of every row's q, (batch, …) each

LEAST, MOST = 2, 6  # searches one after the other, the later ones for rows that still gain by them
PAIRS = 4  # pairs of draws ±u per step
DECIDING = 256  # draws that choose between candidates; none of them is reported
TIE = 0.05  # nats that one candidate may be ahead of another by chance
MOMENTS = 256  # draws that give the moments of an encoder's q that is no normal
RATE = 0.1  # of Adam at the first step, in units of the scale that q starts with
UNIT = 0.3  # of a flow's weights in a search, over √d
CAP = 2.0  # largest |log scale| of a coupling


class Family(abc.ABC):
    """A set of distributions over z, from which every row takes its own; frozen, without state."""

    @property
    @abc.abstractmethod
    def origin(self) -> Family | None:
        """A family of normals whose best member is one of the places where the search in this one may begin."""

    @abc.abstractmethod
    def near(self, q: Normal | FullNormal, key: Key) -> Parameters:
        """The member that is q, or where q is none the closest one; ``key`` names initial weights."""

    @abc.abstractmethod
    def value(self, parameters: Parameters) -> Transport:
        """The distributions of the rows."""

    @abc.abstractmethod
    def free(self, parameters: Parameters) -> Parameters:
        """What a search moves, at its beginning."""

    @abc.abstractmethod
    def moved(self, parameters: Parameters, free: Parameters) -> Parameters:
        """The parameters after the search moved ``free``; its units are the scale of the q it set out from."""


@final
@dataclass(frozen=True)
class Diagonal(Family):
    """N(m, diag s²). Its best member for a normal posterior of precision Λ has s_i² = 1 / Λ_ii, and a gap of
    ½ (Σ log Λ_ii − log |Λ|).
    """

    @property
    def origin(self) -> Full:
        """The full normals: in their coordinates a mean is found however strongly the latents are correlated."""
        return Full()

    def near(self, q: Normal | FullNormal, key: Key) -> Parameters:
        """q, or the best diagonal normal for q as the posterior."""
        if isinstance(q, Normal):
            return q.loc, q.scale
        unit = torch.eye(q.size, dtype=q.loc.dtype, device=q.loc.device)
        inverse = torch.linalg.solve_triangular(q.scale_tril, unit, upper=False)
        return q.loc, inverse.square().sum(-2).rsqrt()

    def value(self, parameters: Parameters) -> Normal:
        """N(m, diag s²), parameters (batch, d)."""
        loc, scale = parameters
        return Normal(loc, scale)

    def free(self, parameters: Parameters) -> Parameters:
        """A step of m in units of s, and one of log s."""
        return tuple(torch.zeros_like(parameter) for parameter in parameters)

    def moved(self, parameters: Parameters, free: Parameters) -> Parameters:
        """m + s v and s e^ρ."""
        (loc, scale), (step, growth) = parameters, free
        return loc + scale * step, scale * growth.exp()


@final
@dataclass(frozen=True)
class Full(Family):
    """N(m, L Lᵀ), L lower triangular: what is left of the gap is that the posterior is no normal."""

    origin = None

    def near(self, q: Normal | FullNormal, key: Key) -> Parameters:
        """q."""
        return q.loc, q.scale.diag_embed() if isinstance(q, Normal) else q.scale_tril

    def value(self, parameters: Parameters) -> FullNormal:
        """N(m, L Lᵀ), parameters (batch, d) and (batch, d, d)."""
        loc, tril = parameters
        return FullNormal(loc, tril)

    def free(self, parameters: Parameters) -> Parameters:
        """A step of m, one of the log diagonal, and what comes below it, in the coordinates L⁻¹ (z − m)."""
        loc, tril = parameters
        return torch.zeros_like(loc), torch.zeros_like(loc), torch.zeros_like(tril)

    def moved(self, parameters: Parameters, free: Parameters) -> Parameters:
        """m + L v and L (diag e^ρ + A / √d): without the root a step of so many entries would be long."""
        (loc, tril), (step, growth, below) = parameters, free
        factor = growth.exp().diag_embed() + below.tril(-1) / math.sqrt(loc.shape[-1])
        return loc + (tril @ step.unsqueeze(-1)).squeeze(-1), tril @ factor


@final
@dataclass(frozen=True)
class Flow(Family):
    """z = m + L f(u), f a `Coupled` flow with weights of each row's own; it begins as the best full normal.

    Attributes:
        layers: couplings, none where d = 1.
        hidden: hidden units of each coupling's network.
    """

    layers: int = 4
    hidden: int = 8

    def __post_init__(self) -> None:
        checks.positive_int(self.layers, "layers", minimum=0)
        checks.positive_int(self.hidden, "hidden")

    @property
    def origin(self) -> Full:
        """The full normals."""
        return Full()

    def near(self, q: Normal | FullNormal, key: Key) -> Parameters:
        """q: f is the identity, with the same first layers in every row."""
        loc, tril = Full().near(q, key)
        rows, size = loc.shape
        given = size // 2
        weights = [torch.zeros_like(loc), torch.zeros_like(loc)]
        for index in range(self.layers if size > 1 else 0):
            draws = key.fold("weights", index).normal((self.hidden, given + 1), dtype=loc.dtype).to(loc.device)
            draws[:, :given] /= math.sqrt(given)
            weights.append(draws.expand(rows, -1, -1).clone())
            weights.append(loc.new_zeros(rows, 2 * (size - given), self.hidden + 1))
        return loc, tril, *weights

    def value(self, parameters: Parameters) -> Coupled:
        """The flow of every row."""
        loc, tril, skew, tail, *weights = parameters
        return Coupled(FullNormal(loc, tril), skew, tail, tuple(weights))

    def free(self, parameters: Parameters) -> Parameters:
        """That of a full normal, and f's weights."""
        return *Full().free(parameters[:2]), *(torch.zeros_like(weight) for weight in parameters[2:])

    def moved(self, parameters: Parameters, free: Parameters) -> Parameters:
        """The full normal moved, and the weights by `UNIT` / √d of what is free."""
        unit = UNIT / math.sqrt(parameters[0].shape[-1])
        weights = (weight + unit * step for weight, step in zip(parameters[2:], free[3:], strict=True))
        return *Full().moved(parameters[:2], free[:3]), *weights


@final
@dataclass(frozen=True, eq=False)
class Coupled:
    """z = m + L f(u), every map of f with an inverse as cheap as itself, and parameters of each row's own.

    First y = sinh(e^τ asinh(u) + ε) in every coordinate, which skews it and changes its tails (Jones and Pewsey 2009);
    then affine couplings y_b = x_b e^s + t, y_a = x_a, where s and t come from x_a by one hidden layer of tanh
    (Dinh et al. 2017) and |s| < `CAP`. Each coupling takes another half of the coordinates for a.

    Attributes:
        outer: N(m, L Lᵀ), parameters (batch, d) and (batch, d, d).
        skew: ε, (batch, d).
        tail: τ, (batch, d).
        weights: per coupling the first layer (batch, hidden, a + 1) and the second (batch, 2 b, hidden + 1), offsets in
            the last columns.
    """

    outer: FullNormal
    skew: Tensor
    tail: Tensor
    weights: Parameters

    @property
    def size(self) -> int:
        """d, the number of latents."""
        return self.outer.size

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z, (sample, batch, d), and log q(z), (sample, batch), nats."""
        y = torch.sinh(self.tail.exp() * torch.asinh(u) + self.skew)
        log_det = self._bent(u, y)
        for index in range(len(self.weights) // 2):
            a, b = self._split(y, index)
            log_scale, offset = self._coefficients(a, index)
            y = self._join(a, b * log_scale.exp() + offset, index)
            log_det = log_det + log_scale.sum(-1)
        z, _ = self.outer.push(y)
        return z, self._log_density(u, log_det)

    def pull(self, z: Tensor) -> Tensor:
        """u = f⁻¹(L⁻¹ (z − m)), (sample, batch, d)."""
        return self._inverse(z)[0]

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(z), (sample, batch), nats."""
        return self._log_density(*self._inverse(x))

    def detach(self) -> Coupled:
        """The same flow with its parameters cut from the graph."""
        weights = tuple(weight.detach() for weight in self.weights)
        return Coupled(self.outer.detach(), self.skew.detach(), self.tail.detach(), weights)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """u and log |∂f/∂u| there."""
        y = self.outer.pull(z)
        log_det = torch.zeros_like(y[..., 0])
        for index in reversed(range(len(self.weights) // 2)):
            a, b = self._split(y, index)
            log_scale, offset = self._coefficients(a, index)
            y = self._join(a, (b - offset) * (-log_scale).exp(), index)
            log_det = log_det + log_scale.sum(-1)
        u = torch.sinh((torch.asinh(y) - self.skew) * (-self.tail).exp())
        return u, log_det + self._bent(u, y)

    def _log_density(self, u: Tensor, log_det: Tensor) -> Tensor:
        constant = 0.5 * self.size * math.log(2 * math.pi)
        return -0.5 * u.square().sum(-1) - constant - log_det - self.outer.scale.log().sum(-1)

    def _bent(self, u: Tensor, y: Tensor) -> Tensor:
        """log |∂y/∂u| of the first map, (sample, batch)."""
        return (self.tail + 0.5 * (y.square().log1p() - u.square().log1p())).sum(-1)

    def _coefficients(self, a: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """s and t of a coupling, (sample, batch, b) each."""
        first, second = self.weights[2 * index], self.weights[2 * index + 1]
        hidden = torch.tanh(torch.einsum("rhj,srj->srh", first[..., :-1], a) + first[..., -1])
        raw, offset = (torch.einsum("rih,srh->sri", second[..., :-1], hidden) + second[..., -1]).chunk(2, -1)
        return CAP * torch.tanh(raw / CAP), offset

    def _split(self, y: Tensor, index: int) -> tuple[Tensor, Tensor]:
        half = self.size // 2
        rolled = y.roll(-self._turn(index), -1)
        return rolled[..., :half], rolled[..., half:]

    def _join(self, a: Tensor, b: Tensor, index: int) -> Tensor:
        return torch.cat((a, b), -1).roll(self._turn(index), -1)

    def _turn(self, index: int) -> int:
        """Where the half of a coupling begins: one half, the other, and from the third on halves of both."""
        return index * (self.size // 2) + index // 2 * (self.size // 4)


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
    by it, `MOST` times at most. Among start, encoder's q
    and what was found, the highest ELBO under `DECIDING` draws of a key of their own is kept, row by row: where the
    encoder's q belongs to the family, no failed search makes q* worse than it but by the error of that decision.

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
