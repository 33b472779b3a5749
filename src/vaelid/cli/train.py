"""``vaelid train``: from data to a trained model, its numbers and its report."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from vaelid import checks, recipes, runs
from vaelid.cli.arguments import Device, Json, Quiet, is_run, opened, whole
from vaelid.cli.ending import conclude, facts, is_scored
from vaelid.cli.output import Output
from vaelid.data import Choice, Dataset, Split, choose, load, standard_split
from vaelid.errors import InputError, Interrupted, RunError, command
from vaelid.model import VAE
from vaelid.runs import Config, Run
from vaelid.runs.folder import next_free
from vaelid.training import EpochDone, Finished, Started, graceful, watch

PAUSE = 30.0  # seconds between lines of progress where there is no terminal to show a bar


def train(
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Built-in name (digits), file or folder.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="New run folder; else runs/NAME-NNN.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key that --dry-run prints; repeatable.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="N", parser=whole, help="Passes over the training rows, at most.")
    ] = None,
    latent: Annotated[
        int | None, typer.Option("--latent", metavar="D", parser=whole, help="Latent dimensions.")
    ] = None,
    likelihood: Annotated[
        str | None, typer.Option("--likelihood", metavar="NAME", help="Default: the one that suits the data.")
    ] = None,
    binarise: Annotated[bool, typer.Option("--binarise", help="Draw grey levels as 0 or 1 at every step.")] = False,
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="Labels; the model never sees them.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B,C", help="Columns that are data.  [default: all others]")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", metavar="A,B,C", help="Columns that are no data; repeatable.")
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option("--context", metavar="COLUMN", help="What the model is given; repeatable.")
    ] = None,
    weight: Annotated[str | None, typer.Option("--weight", metavar="COLUMN", help="Weights of the rows.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", parser=whole, help="Names every random number.  [default: 0]")
    ] = None,
    device: Device = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Go on with a run; no DATA.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the settings as TOML; write nothing.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model, score it on test rows and write a report."""
    output = Output(json, quiet, keep_stdout=dry_run)
    flags = {
        "--config": config,
        "--set": settings or None,
        "--epochs": None if epochs is None else checks.positive_int(epochs, "--epochs"),
        "--latent": None if latent is None else checks.positive_int(latent, "--latent"),
        "--likelihood": likelihood,
        "--binarise": binarise or None,
        "--label": label,
        "--columns": columns,
        "--drop": drop or None,
        "--context": context or None,
        "--weight": weight,
        "--seed": seed,
        "--device": device,
    }
    if resume is not None:
        beside = {"DATA": data, "--out": out, "--dry-run": dry_run or None} | flags
        given = [name for name, value in beside.items() if value is not None and name not in ("--epochs", "--device")]
        if given:
            raise InputError(
                f"--resume with {', '.join(given)}",
                "only --epochs or --device beside --resume",
                "the run's config.toml says the rest",
            )
        _resume(resume, epochs, device, output)
        return
    asked = runs.resolve(
        *([runs.read_config(config)] if config else []),
        *(runs.setting(text) for text in settings or []),
        _given(
            {
                "seed": seed,
                "device": device,
                "data": {
                    "source": data,
                    "label": label,
                    "columns": columns,
                    "drop": ",".join(drop) if drop else None,
                    "context": context or None,
                    "weight": weight,
                    "binarise": flags["--binarise"],
                },
                "model": {"latent": latent, "likelihood": likelihood},
                "training": {"epochs": epochs},
            }
        ),
    )
    _check_source(asked.data.source)
    if out is not None and out.exists():
        raise _exists(out, _words(data, flags))
    runs.find_device(asked.device)
    asked.objective.build()
    roles = asked.data.model_dump(include={"label", "columns", "drop", "context", "weight"})
    dataset = load(asked.data.source, **roles)
    choice = choose(dataset, asked.model.likelihood, binarise=asked.data.binarise)
    parts = standard_split(len(dataset.x), dataset.test_rows)
    model = _build(asked, dataset, choice, parts)
    output.say(
        f"{dataset.name}: {len(dataset.x):,} rows of shape {tuple(dataset.x.shape[1:])}; "
        f"{len(parts.train):,} to train, {len(parts.validation):,} to validate, {len(parts.test):,} to test"
    )
    output.say(choice.line())
    if dataset.covariates is not None:
        output.say(f"context: {dataset.covariates}")
    latent, cells = model.prior.latent, dataset.x[0].size
    if latent > cells:
        output.warn(f"warning: {latent} latent dimensions for rows of {cells} cells; fewer would do")
    built = asked.model.model_copy(update={"latent": latent, "likelihood": choice.likelihood})
    asked = asked.model_copy(update={"model": built})
    if dry_run:
        output.result(asked.model_dump(mode="json", exclude_none=True), [asked.to_toml().rstrip()])
        return
    _start(out, asked, model, dataset, parts, output)


def _check_source(source: str) -> None:
    """Refuse what is no DATA but looks as if it could be."""
    if not source:
        raise InputError("no DATA", "a built-in name, a file or a folder", "for example: vaelid train digits")
    if any(sign in source for sign in "*?[") and not Path(source).exists():
        raise InputError(
            f"DATA {source} names several files", "one file or folder", "join the files first: globs are not read yet"
        )
    if is_run(Path(source)):
        raise InputError(f"{source} is a run", "data", f"to go on with it: {command('train', '--resume', source)}")


def _exists(out: Path, words: list[str]) -> InputError:
    """The error for a folder that is there already, with the commands that might have been meant."""
    inside = out.is_dir() and not is_run(out)
    place = out / "run" if inside else out if out.name not in ("", "..") else out.resolve()
    another = command("train", *words, "--out", next_free(place) if place.exists() else place)
    if not is_run(out):
        return InputError(f"{out} exists and is no run", "a new folder", f"for example: {another}")
    again = command("train", "--resume", out)
    remedy = f"to go on with that run: {again}; for another: {another}"
    return InputError(f"the run {out} exists", "a new folder", remedy)


def _words(data: str | None, flags: dict[str, Any]) -> list[str]:
    """DATA and flags as they were typed."""
    words = [] if data is None else [data]
    for name, value in flags.items():
        for item in value if isinstance(value, list) else [value]:
            words += [] if item is None else [name] if item is True else [name, str(item)]
    return words


def _build(config: Config, dataset: Dataset, choice: Choice, parts: Split) -> VAE:
    model = recipes.vae(
        dataset,
        likelihood=choice,
        latent=config.model.latent,
        prior=config.model.prior,
        posterior=config.model.posterior,
        components=config.model.components,
        network=config.model.network,
        hidden=None if config.model.hidden is None else tuple(config.model.hidden),
        depth=config.model.depth,
        train_rows=parts.train,
        seed=config.seed,
    )
    return model.to(torch.device(config.device))


def _start(out: Path | None, config: Config, model: VAE, dataset: Dataset, parts: Split, output: Output) -> None:
    """Make the run folder and train in it."""
    path = out or runs.new_path(dataset.name)
    while True:
        try:
            run = runs.start(path, config, model, dataset, parts)
            break
        except InputError:
            if out is not None or not path.exists():
                raise
            path = runs.new_path(dataset.name)  # another training took the name at the same time
    output.say(f"run folder {run.path}")
    _go(run, model, dataset, output, resume=False)


def _resume(path: Path, epochs: int | None, device: str | None, output: Output) -> None:
    """Go on with a run; where only its scores or its report are missing, make those."""
    run = opened(path, device)
    dataset = run.dataset()
    if epochs is None and run.finished and len(run.split().test) and not is_scored(run):
        output.say(f"{run.path} is trained; what is missing are its scores")
        conclude(run, run.model(), dataset, output)
        return
    model = run.build()
    runs.prepare_resume(run, epochs)
    if device is not None:
        run.save_config(run.config)
    output.say(f"going on with {run.path}")
    _go(run, model, dataset, output, resume=True)


def _go(run: Run, model: VAE, dataset: Dataset, output: Output, *, resume: bool) -> None:
    """Train to the end, then score and report."""
    said, reason = time.monotonic(), ""
    try:
        with (
            graceful() as stop,
            contextlib.closing(watch(runs.go(run, model, dataset, resume=resume, stop=stop), output.bars)) as events,
        ):
            for event in events:
                match event:
                    case Started(step=step, epoch=epoch) if step:
                        output.say(f"from step {step}, epoch {epoch}")
                    case EpochDone() if not output.bars.is_terminal and time.monotonic() - said > PAUSE:
                        said, bound = time.monotonic(), event.validation["bound"]
                        output.warn(f"epoch {event.epoch}/{run.config.training.epochs}, validation bound {bound:.2f}")
                    case Finished():
                        reason = event.reason
    except KeyboardInterrupt as error:  # a second Ctrl-C
        again = command("train", "--resume", run.path)
        kept = f"go on from the last checkpoint with: {again}" if run.checkpoints.last.exists() else "nothing was saved"
        raise Interrupted(f"interrupted at once; {kept}") from error
    except RunError as error:
        if isinstance(error.__cause__, OSError) or not run.model_file.exists():
            raise
        score = command("report", run.path)
        raise RunError(f"{str(error).rstrip('.')}. The best model so far is saved; to score it: {score}") from error
    done = facts(run)
    output.say(
        f"trained for {done['epochs']} epochs in {done['seconds']:g} s; best at epoch {done['best_epoch']} ({reason})"
    )
    conclude(run, model, dataset, output)


def _given(table: dict[str, Any]) -> dict[str, Any]:
    """The nested table without what was not given."""
    kept = {key: _given(value) if isinstance(value, dict) else value for key, value in table.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}
