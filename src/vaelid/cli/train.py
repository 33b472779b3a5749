"""``vaelid train``: from data to a trained model, its numbers and its report."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from vaelid import recipes, report, runs
from vaelid.cli.output import Device, Json, Output, Quiet, scores
from vaelid.data import Choice, Dataset, choose, load, standard_split
from vaelid.errors import InputError, Interrupted
from vaelid.model import VAE
from vaelid.runs import Config, Run
from vaelid.training import EpochDone, Finished, Started, graceful, watch


def train(
    data: Annotated[str | None, typer.Argument(help="Built-in name (digits), file or folder.", metavar="DATA")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder to make; by default runs/NAME-NNN.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in TOML.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of config.toml; may be repeated.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training rows, at most.")] = None,
    latent: Annotated[int | None, typer.Option("--latent", help="Size of the latent space.")] = None,
    likelihood: Annotated[str | None, typer.Option("--likelihood", help="By default, the one that suits.")] = None,
    binarise: Annotated[bool, typer.Option("--binarise", help="Draw grey levels as 0 or 1 at every step.")] = False,
    label: Annotated[str | None, typer.Option("--label", help="Column with labels; the model never sees it.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Names every random number.")] = None,
    device: Device = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with a run; needs no DATA.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the settings and stop.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model, score it on test rows and write a report."""
    output = Output(json, quiet)
    if resume is not None:
        beside = {"DATA": data, "--out": out, "--config": config, "--set": settings, "--latent": latent, "--label": label,
                 "--likelihood": likelihood, "--binarise": binarise, "--seed": seed, "--device": device}
        if given := [name for name, value in beside.items() if value]:
            raise InputError(f"--resume with {', '.join(given)}", "only --epochs beside --resume",
                             "the run's config.toml says the rest")
        _resume(resume, epochs, output)
        return
    flags: dict[str, Any] = {
        "seed": seed,
        "device": device,
        "data": {"source": data, "label": label, "binarise": binarise or None},
        "model": {"latent": latent, "likelihood": likelihood},
        "training": {"epochs": epochs},
    }
    asked = runs.resolve(
        *([runs.read_config(config)] if config else []),
        *(runs.setting(text) for text in settings or []),
        _given(flags),
    )
    if not asked.data.source:
        raise InputError("no DATA", "a built-in name, a file or a folder", "for example: vaelid train digits")
    runs.find_device(asked.device)
    dataset = load(asked.data.source, label=asked.data.label)
    choice = choose(dataset, asked.model.likelihood, binarise=asked.data.binarise)
    parts = standard_split(len(dataset.x), dataset.test_rows)
    model = _build(asked, dataset, choice, parts.train)
    path = out or runs.new_path(dataset.name)
    runs.ensure_new(path)
    output.say(f"{dataset.name}: {len(dataset.x):,} rows of shape {tuple(dataset.x.shape[1:])}; "
               f"{len(parts.train):,} to train, {len(parts.validation):,} to validate, {len(parts.test):,} to test")
    output.say(choice.line())
    cells = dataset.x[0].size
    if model.prior.latent > cells:
        output.say(f"warning: {model.prior.latent} latents for rows of {cells} cells; fewer would do")
    asked = asked.model_copy(update={"model": asked.model.model_copy(
        update={"latent": model.prior.latent, "likelihood": choice.likelihood})})
    if dry_run:
        output.result(asked.model_dump(mode="json", exclude_none=True), [asked.to_toml()])
        return
    run = runs.start(path, asked, model, dataset, parts)
    output.say(f"run folder {run.path}")
    _go(run, model, dataset, output, resume=False)


def _build(config: Config, dataset: Dataset, choice: Choice, train_rows: Any) -> VAE:
    model = recipes.compose(
        dataset,
        choice,
        latent=config.model.latent,
        network=config.model.network,
        hidden=None if config.model.hidden is None else tuple(config.model.hidden),
        train_rows=train_rows,
        seed=config.seed,
    )
    return model.to(torch.device(config.device))


def _resume(path: Path, epochs: int | None, output: Output) -> None:
    run = Run.open(path)
    dataset = run.dataset()
    model = run.build()
    runs.prepare_resume(run, epochs)
    output.say(f"going on with {run.path}")
    _go(run, model, dataset, output, resume=True)


def _go(run: Run, model: VAE, dataset: Dataset, output: Output, *, resume: bool) -> None:
    """Train, score, report, and the last screen."""
    began = time.monotonic()
    finished: Finished | None = None
    again = f"vaelid train --resume {run.path}"
    try:
        with graceful() as stop, contextlib.closing(
            watch(runs.go(run, model, dataset, resume=resume, stop=stop), output.bars)  # type: ignore[type-var]
        ) as events:
            for event in events:
                match event:
                    case Started(step=step, epoch=epoch) if step:
                        output.say(f"from step {step}, epoch {epoch}")
                    case EpochDone():
                        pass
                    case Finished():
                        finished = event
    except Interrupted as error:
        raise Interrupted(f"interrupted; everything is saved. Go on with: {again}") from error
    if finished is None:
        raise InputError("training did not end", "a finished training", again)
    seconds = round(time.monotonic() - began, 1)
    output.say(f"trained for {finished.epoch} epochs in {seconds:g} s; best at epoch {finished.best_epoch} "
               f"({finished.reason})")
    rows = min(len(run.split().test), run.config.evaluation.rows)
    with output.bar("scoring test rows", rows) as on_rows:
        evaluation = runs.score(run, model, dataset, on_rows=on_rows)
    metrics = {"run": str(run.path), "epochs": finished.epoch, "best_epoch": finished.best_epoch, "seconds": seconds}
    metrics |= evaluation.as_dict()
    run.save_metrics(metrics)
    page = report.write(run, model, evaluation)
    latent = model.prior.latent
    lines = [
        "",
        f"On {evaluation.rows:,} test rows, which training never saw (mean ± standard error over rows):",
        *scores(metrics, latent),
        "",
        f"  report   {page}",
        f"  next     vaelid sample {run.path} -n 64 --out samples.png" if dataset.kind == "image" else
        f"  next     vaelid sample {run.path} -n 100 --out samples.csv",
        f"           vaelid encode {run.path} {dataset.source} --out latents.csv" if dataset.source != "memory" else
        f"           vaelid info {run.path}",
    ]
    output.result(metrics, lines)


def _given(table: dict[str, Any]) -> dict[str, Any]:
    """The nested table without what was not given."""
    kept = {key: _given(value) if isinstance(value, dict) else value for key, value in table.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}
