"""`write`: the report of a run."""

from __future__ import annotations

import importlib.resources
import json
import math
import shlex
from pathlib import Path
from typing import Any

import jinja2
import tomli_w

from vaelid import runs
from vaelid.data import Dataset
from vaelid.data.sources import LOADER, MEMORY
from vaelid.diagnostics import Estimate, Evaluation
from vaelid.errors import command
from vaelid.files import write_text
from vaelid.model import VAE
from vaelid.report import verdict
from vaelid.report.curves import Curves
from vaelid.runs import Run


def write(run: Run, model: VAE, evaluation: Evaluation | None = None) -> Path:
    """Write ``report.html`` into the run folder: one file that needs nothing else, verdict first.

    Args:
        run: the run.
        model: its trained model.
        evaluation: what `vaelid.runs.score` gave for the run's own test rows; made here by default.

    Returns:
        The path of the page.

    Raises:
        InputError: the run's rows are gone or have changed.
    """
    from vaelid.report.material import Material  # matplotlib takes a while to import
    from vaelid.report.sections import SECTIONS

    dataset = run.dataset()
    if evaluation is None:
        evaluation = runs.score(run, model, dataset)
    curves = Curves.of(run.events())
    material = Material(run, model, dataset, evaluation, curves, runs.scored_rows(run, evaluation.rows))
    facts = measured(run, model, dataset, evaluation, curves)
    environment = _environment(run)
    page = _template().render(
        title=run.path.resolve().name,
        subtitle=_subtitle(model, dataset, environment),
        sentences=verdict.sentences(facts),
        table=verdict.table(facts),
        measure=verdict.measure(facts),
        sections=[section for make in SECTIONS if (section := make(material)) is not None],
        config=tomli_w.dumps(run.config.model_dump(exclude={"parts"}, exclude_none=True, mode="json")),
        parts=tomli_w.dumps(run.config.parts),
        again=_again(run, environment),
        commands=_next(run, dataset),
        environment=environment,
    )
    path = run.path / "report.html"
    write_text(path, page)
    return path


def measured(run: Run, model: VAE, dataset: Dataset, evaluation: Evaluation, curves: Curves) -> verdict.Facts:
    """The numbers that the verdict goes by."""
    per_row = evaluation.per_row
    gap = per_row.log_evidence - per_row.elbo
    gain, gain_epochs = curves.gain()
    discrete = model.likelihood.discrete
    counted = discrete and dataset.kind == "image" and "mask" not in run.extras()
    return verdict.Facts(
        run=shlex.quote(str(run.path)),
        rows=evaluation.rows,
        test_rows=len(run.split().test),
        validation_rows=curves.validation_rows,
        elbo=evaluation.elbo,
        iwae=evaluation.iwae,
        rate=evaluation.rate,
        distortion=evaluation.distortion,
        gap=Estimate(float(gap.mean()), float(gap.std()) / math.sqrt(len(gap)) if len(gap) > 1 else math.nan),
        spread=float(per_row.elbo.std()) if len(gap) > 1 else math.nan,
        samples=evaluation.samples,
        ess=float(per_row.ess.median()),
        active=evaluation.active_units,
        latent=model.prior.latent,
        discrete=discrete,
        pixels=math.prod(dataset.event_shape) if counted else None,
        epochs=curves.epochs,
        epochs_asked=run.config.training.epochs,
        best_epoch=curves.best_epoch,
        seconds=curves.seconds,
        finished=curves.finished,
        train_bound=curves.at_best(curves.train),
        validation_bound=curves.at_best(curves.validation),
        gain=gain,
        gain_epochs=gain_epochs,
        rollbacks=len(curves.rollbacks),
    )


def _template() -> jinja2.Template:
    text = importlib.resources.files("vaelid.report").joinpath("template.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def _environment(run: Run) -> dict[str, Any]:
    path = run.path / "env.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}  # type: ignore[no-any-return]


def _subtitle(model: VAE, dataset: Dataset, environment: dict[str, Any]) -> list[str]:
    shape, latent = " × ".join(map(str, dataset.event_shape)), model.prior.latent
    parts = [
        f"data {dataset.name}: {dataset.rows:,} rows of {shape}",
        f"{type(model.likelihood).__name__} likelihood, {latent} latent dimension{'s' if latent != 1 else ''}",
        f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters",
    ]
    if "started" in environment:
        parts.append(f"started {environment['started'][:16].replace('T', ' ')}")
    return parts


def _again(run: Run, environment: dict[str, Any]) -> list[str]:
    """The commands that made the run; none where it was made from Python."""
    first = environment.get("command", "")
    if not first.startswith("vaelid train"):
        return []
    resumed = sum(event["event"] == "Started" for event in run.events()) > 1
    further = command("train", "--resume", run.path, "--epochs", run.config.training.epochs)
    return [first, further] if resumed else [first]


def _next(run: Run, dataset: Dataset) -> list[tuple[str, str]]:
    data = "DATA" if dataset.source in (MEMORY, LOADER) else dataset.source
    many = ("-n", 64, "--out", "samples.png") if dataset.kind == "image" else ("-n", 100, "--out", "samples.csv")
    return [
        (command("sample", run.path, *many), "new rows from the prior"),
        (command("encode", run.path, data, "--out", "latents.csv"), "the latent mean of every row"),
        (command("evidence", run.path), "log p(x) between a lower and an upper side"),
        (command("compare", run.path, "OTHER_RUN"), "this run beside others"),
    ]
