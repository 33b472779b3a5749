"""Commands that use a trained model: ``evaluate encode reconstruct sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from vaelid import checks, runs
from vaelid.cli.output import Json, Output, Quiet, Seed, scores
from vaelid.data import Dataset, check_images_path, check_table_path, load, write_images, write_table
from vaelid.diagnostics import evaluate as evaluate_rows
from vaelid.errors import InputError
from vaelid.model import VAE, chunks
from vaelid.random import Key
from vaelid.runs import Run
from vaelid.types import Batch

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
Data = Annotated[str, typer.Argument(metavar="DATA", help="Built-in name, file or folder.")]
Out = Annotated[Path | None, typer.Option("--out", help="File to write: .csv .parquet .npy .npz.")]


def evaluate(
    run: RunPath,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help="By default the run's test rows.")] = None,
    samples: Annotated[int, typer.Option("--samples", help="K of the importance-weighted bound.")] = 1000,
    rows: Annotated[int | None, typer.Option("--rows", help="Score that many rows; by default all.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """ELBO, its terms and the importance-weighted bound."""
    output = Output(json, quiet)
    samples = checks.positive_int(samples, "--samples")
    rows = None if rows is None else checks.positive_int(rows, "--rows")
    folder = Run.open(run)
    model = folder.model()
    if data is None:
        dataset, count = folder.dataset(), len(folder.split().test)
        what = "test rows of the run"
    else:
        dataset = load(data, label=folder.config.data.label)
        count, what = len(dataset.x), f"rows of {data}"
    count = min(rows or count, count)
    with output.bar("scoring", count) as on_rows:
        if data is None:
            result = runs.score(folder, model, dataset, samples=samples, rows=count, on_rows=on_rows)
        else:
            batch = runs.batch_of(folder, model, dataset, np.arange(count), own=False)
            result = evaluate_rows(model, batch, samples=samples, key=runs.SCORING.fold("evaluate"), on_rows=on_rows)
    table = result.as_dict()
    output.result(table, [f"{count:,} {what} (mean ± standard error over rows):", *scores(table, model.prior.latent)])


def encode(run: RunPath, data: Data, out: Out = None, json: Json = False, quiet: Quiet = False) -> None:
    """The latent means of every row, in order."""
    output = Output(json, quiet)
    out = check_table_path(out or Path("latents.csv"))
    _, model, dataset, batch = _open(run, data)
    z = model.encode(batch).cpu().numpy()
    write_table(out, z, dataset.row_id, array="z")
    output.result({"rows": len(z), "out": str(out)}, [f"{len(z):,} rows of {z.shape[1]} latents in {out}"])


def reconstruct(run: RunPath, data: Data, out: Out = None, json: Json = False, quiet: Quiet = False) -> None:
    """E[x | z] at each row's latent mean, in the data's own units and order."""
    output = Output(json, quiet)
    out = check_table_path(out or Path("reconstructions.npz"))
    _, model, dataset, batch = _open(run, data)
    x = np.concatenate([model.reconstruct(rows).cpu().numpy() for rows in chunks(batch)])
    write_table(out, x, dataset.row_id, names=dataset.columns)
    output.result({"rows": len(x), "out": str(out)}, [f"{len(x):,} rows in {out}"])


def sample(
    run: RunPath,
    n: Annotated[int, typer.Option("-n", help="How many.")] = 64,
    out: Annotated[
        Path | None, typer.Option("--out", help="Images: a folder, or a grid as .png; else .csv .parquet .npy .npz.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """New rows: z from the prior, x from the likelihood."""
    output = Output(json, quiet)
    n = checks.positive_int(n, "-n")
    folder = Run.open(run)
    dataset = folder.dataset()
    as_images = dataset.kind == "image" and (out is None or out.suffix in ("", ".png"))
    out = out or Path("samples" if as_images else "samples.csv")
    out = check_images_path(out) if as_images else check_table_path(out)
    if folder.extras().get("context") is not None:
        raise InputError(f"{run} was trained with context", "a model without", "sample from Python: model.sample(n, key, context)")
    x = folder.model().sample(n, Key(seed).fold("sample")).cpu().numpy()
    if as_images:
        write_images(out, x, scale=_white(folder, dataset))
    else:
        write_table(out, x, np.arange(n), names=dataset.columns)
    output.result({"rows": n, "out": str(out)}, [f"{n:,} new rows in {out}"])


def _open(path: Path, data: str) -> tuple[Run, VAE, Dataset, Batch]:
    """Run, model and every row of the data, as the model takes them."""
    run = Run.open(path)
    model = run.model()
    dataset = load(data, label=run.config.data.label)
    own = dataset.fingerprint == run.config.data.fingerprint
    batch = runs.batch_of(run, model, dataset, np.arange(len(dataset.x)), own=own)
    return run, model, dataset, batch


def _white(run: Run, dataset: Dataset) -> float:
    """The value that is drawn as white."""
    if run.config.data.binarise:
        return 1.0
    values: Any = dataset.x
    return float(dataset.trials or (255 if values.dtype == np.uint8 else max(1.0, float(values.max()))))
