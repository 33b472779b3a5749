"""``vaelid evidence``: log p(x) between a lower and an upper side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vaelid import checks, report, runs
from vaelid import evidence as estimates
from vaelid.cli.arguments import Device, Json, Quiet, RunPath, duration, in_order, opened, whole
from vaelid.cli.brackets import bracketed, gap_lines, lines, next_step, what_rows
from vaelid.cli.ending import conditional, measure, reason_of
from vaelid.cli.output import Output, plain
from vaelid.errors import InputError, Interrupted, RunError, command
from vaelid.evidence import Bracket, Budget, Simulated
from vaelid.model import VAE
from vaelid.runs import TEST, Chosen, Run


def evidence(
    run: RunPath,
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Rows to bracket; by default the run's test rows.")
    ] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Rows simulated from the model: both sides are then bounds.")
    ] = False,
    rows: Annotated[
        int | None, typer.Option("--rows", metavar="N", parser=whole, help="How many rows, at most.  [default: 200]")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", metavar="T", help="Narrow each row's bracket to T nats.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="TIME", parser=duration, help="Stop narrowing after 90s, 10m, 1h."),
    ] = None,
    gaps: Annotated[bool, typer.Option("--gaps", help="Say where the gap below log p(x) comes from.")] = False,
    seed: Annotated[int, typer.Option("--seed", metavar="N", parser=whole, help="Names every random number.")] = 0,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Lower and upper side of log p(x), row by row."""
    output = Output(json, quiet)
    rows = None if rows is None else checks.positive_int(rows, "--rows")
    tolerance = None if tolerance is None else checks.non_negative(tolerance, "--tolerance")
    if simulated and data is not None:
        raise InputError(f"--simulated and DATA {data}", "one of the two", "simulated rows come from the model alone")
    if data is not None:
        in_order(run, data, "evidence")
    folder = opened(run, device)
    model = folder.model()
    chosen = _choose(folder, model, data, simulated, rows, seed)
    what = what_rows(chosen, data)
    if chosen.trained:
        output.warn(f"warning: {chosen.trained:,} of these rows were trained on; leave DATA out for test rows")
    spend = None if budget is None else Budget(seconds=budget)
    found = bracketed(model, chosen, output, tolerance=tolerance, budget=spend)
    table = runs.record(folder, chosen, found)
    if gaps and not found.interrupted:
        table |= _gaps(folder, model, chosen, found, output, tolerance, spend)
    problem, page = _kept(folder, model, table, output)
    words = [*([data] if data is not None else []), *(["--simulated"] if simulated else [])]
    words += [] if rows is None else ["--rows", str(rows)]
    ending = [] if problem else [f"  saved     {folder.path / 'evidence.json'}"]
    ending += [f"  report    {page}"] if page else []
    ending.append(f"  next      {next_step(folder, table, words, tolerance, budget)}")
    said = lines(table, what, conditional(folder))
    if "gaps" in table:
        said += gap_lines(table["gaps"], ("test rows" if chosen.data == TEST else "rows", "training rows"))
    output.result({"run": str(folder.path)} | table, [*said, "", *ending])
    if problem is not None:
        raise problem


def _choose(folder: Run, model: VAE, data: str | None, simulated: bool, rows: int | None, seed: int) -> Chosen:
    if simulated:
        return runs.rows_simulated(folder, model, rows, seed)
    if data is None:
        return runs.rows_of_test(folder, model, folder.dataset(), rows, seed)
    return runs.rows_of_data(folder, model, folder.read(data), rows, seed)


def _gaps(
    folder: Run,
    model: VAE,
    chosen: Chosen,
    known: Bracket,
    output: Output,
    tolerance: float | None,
    budget: Budget | None,
) -> dict[str, Any]:
    """The gaps of rows whose bracket is known, test rows beside training rows; or that they were interrupted."""
    train = runs.rows_of_training(folder, model, chosen) if chosen.data == TEST else None
    rows, brackets = chosen.rows, [known]
    try:
        if train is not None:
            brackets.append(bracketed(model, train, output, tolerance=tolerance, budget=budget))
        with output.stages() as on_progress:
            found = estimates.gaps(
                model,
                rows.batch if isinstance(rows, Simulated) else rows,
                train=None if train is None else train.rows,
                brackets=brackets,
                key=chosen.key.fold("gaps"),
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        return {"interrupted": True}
    except InputError as error:
        output.warn(f"no gaps: {error}")
        return {}
    return {"gaps": found.as_dict(), "interrupted": any(bracket.interrupted for bracket in brackets)}


def _kept(
    folder: Run, model: VAE, table: dict[str, Any], output: Output
) -> tuple[RunError | Interrupted | None, Path | None]:
    """Keep a bracket in evidence.json and in a new report: what is to be said of it in the end, the report's path."""
    try:
        folder.save_evidence(plain(table))
    except RunError as error:
        return error, None
    if table["interrupted"]:
        kept = f"what there is is in {folder.path / 'evidence.json'}"
        again = command("report", folder.path)
        return Interrupted(f"interrupted; {kept}. To show it in the report: {again}"), None
    try:
        return None, report.write(folder, model, measure(folder, model, folder.dataset(), output))
    except (OSError, InputError, RunError) as error:
        output.warn(f"the report could not be written ({reason_of(error)})")
        return None, None
