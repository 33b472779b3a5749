"""The section on evidence: what evidence.json says, in figures, tables and plain words."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vaelid.errors import InputError
from vaelid.evidence.result import APPROXIMATE, BOUND
from vaelid.report import answers, brackets
from vaelid.report.brackets import Part, Rows
from vaelid.report.material import Material, Section, Shown, Table
from vaelid.report.style import short
from vaelid.report.words import duration, number, rounded
from vaelid.runs import SIMULATED, TEST, families, rows_named, sentences
from vaelid.types import Batch

TITLE = "Evidence"
_WIDEST = 12  # rows shown as pictures
_LISTED = 8  # rows shown in a table
_FEATURES = 2  # of a row in a table
_SIDES = ("lower", "upper")


def evidence(material: Material) -> Section | None:
    """Brackets on log p(x), where `vaelid evidence` or the end of a training made some of the model as it is now."""
    try:
        table = material.run.evidence()
    except InputError as error:
        return Section(TITLE, [str(error)])
    if not table:
        return None
    rows = _rows(table)
    shown = [Shown(brackets.intervals(rows), _about_rows(rows))] if np.isfinite(rows.lower).any() else []
    if (way := _way(table)) is not None:
        shown.append(way)
    tables = [_sides(table), *_gaps(table), *_warnings(table), _cost(table)]
    widest = _widest(rows)
    try:
        batch = rows_named(material.run, material.model, table, rows.number[widest].tolist(), material.dataset)
    except InputError as error:
        return Section(TITLE, [*_kinds(table), f"The widest rows cannot be shown: {error}"], shown, tables)
    if material.dataset.kind == "image":
        shown.append(_pictures(material, rows.take(widest), batch))
    else:
        tables.insert(-1, _listed(material, rows.take(widest[:_LISTED]), batch.take(slice(0, _LISTED))))
    return Section(TITLE, _kinds(table), shown, tables)


def _rows(table: dict[str, Any]) -> Rows:
    per_row = table["per_row"]

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in per_row], dtype=float)  # null becomes NaN

    return Rows(
        np.array([row["row"] for row in per_row], dtype=int),
        column("lower"),
        column("upper"),
        column("elbo"),
        np.array([row["upper_kind"] == BOUND for row in per_row]),
        np.array([bool(row["warnings"]) for row in per_row]),
    )


def _what(table: dict[str, Any]) -> str:
    count = f"{table['rows']:,}"
    if table["data"] == SIMULATED:
        return f"{count} rows simulated from the model"
    names = "test rows of the run" if table["data"] == TEST else f"rows of {table['data']}"
    return f"{count} of the {table['of']:,} {names}" if table["rows"] < table["of"] else f"{count} {names}"


def _kinds(table: dict[str, Any]) -> list[str]:
    """What is said about log p(x), and what kind of statement each side is."""
    lower, upper = (number(_value(table[side]), 3) for side in _SIDES)
    cross = ", the sides crossing by Monte Carlo error" if _value(table["gap"]) < 0 else ""
    said = [
        f"On {_what(table)} log p(x) lies on average between {lower} and {upper} nats{cross}. The lower side is a "
        "bound in expectation: exp(lower) has expectation p(x), so lower exceeds log p(x) by b nats or more with "
        "probability at most e⁻ᵇ. " + _about_upper(table)
    ]
    return [*said, *table["notes"]]


def _about_upper(table: dict[str, Any]) -> str:
    match table["upper_kind"]:
        case kind if kind == BOUND:
            return (
                "So is the upper side: these rows were simulated, so an exact draw from p(z|x) is known for each, and "
                "exp(−upper) has expectation 1 / p(x)."
            )
        case kind if kind == APPROXIMATE:
            return (
                "The upper side is approximate: its chains start from draws that are only approximately from p(z|x), "
                "and where these miss a part of the posterior it lies too low."
            )
    without = sum(row["upper"] is None for row in table["per_row"])
    return f"{without:,} of the rows have no upper side, so their mean has none."


def _about_rows(rows: Rows) -> str:
    count, lost = len(rows.lower), int((~np.isfinite(rows.lower)).sum())
    some = f" {brackets.SHOWN} of {count:,} rows are shown." if count > brackets.SHOWN else ""
    gone = f" {lost:,} rows without a finite lower side are left out." if lost else ""
    return (
        "Above: log p(x) of each row lies between the ends of its bar; what the ELBO lacks is the KL from q(z|x) to "
        "the exact posterior. Below: how wide the bars are, to scale up to 0.1 nats and in logarithms beyond; a width "
        f"below zero is Monte Carlo error. ELBOs far below the others may lie outside the frame.{some}{gone}"
    )


def _way(table: dict[str, Any]) -> Shown | None:
    """From the ELBO to both sides of log p(x), by way of the best q of each row's own where these were sought."""
    ways = [(name, parts) for name, split in _sets(table) if (parts := _parts(split))]
    if not ways:
        return None
    sought = " In between, q is optimised for every row by itself: the first such part is what the encoder loses, the "
    sought += "others what a family of distributions cannot express."
    return Shown(
        brackets.way_up(ways),
        "How far the ELBO lies below log p(x), mean over rows: a better encoder, or a richer family of posteriors, can "
        f"gain at most this much without a change of the model.{sought if 'gaps' in table else ''}",
    )


def _sets(table: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each set of rows by its name: with their gaps, where these were measured."""
    name = {TEST: "test rows", SIMULATED: "simulated rows"}.get(table["data"], "rows")
    gaps = table.get("gaps", {"test": table, "train": None})
    return [(name, gaps["test"])] + ([] if gaps["train"] is None else [("training rows", gaps["train"])])


def _parts(split: dict[str, Any]) -> list[Part]:
    """The way upwards of one set of rows; empty where it does not begin."""
    level, lower, upper = (_value(split[name]) for name in ("elbo", *_SIDES))
    parts = []
    for family in families(split):
        best = _value(split[f"{family}_elbo"])
        if best > level:  # a family that holds less than the encoder's q is no step upwards
            parts.append(Part(f"to the best {family} q of each row", best - level))
            level = best
    if lower > level:
        parts.append(Part("to log p(x), lower side" if parts else "KL(q(z|x) ‖ p(z|x)) at least", lower - level))
    if upper > lower and parts:
        parts.append(Part(brackets.OPEN, upper - lower))
    return parts


def _sides(table: dict[str, Any]) -> Table:
    rows = [
        [
            side,
            number(_value(table[side]), 3),
            number(_value(table[f"{side}_mc_se"]), 3),
            number(_value(table[f"{side}_data_se"])),
            table[f"{side}_kind"],
        ]
        for side in _SIDES
    ]
    rows.append(["gap", number(_value(table["gap"]), 3), "", number(_value(table["gap_se"]), 3), ""])
    rows.append(["ELBO", number(_value(table["elbo"]), 3), "", number(_value(table["elbo_se"])), ""])
    if "bennett" in table:
        rows.append(
            ["Bennett", number(_value(table["bennett"]), 3), "", number(_value(table["bennett_se"])), "estimate"]
        )
    caption = "Mean over rows in nats, with its Monte Carlo error (rows held fixed) and its standard error over rows"
    return Table(caption, ["side", "mean", "± Monte Carlo", "± over rows", "kind"], rows, wide=True)


def _gaps(table: dict[str, Any]) -> list[Table]:
    """Approximation, amortisation and generalisation gap, where they were measured."""
    gaps = table.get("gaps")
    if gaps is None:
        return []
    sets = _sets(table)
    rows = [["KL(q(z|x) ‖ p(z|x))", *(_between(split, "kl") for _, split in sets)]]
    for family in families(gaps["test"]):
        rows.append([f"approximation, {family}", *(_between(split, f"{family}_approximation") for _, split in sets)])
        rows.append([f"amortisation, {family}", *(_plus_minus(split, f"{family}_amortisation") for _, split in sets)])
    if "generalisation_lower" in gaps:
        rows.append(["generalisation of log p(x)", "", _between(gaps, "generalisation")])
        rows.append(["generalisation of the ELBO", "", _plus_minus(gaps, "generalisation_elbo")])
    caption = (
        "Gaps in nats, mean over rows ± standard error: approximation is what lies between the best q of a family and "
        "log p(x), amortisation what the encoder's q lacks against that best one, generalisation what training rows "
        "have over the others"
    )
    return [Table(caption, ["gap", *(name for name, _ in sets)], rows, wide=True)]


def _between(table: dict[str, Any], name: str) -> str:
    lower, upper, error = (number(_value(table[f"{name}_{end}"]), 3) for end in ("lower", "upper", "lower_se"))
    return f"{lower} to {upper} ± {error}"


def _plus_minus(table: dict[str, Any], name: str) -> str:
    return f"{number(_value(table[name]), 3)} ± {number(_value(table[f'{name}_se']), 3)}"


def _cost(table: dict[str, Any]) -> Table:
    each = max(1, table["rows"])
    cost = table["cost"] | {"all": table["decoder_rows"]}
    rows = [[name, f"{spent:,}", f"{spent / each:,.0f}"] for name, spent in cost.items()]
    caption = f"Cost: passes through the decoder, in all {duration(table['seconds'])}; pilot numbers are discarded"
    return Table(caption, ["spent on", "decoder rows", "per row of x"], rows)


def _warnings(table: dict[str, Any]) -> list[Table]:
    """Each sentence once, with how many rows it is about."""
    lines = [
        [sentence, f"{len(rows):,}", ", ".join(map(str, rows[:4])) + " …" * (len(rows) > 4)]
        for sentence, rows in sentences(table)
    ]
    if not lines:
        return []
    caption = f"{table['rows_with_warnings']:,} of {table['rows']:,} rows carry a warning (numbers: the first row's)"
    return [Table(caption, ["warning", "rows", "such as row"], lines, wide=True)]


def _widest(rows: Rows) -> np.ndarray:
    """Positions of the rows with the widest brackets; those with no upper or no lower side first."""
    width = np.nan_to_num(rows.upper - rows.lower, nan=np.inf)
    return np.argsort(-width, kind="stable")[:_WIDEST]


def _pictures(material: Material, rows: Rows, batch: Batch) -> Shown:
    seen = answers.reconstruct(material.model, batch, material.model.encode(batch))
    names = [
        (f"row {row}", f"{number(low, 1)} to {number(high, 1)}" + " !" * bool(warned))
        for row, low, high, warned in zip(rows.number, rows.lower, rows.upper, rows.warned, strict=True)
    ]
    picture = brackets.pairs(material.look.colours(seen.x), material.look.colours(seen.expected), names)
    return Shown(
        picture,
        f"The rows with the widest brackets, each beside its reconstruction ({material.look.expected} at the latent "
        "mean), with lower and upper side in nats; ! where there is a warning.",
    )


def _listed(material: Material, rows: Rows, batch: Batch) -> Table:
    """The widest rows of a table, each with the features in which it lies furthest out."""
    seen = batch.x.double() if batch.mask is None else torch.where(batch.mask, batch.x.double(), torch.nan)
    x = seen.reshape(batch.rows, -1).cpu().numpy()
    look = material.look
    mean, deviation = look.spread()
    out = (x - mean) / np.where(deviation > 0, deviation, 1.0)
    furthest = np.argsort(-np.nan_to_num(np.abs(out), nan=-1.0), axis=1, kind="stable")[:, :_FEATURES]
    lines = []
    for place, cells in enumerate(furthest):
        far = [
            f"{short(look.features[cell], 14)} {rounded(x[place, cell], look.grain(deviation[cell]))} "
            f"({number(out[place, cell], 1)} sd)"
            for cell in cells
        ]
        sides = (rows.lower[place], rows.upper[place], rows.upper[place] - rows.lower[place], rows.elbo[place])
        lines.append([str(rows.number[place]), *map(number, sides), ", ".join(far) + " !" * bool(rows.warned[place])])
    return Table(
        "The rows with the widest brackets, and the features in which they lie furthest from the mean; ! where there "
        "is a warning",
        ["row", "lower", "upper", "gap", "ELBO", "furthest out"],
        lines,
        wide=True,
    )


def _value(value: float | None) -> float:
    return float("nan") if value is None else value
