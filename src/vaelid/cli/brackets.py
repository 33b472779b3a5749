"""A bracket on log p(x) as a command makes it, keeps it and puts it into words."""

from __future__ import annotations

from typing import Any

from vaelid import evidence, runs
from vaelid.cli.output import Output, number, plain
from vaelid.data import Dataset
from vaelid.errors import Interrupted, command, first_line, some
from vaelid.evidence import Bracket, Budget
from vaelid.model import VAE
from vaelid.runs import SIMULATED, TEST, Chosen, Run

WIDE = 0.1  # nats: a mean bracket wider than this is worth more distributions
WIDEST = 3  # rows named
SUMMARY = (
    "lower", "upper", "gap", "lower_kind", "upper_kind", "lower_mc_se", "upper_mc_se", "lower_data_se",
    "upper_data_se", "gap_se", "rows", "rows_with_warnings", "seconds", "decoder_rows", "interrupted",
)  # fmt: skip


def bracketed(
    model: VAE,
    chosen: Chosen,
    output: Output,
    *,
    tolerance: float | None = None,
    budget: Budget | None = None,
) -> Bracket:
    """Bracket rows, with a bar."""
    with output.stages() as on_progress:
        return evidence.bracket(
            model, chosen.rows, tolerance=tolerance, budget=budget, key=chosen.key, on_progress=on_progress
        )


def bracketed_after_training(
    run: Run, model: VAE, dataset: Dataset, output: Output
) -> tuple[dict[str, Any] | None, bool]:
    """The bracket that `vaelid train` ends with, as metrics.json keeps it, and whether it was interrupted.

    Whatever goes wrong is said in a line: the run is complete without it.
    """
    asked = run.config.evaluation.evidence
    rows = runs.rows_after_training(model) if asked is None else asked
    if not rows:
        return None, False
    try:
        chosen = runs.rows_of_test(run, model, dataset, rows)
        table = runs.record(run, chosen, bracketed(model, chosen, output))
        run.save_evidence(plain(table))
    except KeyboardInterrupt:
        return None, True
    except Exception as error:
        output.warn(f"no bracket on log p(x): {first_line(error)}")
        return None, False
    return plain({name: table[name] for name in SUMMARY}), table["interrupted"]


def lines(table: dict[str, Any], what: str, conditional: bool) -> list[str]:
    """A bracket in words: means, what kind of statement each side is, the widest rows, warnings by sentence, cost."""
    given = " | c" if conditional else ""
    posterior = f"KL(q ‖ p(z|x{', c' if conditional else ''}))"
    price = [number(value, 3) for value in sorted(table[side] - table["elbo"] for side in ("lower", "upper"))]
    return [
        f"log p(x{given}) on {what}, mean in nats (± Monte Carlo error, ± standard error over rows):",
        *(_side(table, name) for name in ("lower", "upper")),
        f"  {'gap':9}{number(table['gap'], 3, 10)} ± {number(table['gap_se'], 3)} over rows",
        f"  {'ELBO':9}{number(table['elbo'], 3, 10)} ± {number(table['elbo_se'])} over rows, so {posterior} is "
        f"between {price[0]} and {price[1]}",
        "",
        *_widest(table),
        *_warnings(table),
        *(f"  {'note':9} {note}" for note in table["notes"]),
        f"  {'cost':9} {table['decoder_rows']:,} decoder rows ("
        + ", ".join(f"{name} {rows:,}" for name, rows in table["cost"].items())
        + f"), {table['seconds']:.1f} s",
    ]


def gap_lines(gaps: dict[str, Any], names: tuple[str, str]) -> list[str]:
    """The gaps between ELBO and log p(x) in words; ``names`` are those of the two sets of rows."""
    found = ["", "gaps between ELBO and log p(x), mean in nats (± standard error over rows):"]
    for name, split in zip(names, (gaps["test"], gaps["train"]), strict=True):
        if split is None:
            continue
        found.append(f"  {split['rows']:,} {name}")
        for family in runs.families(split):
            approximation = f"{family}_approximation"
            found.append(
                f"    {family:9} approximation {number(split[f'{approximation}_lower'], 3)} to "
                f"{number(split[f'{approximation}_upper'], 3)} ± {number(split[f'{approximation}_lower_se'], 3)}, "
                f"amortisation {number(split[f'{family}_amortisation'], 3)} ± "
                f"{number(split[f'{family}_amortisation_se'], 3)}"
            )
    if "generalisation_lower" in gaps:
        lower, upper, error = (number(gaps[f"generalisation_{end}"], 3) for end in ("lower", "upper", "lower_se"))
        found.append(f"  log p(x) of training rows is higher by {lower} to {upper} ± {error}")
    return found


def what_rows(chosen: Chosen, source: str | None) -> str:
    """Which rows they are: "200 of the 10,000 test rows"."""
    if chosen.data == SIMULATED:
        return f"{chosen.count:,} rows simulated from the model"
    names = "test rows of the run" if chosen.data == TEST else f"rows of {source}"
    some_of = f"{chosen.count:,} of the {chosen.of:,}" if chosen.count < chosen.of else f"{chosen.of:,}"
    return f"{some_of} {names}" + (", chosen at random" if chosen.count < chosen.of else "")


def next_step(run: Run, table: dict[str, Any], words: list[str], tolerance: float | None, budget: float | None) -> str:
    """What to type next: more distributions for a wide bracket, else a look at rows where both sides are bounds."""
    if table["interrupted"]:
        return command("evidence", run.path, *words)
    if not table["gap"] <= WIDE:
        further = 600 if budget is None else 2 * budget
        more = ["--tolerance", f"{WIDE if tolerance is None else tolerance:g}", "--budget", _time(further)]
        return command("evidence", run.path, *words, *more)
    if table["data"] != SIMULATED:
        return command("evidence", run.path, "--simulated")
    return command("evidence", run.path, "--gaps")


def stopped(run: Run) -> Interrupted:
    """The error for a bracket that was interrupted when training had ended."""
    again = command("evidence", run.path)
    return Interrupted(f"the bracket was interrupted; the run {run.path} is complete. To bracket log p(x): {again}")


def _side(table: dict[str, Any], name: str) -> str:
    mc, data = (number(table[f"{name}_{error}_se"], digits) for error, digits in (("mc", 3), ("data", 2)))
    return f"  {name:9}{number(table[name], 3, 10)} ± {mc} ± {data}   {table[f'{name}_kind']}"


def _widest(table: dict[str, Any]) -> list[str]:
    """The rows with the widest brackets."""
    rows = sorted(table["per_row"], key=lambda row: -_width(row))[:WIDEST]
    shown = [
        f"row {row['row']:<7} {number(row['lower'], 2, 9)} to {number(row['upper'], 2)}, {row['upper_kind']}"
        for row in rows
    ]
    return [f"  {'widest' if not place else '':9} {text}" for place, text in enumerate(shown)]


def _width(row: dict[str, Any]) -> float:
    width = row["upper"] - row["lower"]
    return float("inf") if width != width else width


def _warnings(table: dict[str, Any]) -> list[str]:
    """Warnings of single rows, each sentence once with the rows that it is about."""
    found = runs.sentences(table)
    if not found:
        return [f"  {'warnings':9} none"]
    shown = [f"{table['rows_with_warnings']:,} of {table['rows']:,} rows"]
    shown += [f"  {len(rows):,}: {sentence} ({some(rows)})" for sentence, rows in found]
    return [f"  {'warnings' if not place else '':9} {text}" for place, text in enumerate(shown)]


def _time(seconds: float) -> str:
    """As `vaelid.cli.arguments.duration` reads it."""
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
