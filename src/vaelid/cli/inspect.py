"""Commands that look at runs: ``report info compare``."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from vaelid import report as reports
from vaelid.cli.output import Json, Output, Quiet, scores
from vaelid.runs import Run


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write report.html anew."""
    output = Output(json, quiet)
    folder = Run.open(run)
    page = reports.write(folder, folder.model())
    if open_:
        webbrowser.open(page.resolve().as_uri())
    output.result({"report": str(page)}, [str(page)])


def info(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What a run is: data, model, training, scores."""
    output = Output(json, quiet)
    folder = Run.open(run)
    table = describe(folder)
    metrics = folder.metrics()
    lines = [f"{key:12}{value}" for key, value in table.items() if value is not None]
    if metrics:
        lines += ["", f"On {metrics['rows']:,} test rows:", *scores(metrics, table["latent"])]
    output.result(table | {"metrics": metrics}, lines)


def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Run folders.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Scores of several runs side by side."""
    output = Output(json, quiet)
    rows = []
    for path in paths:
        folder = Run.open(path)
        rows.append(describe(folder) | {"metrics": folder.metrics()})
    if json:
        output.result({"runs": rows, "same_test_rows": _same_rows(rows)}, [])
        return
    names = {"elbo": "ELBO", "iwae": "log p(x) ≥", "rate": "rate", "distortion": "distortion"}
    table = Table("run", "likelihood", "latent", "epochs", *names.values(), "active", box=None, header_style="bold")
    for row in rows:
        m = row["metrics"]
        cells = [f"{m[key]:.2f} ± {m[f'{key}_se']:.2f}" if m else "–" for key in names]
        table.add_row(row["run"], row["likelihood"], str(row["latent"]), str(row["epochs"] or "–"), *cells,
                      f"{m['active_units']} of {row['latent']}" if m else "–")
    output.words.print(table)
    if not _same_rows(rows):
        output.say("These runs were scored on different rows: their numbers cannot be set side by side.")


def describe(folder: Run) -> dict[str, Any]:
    """The plain facts of a run."""
    config, events, metrics = folder.config, folder.events(), folder.metrics()
    epochs = [event for event in events if event["event"] == "EpochDone"]
    parts = config.parts
    state = "finished" if folder.model_file.exists() else f"unfinished; vaelid train --resume {folder.path}"
    return {
        "run": str(folder.path),
        "state": state,
        "data": config.data.source,
        "fingerprint": config.data.fingerprint,
        "likelihood": parts["likelihood"]["part"].removeprefix("likelihoods."),
        "latent": parts["prior"]["latent"],
        "objective": config.objective.name if config.objective else "of the user's own",
        "epochs": epochs[-1]["epoch"] if epochs else None,
        "asked": f"{config.training.epochs} epochs at most, seed {config.seed}, device {config.device}",
        "seconds": metrics.get("seconds"),
        "report": str(folder.path / "report.html") if (folder.path / "report.html").exists() else None,
    }


def _same_rows(rows: list[dict[str, Any]]) -> bool:
    """Whether all runs were scored on the same number of rows of the same data."""
    return len({(row["fingerprint"], row["metrics"].get("rows")) for row in rows}) == 1
