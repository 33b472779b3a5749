"""From numbers to sentences. Every sentence follows from the measured `Facts` by a rule stated here.

=====================  ==================================================================================
said                   when
=====================  ==================================================================================
the bound              always; "not finite" where it is not
the gap                L_K and ELBO are finite; L_K − ELBO bounds the mean KL(q ‖ p(z|x)) from below
the decoder ignores z  the rate is below `IGNORED` nats
collapse               fewer dimensions are active than there are, on `FEW_ROWS` rows or more
overfitting            train bound − validation bound at the best epoch exceeds 4 standard errors, and 10 % of
                       |validation bound| (masses) or a third of the spread between rows (densities, whose size
                       depends on the units of x)
still rising           training ended at its epoch limit and the last tenth of the epochs raised the best
                       validation bound by `RISING` nats or more
stopped                training ended before its limit
not finished           training was interrupted
few effective draws    the median effective sample size of L_K is below `FEW_DRAWS`
few rows               fewer than `FEW_ROWS` rows were scored
rolled back            steps went wrong and were taken back
=====================  ==================================================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, final

from vaelid.diagnostics import ACTIVE, Estimate
from vaelid.report.words import duration, number, spoken

IGNORED = 0.1  # nats per row: less than this and z says next to nothing about x
RISING = 0.01  # nats per row: the least that shows in the numbers
FEW_DRAWS = 10.0  # effective draws per row
FEW_ROWS = 30  # rows: below, a standard error is itself uncertain by more than an eighth

_LOW_DIGITS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@final
@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was measured, in nats per row.

    Attributes:
        run: the run folder, as a command takes it.
        rows: test rows scored.
        test_rows: test rows there are.
        validation_rows: rows behind ``validation_bound``.
        elbo, iwae, rate, distortion: means over the scored rows.
        gap: ``iwae`` − ``elbo``, row by row.
        spread: standard deviation of the ELBO over rows.
        samples: K of ``iwae``.
        ess: median over rows of the effective sample size.
        active: latent dimensions in use.
        latent: latent dimensions.
        discrete: whether log p(x) is a log mass.
        pixels: cells of one row where rows are whole images with a mass, else None.
        epochs, epochs_asked, best_epoch, seconds: how training went.
        finished: whether it ended by itself.
        train_bound, validation_bound: at the best epoch; NaN where nothing was recorded.
        gain: how much the best validation bound rose over the last ``gain_epochs`` epochs.
        rollbacks: steps taken back.
    """

    run: str
    rows: int
    test_rows: int
    validation_rows: int
    elbo: Estimate
    iwae: Estimate
    rate: Estimate
    distortion: Estimate
    gap: Estimate
    spread: float
    samples: int
    ess: float
    active: int
    latent: int
    discrete: bool
    pixels: int | None
    epochs: int
    epochs_asked: int
    best_epoch: int
    seconds: float
    finished: bool
    train_bound: float
    validation_bound: float
    gain: float
    gain_epochs: int
    rollbacks: int


class Sentence(NamedTuple):
    """One sentence of the verdict; ``concern`` where the reader should look twice, ``command`` what to type then."""

    text: str
    concern: bool = False
    command: str | None = None


def sentences(facts: Facts) -> list[Sentence]:
    """The verdict, the most important first."""
    rules = (_bound, _latents, _overfitting, _training, _draws, _few_rows, _rollbacks)
    return [sentence for rule in rules for sentence in rule(facts)]


def table(facts: Facts) -> list[tuple[str, str, str]]:
    """Quantity, value and meaning, for the table under the verdict."""
    k = facts.samples
    bound = f"L{str(k).translate(_LOW_DIGITS)}"
    rows = [
        (f"importance-weighted bound {bound}", spoken(facts.iwae), f"a lower bound on log p(x), with K = {k} draws"),
        ("ELBO", spoken(facts.elbo), "a lower bound on log p(x): − distortion − rate"),
        (f"gap {bound} − ELBO", spoken(facts.gap), "a lower bound on KL(q(z|x) ‖ p(z|x)), the price of q"),
        ("rate", spoken(facts.rate), "KL(q(z|x) ‖ p(z)): what z is told about x"),
        ("distortion", spoken(facts.distortion), "−E log p(x|z): what is left to say about x once z is known"),
    ]
    if facts.pixels:
        bits = -1 / (facts.pixels * math.log(2))
        value = Estimate(facts.iwae.value * bits, abs(facts.iwae.se * bits))
        rows.append(
            (f"bits per dimension ({facts.pixels:,})", f"≤ {spoken(value)}", f"−{bound} in bits, per cell of x")
        )
    scored = f"{facts.rows:,}" + ("" if facts.rows == facts.test_rows else f" of {facts.test_rows:,}")
    return [
        *rows,
        (
            "active units",
            f"{facts.active} of {facts.latent}",
            f"dimensions whose posterior mean has variance > {ACTIVE}",
        ),
        ("effective draws", f"{number(facts.ess, 1)} of {k}", f"median effective sample size of {bound} over rows"),
        ("test rows", scored, "not trained on, and no choice was made by them"),
        ("epochs", f"{facts.epochs:,}, best {facts.best_epoch:,}", "the best validation bound; its weights are kept"),
        ("training time", duration(facts.seconds), ""),
    ]


def measure(facts: Facts) -> str:
    """What kind of number log p(x) is."""
    if facts.discrete:
        return "log p(x) is a log probability"
    return "log p(x) is a log density in the units of x and may be above 0"


def _bound(facts: Facts) -> list[Sentence]:
    which = f"{facts.rows:,}" + ("" if facts.rows == facts.test_rows else f" of {facts.test_rows:,}")
    where = f"On {which} test row{'s' if facts.rows != 1 else ''}, which training never saw,"
    if not (math.isfinite(facts.iwae.value) and math.isfinite(facts.elbo.value)):
        return [Sentence(f"{where} the bound on log p(x) is not finite: some rows have no mass under the model.", True)]
    found = [
        Sentence(
            f"{where} log p(x) is on average at least {spoken(facts.iwae)} nats per row "
            f"(importance-weighted lower bound, K = {facts.samples}; ± is one standard error over rows)."
        )
    ]
    if facts.gap.value > 0:
        found.append(
            Sentence(
                f"The ELBO, {spoken(facts.elbo)}, lies {number(facts.gap.value)} nats lower, so on average q(z|x) is "
                "at least about that far, in KL, from the exact posterior."
            )
        )
    return found


def _latents(facts: Facts) -> list[Sentence]:
    if facts.rate.value < IGNORED:
        return [
            Sentence(
                f"The decoder ignores z: the latents carry {number(facts.rate.value, 3)} nats about x. Where features "
                "of x do depend on one another this is posterior collapse, and a warm-up of the KL may help:",
                True,
                "--set objective.warmup_steps=2000",
            )
        ]
    idle = facts.latent - facts.active
    if idle and facts.rows < FEW_ROWS:
        return [Sentence(f"At least {facts.active} of {facts.latent} latent dimensions are in use.")]
    if idle:
        rest = "has collapsed: its" if idle == 1 else "have collapsed: their"
        return [
            Sentence(
                f"{facts.active} of {facts.latent} latent dimensions are in use; {idle} {rest} posterior mean hardly "
                "changes from row to row.",
                True,
            )
        ]
    match facts.latent:
        case 1:
            which = "The latent dimension is"
        case 2:
            which = "Both latent dimensions are"
        case many:
            which = f"All {many} latent dimensions are"
    return [Sentence(f"{which} in use.")]


def _overfitting(facts: Facts) -> list[Sentence]:
    gap = facts.train_bound - facts.validation_bound
    error = facts.spread / math.sqrt(max(1, facts.validation_rows))
    limit = 0.1 * abs(facts.validation_bound) if facts.discrete else facts.spread / 3
    if not gap > max(4 * error, limit):
        return []
    return [
        Sentence(
            f"The model overfits: at the best epoch the bound is {number(facts.train_bound)} on training rows and "
            f"{number(facts.validation_bound)} on validation rows, {number(gap)} nats lower. More data or a smaller "
            "network may help.",
            True,
        )
    ]


def _training(facts: Facts) -> list[Sentence]:
    again = f"vaelid train --resume {facts.run}"
    if not facts.epochs:
        return []
    if not facts.finished:
        at = f"{facts.epochs} of {facts.epochs_asked}"
        return [Sentence(f"Training was interrupted after epoch {at}; go on with:", True, again)]
    if facts.epochs < facts.epochs_asked:
        return [
            Sentence(
                f"Training stopped by itself at epoch {facts.epochs}: the validation bound was best at epoch "
                f"{facts.best_epoch}."
            )
        ]
    if facts.gain >= RISING:
        over = f"over the last {facts.gain_epochs} epochs" if facts.gain_epochs > 1 else "in the last epoch"
        return [
            Sentence(
                f"The validation bound was still rising when the {facts.epochs} epochs were over "
                f"(by {number(facts.gain)} nats {over}); more epochs may help:",
                False,
                f"{again} --epochs {2 * facts.epochs}",
            )
        ]
    return []


def _draws(facts: Facts) -> list[Sentence]:
    if not facts.ess < FEW_DRAWS:
        return []
    return [
        Sentence(
            f"For half of the rows fewer than {FEW_DRAWS:g} of the {facts.samples} draws carry the weight, so "
            "log p(x) may lie well above this bound; more draws tighten it:",
            False,
            f"vaelid evaluate {facts.run} --samples {10 * facts.samples}",
        )
    ]


def _few_rows(facts: Facts) -> list[Sentence]:
    if facts.rows >= FEW_ROWS:
        return []
    if facts.rows == 1:
        return [Sentence("One test row gives no standard errors.", True)]
    return [
        Sentence(
            f"With {facts.rows} test rows the standard errors are rough and the number of active units is a "
            "lower limit.",
            True,
        )
    ]


def _rollbacks(facts: Facts) -> list[Sentence]:
    if not facts.rollbacks:
        return []
    times = "once" if facts.rollbacks == 1 else f"{facts.rollbacks} times"
    return [Sentence(f"Training went wrong {times}, was rolled back and went on with a lower learning rate.", True)]
