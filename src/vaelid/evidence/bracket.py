"""The bracket: from a cheap look at every row to annealing in both directions where it is needed."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Literal, final

import torch
from torch import Tensor

from vaelid import checks
from vaelid.errors import InputError, InputTypeError, first_line
from vaelid.evidence.annealing import OnProgress, Settings, chunks, rows_per_pass
from vaelid.evidence.budget import Budget, Spending, alike, doubled
from vaelid.evidence.crowd import Crowd
from vaelid.evidence.importance import Importance, importance
from vaelid.evidence.result import APPROXIMATE, BOUND, NONE, Bracket, Cost
from vaelid.evidence.rounds import Sides, annealed, price, sampled
from vaelid.evidence.simulation import Simulated, simulate
from vaelid.evidence.tuning import CHAINS, Hint, Tuning, pilot_cost, tuned
from vaelid.model import evaluating
from vaelid.random import Key
from vaelid.types import Batch

LOOK = 64  # importance samples that decide whether a row needs annealing
CHEAP = 1000  # importance samples of a row that does not
EVEN = 0.25  # share of effective samples that a row must have to stay with importance sampling
CLOSE = 0.1  # nats between the sides that are close enough where no tolerance is given
RELIABLE = 0.7  # Pareto k-hat up to which it may (Vehtari et al. 2024)
APART = 0.5  # nats by which the sides must differ, or cross, for a warning
MORE = 0.3  # nats, and a standard error, that draws from the prior must find beyond the lower side for one
MIXED = 1.4  # R-hat, over few transitions, above which the endpoints of a row are suspect
STUCK = 0.1  # acceptance below which chains hardly moved
FEW = 2.0  # effective chains below which one of them rules the result
BROKEN = "log p(x, z) is not a number at some latents, which count as impossible"
GATE = 32  # simulated rows on which the approximate upper side is compared with the exact one, by default


def bracket(
    model: Any,
    x: Any,
    *,
    tolerance: float | None = None,
    budget: Budget | None = None,
    chains: int = 16,
    distributions: int = 20,
    leapfrogs: int = 3,
    simulated: int = GATE,
    key: Key | None = None,
    on_progress: OnProgress | None = None,
) -> Bracket:
    """log p(x) between two sides, row by row.

    A look at `LOOK` importance samples per row decides how it goes on, and where their weights are even a second one
    at `CHEAP`. Where those are even too, as many fresh samples give both sides, L_K and U_K. All other rows are
    annealed: a pilot finds settings, then fresh chains run forward for the lower side and in reverse for the upper
    one. Nothing that took part in a decision is reported.

    The lower side is a bound in expectation. So is the upper side of `Simulated` rows, whose reverse chains start at
    the z that the row came from. On other rows they start at the ends of a further, independent run, resampled and
    settled by Hamiltonian Monte Carlo, and the upper side is approximate. It is checked in four ways, and what fails
    becomes a warning: R-hat of those chains; importance sampling from the prior, with draws of its own; the order of
    the sides; and, for all rows together, the same recipe on simulated rows beside their exact upper side.

    Args:
        model: any model with a density.
        x: rows, an array or a `Batch`; or `Simulated` rows.
        tolerance: nats between the sides of a row, and Monte Carlo standard error of either, to be reached by doubling
            ``distributions`` for the rows that need it; None makes one round.
        budget: ends the work, or the doubling, at a time or a number of decoder rows.
        chains: M, chains per row and direction.
        distributions: T to begin with.
        leapfrogs: leapfrog steps per transition.
        simulated: rows that are simulated to try the approximate upper side on; 0 leaves that out.
        key: names all noise; ``Key(0)`` by default.
        on_progress: called with a stage, the rows done and the rows in all.

    Returns:
        What was found. Ctrl-C ends the work early and keeps what there is.

    Raises:
        InputError: rows that do not fit the model, a number out of its range.
    """
    z = x.z if isinstance(x, Simulated) else None
    batch = model.batch(x.batch if isinstance(x, Simulated) else x)
    settings = Settings(leapfrogs, chains)
    distributions = checks.positive_int(distributions, "distributions")
    limit = None if tolerance is None else checks.non_negative(tolerance, "tolerance")
    report = on_progress or (lambda stage, done, total: None)
    key = Key(0) if key is None else key
    simulated = checks.positive_int(simulated, "simulated", minimum=0)
    work = _Work(model, batch, z, settings, distributions, limit, simulated, key, Spending(budget), report)
    with evaluating(model):
        return work.result()


@final
class _Work:
    """A bracket in the making: what is known of every row so far."""

    def __init__(
        self,
        model: Any,
        batch: Batch,
        z: Tensor | None,
        settings: Settings,
        distributions: int,
        tolerance: float | None,
        simulated: int,
        key: Key,
        spending: Spending,
        report: OnProgress,
    ) -> None:
        self.model, self.batch, self.z, self.settings = model, batch, z, settings
        self.distributions, self.tolerance, self.simulated = distributions, tolerance, simulated
        self.key, self.spending, self.report = key, spending, report
        nan = torch.full((batch.rows,), math.nan, dtype=torch.float64)
        self.lower, self.lower_se, self.upper_se, self.bennett = (nan.clone() for _ in range(4))
        self.upper = torch.full_like(nan, math.inf)
        self.used = torch.zeros(batch.rows, dtype=torch.int64)
        self.done = torch.zeros(batch.rows, dtype=torch.bool)
        self.broken = torch.zeros(batch.rows, dtype=torch.bool)
        self.tier = ["importance"] * batch.rows
        self.warnings: dict[int, list[str]] = {}
        self.notes: list[str] = []
        self.cost = {field.name: 0 for field in fields(Cost) if field.name != "seconds"}
        self.interrupted, self.invertible = False, False

    def result(self) -> Bracket:
        """Look, decide, bracket, doubt."""
        rows = torch.arange(self.batch.rows)
        look = importance(self.model, self.batch, LOOK, self.key.fold("look"))
        self._spend("pilot", LOOK * self.batch.rows)
        self.broken = look.reconstruction.isnan().cpu()
        self.invertible = self._has_inverse()
        start, hint = self._start_and_hint()
        settled = torch.zeros_like(self.done)
        if start == "posterior":
            settled = self._even(look, LOOK)
            if hint is not None:  # no mass elsewhere
                settled &= ~(hint.log_evidence > look.log_evidence + APART).cpu()
        try:
            if bool(settled.any()):  # a heavy tail can hide from so few draws
                some = rows[settled]
                again = importance(self.model, self.batch.take(some), CHEAP, self.key.fold("second look"))
                self._spend("pilot", CHEAP * len(some))
                settled[some] = self._even(again, CHEAP)
                self.broken[some] |= again.reconstruction.isnan().cpu()
            self._sample(rows[settled])
            self._anneal(rows[~settled], start, hint)
        except KeyboardInterrupt:
            self.interrupted = True
        self._leave(rows[~self.done])
        try:
            self._ask_the_prior()
            if self.z is None and self.simulated and not self.interrupted and bool((self.used > 0).any()):
                self._try_on_simulated_rows(start)
        except KeyboardInterrupt:
            self.interrupted = True
        return self._bracket(look.elbo.cpu(), look.k_hat.cpu())

    def _even(self, look: Importance, samples: int) -> Tensor:
        """Whether importance sampling can settle rows: weights even, no heavy tail, sides near enough after `CHEAP`."""
        error = look.mc_se * math.sqrt(samples / CHEAP)  # of the cheap tier, whose sides are error² apart
        wide = error.square() if self.tolerance is None else torch.maximum(error, error.square())
        near = wide <= (CLOSE if self.tolerance is None else self.tolerance)
        even = (look.ess >= EVEN * samples) & ~(look.k_hat > RELIABLE)
        return (near & even & look.log_evidence.isfinite()).cpu()

    def _has_inverse(self) -> bool:
        """Whether the noise behind a given z can be told: not of every posterior."""
        first = self.model.given(self.batch.take(torch.tensor([0], device=self.batch.x.device)))
        try:
            first.noise_of(
                first.prior.push(torch.zeros(1, 1, first.noise_size).to(self.batch.x.device, self.model.dtype))[0]
            )
        except InputTypeError:
            return False
        return True

    def _crowd(self, name: str) -> Crowd | None:
        if self.batch.context is not None:  # the decoder is another one for every row
            return None
        return Crowd.drawn(self.model, self.batch, self.key.fold("crowd", name))

    def _start_and_hint(self) -> tuple[Literal["posterior", "prior"], Hint | None]:
        """Where chains start, and where the prior's draws would have them.

        A posterior without an inverse takes no hints, and chains cannot walk to it from a given z.
        """
        if self.invertible:
            return "posterior", self._hint()
        self.notes.append(
            "the posterior has no inverse: " + ("no second start" if self.z is None else "chains walk from the prior")
        )
        return "posterior" if self.z is None else "prior", None

    def _hint(self) -> Hint | None:
        crowd = self._crowd("hint")
        if crowd is None:
            return None
        parts = [
            crowd.hint(self.batch.take(index), CHAINS, self.key.fold("hint"))
            for index in chunks(self.batch, self.settings.chains)
        ]
        self._spend("checks", crowd.decoder_rows)
        return Hint(torch.cat([z for z, _ in parts], 1), torch.cat([value for _, value in parts]))

    def _sample(self, index: Tensor) -> None:
        """The cheap tier."""
        if len(index):
            self._keep(index, sampled(self.model, self.batch.take(index), self._z(index), CHEAP, self.key), 0)
            exact = self.z is not None  # then one of the upper side's draws is z, else a picked one decoded before
            spent = {"lower": CHEAP, "upper": CHEAP - (not exact), "endpoints": 0 if exact else CHEAP}
            for part, rows in spent.items():
                self._spend(part, rows * len(index))
            self.report("importance sampling", len(index), len(index))

    def _anneal(self, index: Tensor, start: Literal["posterior", "prior"], hint: Hint | None) -> None:
        """One round of every row; with a tolerance, doubling where it takes more, and a fresh round of all."""
        if not len(index):
            return
        self.spending.start()
        pilot_rows, round_rows = pilot_cost(start, hinted=hint is not None), self._price(self.distributions)
        # settled before anything is seen: a first round that may be all there is must not have been chosen
        again = self.tolerance is not None and self.spending.allows(len(index) * (pilot_rows + 2 * round_rows))
        if self.tolerance is not None and not again:
            self.notes.append("the budget holds one round: nothing was done to reach the tolerance")
        tunings: list[Tuning] = []
        good: list[Tensor] = []
        for part in torch.split(index, self._size()):
            if not self.spending.allows(len(part) * (pilot_rows + round_rows)):
                self.notes.append("the budget ended before all rows were annealed")
                return
            told = None if hint is None else Hint(hint.z[:, part], hint.log_evidence[part])
            pilot = tuned(self.model, self.batch.take(part), start, self.key.fold("pilot"), told)
            self._spend("pilot", pilot.decoder_rows)
            sides = self._round(part, pilot.tuning, self.distributions, self.key.fold("first round"))
            self._pay(len(part), self.distributions, deciding=again)
            self._keep(part, sides, self.distributions)
            tunings.append(pilot.tuning)
            good.append(self._met(sides))
            self.report("annealing", sum(len(rows) for rows in good), len(index))
        if not again or not tunings:
            return
        tuning = Tuning.join(tunings)

        def met(some: Tensor, distributions: int, key: Key) -> Tensor:
            return self._met(self._round(index[some], tuning.take(some), distributions, key))

        before = self.spending.decoder_rows
        needed = doubled(
            torch.cat(good),
            self.distributions,
            self._price,
            met,
            self.spending,
            self.key,
            self.report,
            self._size(),
        )
        self.cost["pilot"] += self.spending.decoder_rows - before
        if self.spending.interrupted:  # the first round of all rows was selected by nothing, and stands
            raise KeyboardInterrupt
        reported = 0
        for each, part in alike(needed, self._size()):
            sides = self._round(index[part], tuning.take(part), each, self.key.fold("reported"))
            self._keep(index[part], sides, each)
            self._pay(len(part), each, deciding=False)
            reported += len(part)
            self.report("reported run", reported, len(index))

    def _round(self, index: Tensor, tuning: Tuning, distributions: int, key: Key) -> Sides:
        rows, z = self.batch.take(index), self._z(index)
        return annealed(self.model, rows, z, tuning, distributions, self.settings, key)

    def _met(self, sides: Sides) -> Tensor:
        wide = torch.stack((sides.upper - sides.lower, sides.lower_se, sides.upper_se)).amax(0)
        return wide <= (math.inf if self.tolerance is None else self.tolerance)

    def _keep(self, index: Tensor, sides: Sides, distributions: int) -> None:
        """Write down what was found of some rows, with what is suspicious about it."""
        self.done[index] = True
        usable = sides.upper.isfinite()
        self.lower[index], self.lower_se[index] = sides.lower.where(~sides.lower.isnan(), -math.inf), sides.lower_se
        self.upper[index], self.upper_se[index] = torch.where(usable, sides.upper, math.inf), sides.upper_se
        self.bennett[index], self.used[index] = sides.bennett, distributions
        doubts = {
            BROKEN: sides.broken | self.broken[index],
            "p(x) is 0 at all latents that were tried": ~sides.lower.isfinite(),
            f"the chains behind the upper side disagree (R-hat above {MIXED:g})": sides.r_hat > MIXED,
            f"chains hardly moved (acceptance below {STUCK:g})": sides.acceptance < STUCK,
            f"fewer than {FEW:g} effective chains": sides.ess < FEW,
            f"the sides cross by more than {APART:g} nats": usable & (sides.lower > sides.upper + APART),
            f"the sides are more than {APART:g} nats apart": usable & (sides.upper > sides.lower + APART),
        }
        for i, row in enumerate(index.tolist()):
            self.tier[row] = "annealing" if distributions else "importance"
            self.warnings[row] = [text for text, flag in doubts.items() if bool(flag[i])]

    def _leave(self, index: Tensor) -> None:
        """A lower side for rows that were never annealed."""
        if not len(index):
            return
        found = importance(self.model, self.batch.take(index), LOOK, self.key.fold("left"))
        self._spend("lower", LOOK * len(index))
        self.lower[index], self.lower_se[index] = found.log_evidence.cpu(), found.mc_se.cpu()
        why = "it was interrupted" if self.interrupted else "the budget ended"
        for row in index.tolist():
            self.warnings[row] = [f"{why} before this row was annealed: lower is L_{LOOK}, there is no upper side"]
            self.warnings[row] += [BROKEN] * bool(self.broken[row])

    def _ask_the_prior(self) -> None:
        """Importance sampling from the prior, with fresh draws, beside the lower side."""
        crowd = self._crowd("check")
        if crowd is None:
            return
        for index in chunks(self.batch, self.settings.chains):
            found, se = crowd.log_evidence(self.batch.take(index))
            more = found.cpu() - self.lower[index]
            for row in index[more > MORE + se.cpu()].tolist():
                self.warnings.setdefault(row, []).append(
                    f"importance sampling from the prior finds more than {MORE:g} nats above the lower side"
                )
        self._spend("checks", crowd.decoder_rows)

    def _try_on_simulated_rows(self, start: Literal["posterior", "prior"]) -> None:
        """The recipe for real rows on simulated ones, beside their exact upper side."""
        if not self.invertible:
            self.notes.append("the posterior has no inverse: the upper side could not be tried on simulated rows")
            return
        context = None if self.batch.context is None else self.batch.context[: self.simulated]
        rows, key = self.simulated if context is None else len(context), self.key.fold("gate")
        try:
            known = simulate(self.model, rows, key, context)
        except InputError as error:  # not a number, or outside the support
            self.notes.append(f"the upper side could not be tried on simulated rows: {first_line(error)}")
            return
        pilot = tuned(self.model, known.batch, start, key)
        self._spend("checks", rows + pilot.decoder_rows)
        upper = []
        for name, z in (("exact", known.z), ("as real", None)):
            sides = annealed(
                self.model, known.batch, z, pilot.tuning, self.distributions, self.settings, key.fold(name)
            )
            self._spend("checks", price(self.settings, self.distributions, exact=z is not None).total * rows)
            upper.append(sides.upper)
        off = upper[1] - upper[0]
        off = off[off.isfinite()]
        if len(off) < 2:
            self.notes.append("too few simulated rows to try the upper side on")
            return
        mean, se = float(off.mean()), float(off.std() / math.sqrt(len(off)))
        if se > APART:
            word = "cannot be told from the exact one, which itself is loose"
        else:
            word = f"is {'within' if abs(mean) <= 2 * se else 'NOT within'} 2 standard errors of the exact one"
        self.notes.append(
            f"on {len(off)} simulated rows the approximate upper side {word}: difference {mean:+.3f} ± {se:.3f}"
        )

    def _bracket(self, elbo: Tensor, k_hat: Tensor) -> Bracket:
        ids = self.batch.ids().cpu()
        if self.interrupted:
            self.notes.append("interrupted: this is what was found until then")
        kind = APPROXIMATE if self.z is None else BOUND
        return Bracket(
            row=ids,
            lower=self.lower,
            upper=self.upper,
            lower_mc_se=self.lower_se,
            upper_mc_se=self.upper_se,
            upper_kind=tuple(kind if finite else NONE for finite in self.upper.isfinite().tolist()),
            tier=tuple(self.tier),
            distributions=self.used,
            elbo=elbo,
            k_hat=k_hat,
            bennett=None if self.z is None else self.bennett,
            warnings={int(ids[row]): tuple(texts) for row, texts in sorted(self.warnings.items()) if texts},
            notes=tuple(self.notes),
            cost=Cost(**self.cost, seconds=self.spending.seconds),
            interrupted=self.interrupted,
        )

    def _z(self, index: Tensor) -> Tensor | None:
        return None if self.z is None else self.z[index]

    def _size(self) -> int:
        return rows_per_pass(self.batch, self.settings.chains)

    def _price(self, distributions: int) -> int:
        return price(self.settings, distributions, exact=self.z is not None).total

    def _pay(self, rows: int, distributions: int, *, deciding: bool) -> None:
        for part, each in price(self.settings, distributions, exact=self.z is not None)._asdict().items():
            self._spend("pilot" if deciding else part, each * rows)

    def _spend(self, part: str, rows: int) -> None:
        self.cost[part] += rows
        self.spending.spend(rows)
