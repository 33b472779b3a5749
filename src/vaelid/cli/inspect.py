"""Commands that look at runs: ``report info compare``."""

from __future__ import annotations

import webbrowser
import zlib
from pathlib import Path
from typing import Annotated, Any

import typer

from vaelid import likelihoods
from vaelid import report as reports
from vaelid.cli.arguments import Device, Json, Quiet, RunPath, opened
from vaelid.cli.ending import conditional, facts, is_scored, measure
from vaelid.cli.output import Output, scores
from vaelid.runs import Run


def report(
    run: RunPath,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a run on its test rows and write its report.html anew."""
    output = Output(json, quiet)
    folder = opened(run, device)
    model, dataset = folder.model(), folder.dataset()
    evaluation = measure(folder, model, dataset, output)
    if not is_scored(folder):
        folder.save_metrics(facts(folder) | evaluation.as_dict())
    page = reports.write(folder, model, evaluation)
    if open_:
        webbrowser.open(page.resolve().as_uri())
    output.result({"run": str(folder.path), "report": str(page)}, [str(page)])


def info(run: RunPath, json: Json = False, quiet: Quiet = False) -> None:
    """What a run is: data, model, training, scores."""
    output = Output(json, quiet)
    folder = opened(run)
    table = describe(folder)
    metrics = folder.metrics()
    hidden = ("fingerprint", "test_rows", "binarise", "measure")
    lines = [f"{key:12}{value}" for key, value in table.items() if value is not None and key not in hidden]
    if metrics:
        lines += ["", f"On {metrics['rows']:,} test rows:", *scores(metrics, table["latent"], conditional(folder))]
    output.result(table | {"metrics": metrics}, lines)


def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Scores of several runs side by side."""
    output = Output(json, quiet)
    rows = []
    for path in paths:
        folder = opened(path)
        rows.append(describe(folder) | {"metrics": folder.metrics()})
    names = {"elbo": "ELBO", "iwae": "log p(x) ≥", "rate": "rate", "distortion": "distortion"}
    table = [["run", "likelihood", "latent", "epochs", *names.values(), "active"]]
    for row in rows:
        m = row["metrics"]
        numbers = [f"{m[key]:.2f} ± {m[f'{key}_se']:.2f}" if m else "–" for key in names]
        known = [row["likelihood"], str(row["latent"] or "–"), str(row["epochs"] or "–")]
        table.append([row["run"], *known, *numbers, str(m["active_units"]) if m else "–"])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    differ = _differences(rows)
    if differ:
        lines += ["", f"Not to be set side by side: these runs differ in {' and '.join(differ)}."]
    output.result({"runs": rows, "same_test_rows": not differ, "differ": differ}, lines)


def describe(folder: Run) -> dict[str, Any]:
    """The plain facts of a run."""
    config, events, metrics = folder.config, folder.events(), folder.metrics()
    epochs = [event for event in events if event["event"] == "EpochDone"]
    likelihood = str(_part(config.parts, "likelihood").get("part", "likelihoods.one of the user's own"))
    kind = getattr(likelihoods, likelihood.removeprefix("likelihoods."), None)
    page, again = folder.path / "report.html", folder.checkpoints.resume_command
    return {
        "run": str(folder.path),
        "state": "finished" if folder.finished else f"unfinished; go on with: {again}",
        "data": config.data.source,
        "context": ", ".join(config.data.context or ()) or None,
        "fingerprint": config.data.fingerprint,
        "binarise": config.data.binarise,
        "test_rows": f"{zlib.crc32(folder.split().test.tobytes()):08x}",
        "likelihood": likelihood.removeprefix("likelihoods."),
        "measure": None if kind is None else "counting" if kind.discrete else "Lebesgue",
        "latent": _part(config.parts, "prior").get("latent"),
        "objective": config.objective.name,
        "epochs": epochs[-1]["epoch"] if epochs else None,
        "asked": f"{config.training.epochs} epochs at most, seed {config.seed}, device {config.device}",
        "seconds": metrics.get("seconds"),
        "report": str(page) if page.exists() else None,
    }


def _part(parts: dict[str, Any], name: str) -> dict[str, Any]:
    """The description of one of a model's boxes; empty where the model is the user's own."""
    box = parts.get(name, {})
    return box if isinstance(box, dict) else {}


def _differences(rows: list[dict[str, Any]]) -> list[str]:
    """What keeps the scores of runs from being compared."""
    scored = [row for row in rows if row["metrics"]]
    contexts = {row["context"] for row in scored}
    source = "data" if len(contexts) > 1 else "fingerprint"  # which covers the context
    why = {
        "context (log p(x|c) is not log p(x))": contexts,
        "test rows": {(row[source], row["test_rows"], row["metrics"]["rows"]) for row in scored},
        "binarisation": {row["binarise"] for row in scored},
        "base measure (a mass is no density)": {row["measure"] for row in scored},
    }
    return [reason for reason, values in why.items() if len(values) > 1]
