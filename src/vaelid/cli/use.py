"""Commands that use a trained model: ``evaluate encode reconstruct sample``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from vaelid import checks, runs
from vaelid.cli.arguments import Data, Device, Json, Quiet, RunPath, in_order, opened, whole
from vaelid.cli.output import Output, scores
from vaelid.data import TABLE_ENDINGS, Dataset, check_images_path, check_table_path, load, write_images, write_table
from vaelid.diagnostics import evaluate as evaluate_rows
from vaelid.errors import InputError
from vaelid.model import VAE
from vaelid.random import Key
from vaelid.runs import Run
from vaelid.types import Batch, Support

OutFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write.")]


def evaluate(
    run: RunPath,
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Rows to score; by default the run's test rows.")
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", metavar="K", parser=whole, help="K of the importance-weighted bound.")
    ] = 1000,
    rows: Annotated[
        int | None, typer.Option("--rows", metavar="N", parser=whole, help="Score N rows, chosen at random; else all.")
    ] = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """ELBO, its terms and the importance-weighted bound."""
    output = Output(json, quiet)
    samples = checks.positive_int(samples, "--samples")
    rows = None if rows is None else checks.positive_int(rows, "--rows")
    if data is not None:
        in_order(run, data, "evaluate")
    folder = opened(run, device)
    model = folder.model()
    if data is None:
        dataset, total, what = folder.dataset(), len(folder.split().test), "test rows of the run"
    else:
        dataset = _load(folder, data)
        total, what = len(dataset.x), f"rows of {data}"
    count = min(rows or total, total)
    if data is None:
        with output.bar("scoring", count) as on_rows:
            result = runs.score(folder, model, dataset, samples=samples, rows=count, on_rows=on_rows)
    else:
        index = np.sort(runs.SCORING.fold("rows").permutation(total).numpy()[:count])
        own = dataset.fingerprint == folder.config.data.fingerprint
        trained = len(np.intersect1d(index, folder.split().train)) if own else 0
        if trained:
            output.warn(f"warning: {trained:,} of these rows were trained on; leave DATA out to score test rows")
        batch = runs.batch_of(folder, model, dataset, index, own=own)
        with output.bar("scoring", count) as on_rows:
            result = evaluate_rows(model, batch, samples=samples, key=runs.SCORING.fold("evaluate"), on_rows=on_rows)
    table = result.as_dict()
    title = f"On {count:,} {what} (mean ± standard error over rows):"
    output.result({"run": str(folder.path)} | table, [title, *scores(table, model.prior.latent)])


def encode(
    run: RunPath,
    data: Data,
    out: OutFile = Path("latents.csv"),
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The latent mean of every row, in order.

    Writes .csv, .parquet, .npy or .npz, as the ending of --out says. Rows keep their ids.
    """
    output = Output(json, quiet)
    out = check_table_path(out)
    model, dataset, batch = _prepare(run, data, device, "encode")
    z = model.encode(batch).cpu().numpy()
    write_table(out, z, dataset.row_id, array="z")
    output.result({"rows": len(z), "out": str(out)}, [f"{len(z):,} rows of {z.shape[1]} latents in {out}"])


def reconstruct(
    run: RunPath,
    data: Data,
    out: OutFile = Path("reconstructions.npz"),
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """E[x|z] at the latent mean of every row, in order.

    Writes .csv, .parquet, .npy or .npz, as the ending of --out says. Rows keep their ids.
    """
    output = Output(json, quiet)
    out = check_table_path(out)
    model, dataset, batch = _prepare(run, data, device, "reconstruct")
    x = model.reconstruct(batch).cpu().numpy()
    write_table(out, x, dataset.row_id, names=dataset.columns)
    output.result({"rows": len(x), "out": str(out)}, [f"{len(x):,} rows in {out}"])


def sample(
    run: RunPath,
    n: Annotated[int, typer.Option("-n", metavar="N", parser=whole, help="How many.")] = 64,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="OUT", help="What to write.  [default: samples, or samples.csv]"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", parser=whole, help="Names every random number.")] = 0,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """New rows: z from the prior, x from the likelihood.

    Images become a folder of .png files, or one .png of them all; tables .csv, .parquet, .npy or .npz, and so do images
    if --out ends so.
    """
    output = Output(json, quiet)
    n = checks.positive_int(n, "-n")
    folder = opened(run, device)
    model, dataset = folder.model(), _source(folder)
    images = dataset.kind == "image" if dataset else len(folder.event_shape()) == 3
    as_images = images and (out is None or out.suffix.lower() not in TABLE_ENDINGS)
    out = out or Path("samples" if as_images else "samples.csv")
    out = check_images_path(out) if as_images else check_table_path(out)
    if folder.extras().get("context") is not None:
        raise InputError(
            f"{run} was trained with context", "a model without", "in Python: model.sample(n, key, context)"
        )
    x = model.sample(n, Key(seed).fold("sample")).cpu().numpy()
    if as_images:
        write_images(out, _grey(x, model.likelihood.support, dataset), scale=1.0)
    else:
        if dataset is None:
            output.warn("warning: the run's data are gone or have changed, and with them the names of columns")
        write_table(out, x, np.arange(n), names=dataset.columns if dataset else None)
    output.result({"rows": n, "out": str(out)}, [f"{n:,} new rows in {out}"])


def _prepare(path: Path, data: str, device: str | None, name: str) -> tuple[VAE, Dataset, Batch]:
    """Model, data and every row of them as the model takes it; ``name`` is the command that asks."""
    in_order(path, data, name)
    run = opened(path, device)
    model = run.model()
    dataset = _load(run, data)
    own = dataset.fingerprint == run.config.data.fingerprint
    return model, dataset, runs.batch_of(run, model, dataset, np.arange(len(dataset.x)), own=own)


def _load(run: Run, data: str) -> Dataset:
    """DATA, read as the run's data were; labels may be absent.

    Raises:
        InputError: see `vaelid.data.load`; the columns of a table are not those of the run, in their order.
    """
    label = run.config.data.label
    try:
        dataset = load(data, label=label)
    except InputError as error:
        if label is None:
            raise
        try:
            dataset = load(data)
        except InputError:
            raise error from None
    if dataset.columns and dataset.source != run.config.data.source and (known := _source(run)):
        _same_columns(dataset, known)
    return dataset


def _same_columns(dataset: Dataset, known: Dataset) -> None:
    given, trained = dataset.columns or (), known.columns or ()
    if given == trained or not trained or len(given) != len(trained):
        return
    place = next(index for index, names in enumerate(zip(given, trained, strict=True)) if len(set(names)) > 1)
    raise InputError(
        f"column {place} of {dataset.name} is {given[place]!r}",
        f"{trained[place]!r}, as in the data that the model was trained on",
        "give the same columns in the same order",
    )


def _source(run: Run) -> Dataset | None:
    """The run's own data, None where they are gone or have changed."""
    try:
        return run.dataset()
    except InputError:
        return None


def _grey(x: np.ndarray, support: Support, dataset: Dataset | None) -> np.ndarray:
    """x from black (0) to white (1): over the likelihood's values where these end, else over the data's."""
    seen = x if dataset is None else dataset.x
    low = support.low if math.isfinite(support.low) else min(0.0, float(seen.min()))
    high = support.high if math.isfinite(support.high) else max(1.0, float(seen.max()))
    return (x - low) / (high - low)
