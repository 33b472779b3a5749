"""From a trained model to its numbers, its report and the last screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaelid import report, runs
from vaelid.cli.brackets import bracketed_after_training, stopped
from vaelid.cli.output import Output, scores
from vaelid.data import Dataset
from vaelid.data.sources import LOADER, MEMORY
from vaelid.diagnostics import Evaluation
from vaelid.errors import InputError, Interrupted, RunError, command
from vaelid.model import VAE
from vaelid.report.curves import Curves
from vaelid.runs import Run


def conclude(run: Run, model: VAE, dataset: Dataset, output: Output) -> None:
    """Score a trained model on its test rows, bracket some, keep the numbers, write the report, print the last screen.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the message says what to type. Where it cut the bracket short, all else is done.
        RunError: numbers or report could not be written; the message says what to type.
    """
    safe, again = f"the trained model is safe in {run.path}", command("report", run.path)
    problem: RunError | None = None
    page = None
    try:
        evaluation = measure(run, model, dataset, output)
        bracket, interrupted = bracketed_after_training(run, model, dataset, output)
        metrics = facts(run) | evaluation.as_dict() | {"evidence": bracket}
        try:
            run.save_metrics(metrics)
            page = report.write(run, model, evaluation)
        except (OSError, InputError, RunError) as error:
            what = f"the scores or the report could not be written ({reason_of(error)})"
            problem = RunError(f"{what}; {safe}. When that is put right: {again}")
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted while scoring; {safe}. To score it and write its report: {again}") from error
    except Exception as error:
        error.add_note(f"But {safe}. To score it and write its report: {again}")
        raise
    output.say()
    title = f"On {evaluation.rows:,} test rows, which training never saw (mean ± standard error over rows):"
    ways = ["", *([f"  report   {page}"] if page else []), *next_steps(run, dataset, bracket is None)]
    table = metrics | {"report": str(page) if page else None}
    output.result(table, [title, *scores(metrics, model.prior.latent, conditional(run)), *ways])
    if problem is not None:
        raise problem
    if interrupted:
        raise stopped(run)


def measure(run: Run, model: VAE, dataset: Dataset, output: Output) -> Evaluation:
    """Score a model on its run's test rows, with a bar."""
    rows = min(len(run.split().test), run.config.evaluation.rows)
    with output.bar("scoring test rows", rows) as on_rows:
        return runs.score(run, model, dataset, on_rows=on_rows)


def facts(run: Run) -> dict[str, Any]:
    """Which run it is and how long it was trained, all resumes together."""
    curves = Curves.of(run.events())
    seconds = round(curves.seconds, 1)
    return {"run": str(run.path), "epochs": curves.epochs, "best_epoch": curves.best_epoch, "seconds": seconds}


def conditional(run: Run) -> bool:
    """Whether the run's model is given covariates, so that its scores are those of log p(x | c)."""
    return run.config.data.context is not None or run.extras().get("context") is not None


def is_scored(run: Run) -> bool:
    """Whether metrics.json holds the scores of the run as it is now, not of one resumed since."""
    try:
        return bool(run.metrics().get("epochs") == facts(run)["epochs"])
    except InputError:  # metrics.json is damaged
        return False


def next_steps(run: Run, dataset: Dataset, unbracketed: bool) -> list[str]:
    """What to type next; every line works as it stands."""
    sample = ("-n", 64, "--out", "samples.png") if dataset.kind == "image" else ("-n", 100, "--out", "samples.csv")
    lines = [f"  next     {command('sample', run.path, *sample)}"]
    if dataset.source not in (MEMORY, LOADER):
        lines.append(f"           {command('encode', run.path, _near(dataset.source), '--out', 'latents.csv')}")
    if unbracketed:
        lines.append(f"           {command('evidence', run.path)}")
    return [*lines, f"           {command('studio', run.path, '--open')}"]


def _near(source: str) -> str:
    """A path as seen from the working folder, where it lies below; a built-in name as it is."""
    path, here = Path(source), Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else source


def reason_of(error: Exception) -> str:
    """Why something could not be written, in a few words."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return (isinstance(cause, OSError) and cause.strerror) or str(cause).rstrip(".")
