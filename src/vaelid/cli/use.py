"""Commands that use a trained model: ``evaluate encode reconstruct sample``."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from vaelid import checks, runs
from vaelid.cli.arguments import Data, Device, Json, Quiet, RunPath, in_order, opened, whole
from vaelid.cli.ending import conditional
from vaelid.cli.output import Output, scores
from vaelid.data import (
    TABLE_ENDINGS,
    Dataset,
    check_images_path,
    check_table_path,
    table_beside,
    write_images,
    write_table,
)
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
        dataset = folder.read(data)
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
    output.result({"run": str(folder.path)} | table, [title, *scores(table, model.prior.latent, conditional(folder))])


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
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Given this context; repeatable."),
    ] = None,
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

    A conditional model takes its context from --where; columns that are left open take theirs from training rows.

    Images become a folder of .png files, or one .png of them all; tables .csv, .parquet, .npy or .npz, and so do images
    if --out ends so. The context stands beside them.
    """
    output = Output(json, quiet)
    n = checks.positive_int(n, "-n")
    conditions = _conditions(where or [])
    folder = opened(run, device)
    model, data = folder.model(), folder.config.data
    images = data.kind == "image" if data.kind else len(folder.event_shape()) == 3
    as_images = images and (out is None or out.suffix.lower() not in TABLE_ENDINGS)
    out = out or Path("samples" if as_images else "samples.csv")
    out = check_images_path(out) if as_images else check_table_path(out)
    key = Key(seed).fold("sample")
    context = runs.contexts(folder, n, conditions, key.fold("context"))
    x = model.sample(n, key, context).cpu().numpy()
    encoding = data.encoding()
    beside = None if encoding is None or context is None else encoding.decode(context)
    if as_images:
        write_images(out, _grey(x, model.likelihood.support, folder), scale=1.0, beside=beside)
    else:
        write_table(out, x, np.arange(n), names=data.columns, beside=beside)
    table = {"rows": n, "out": str(out)}
    if as_images and beside:
        table["contexts"] = str(table_beside(out))
    output.result(table, [f"{n:,} new rows in {out}"])


def _conditions(where: list[str]) -> dict[str, str]:
    """``COLUMN=VALUE`` as typed, by column."""
    conditions: dict[str, str] = {}
    for text in where:
        name, equals, word = text.partition("=")
        if not equals or not name:
            raise InputError(f"--where {text}", "COLUMN=VALUE", "for example --where digit=3")
        if name in conditions:
            raise InputError(f"--where {name}= twice", "every column once")
        conditions[name] = word
    return conditions


def _prepare(path: Path, data: str, device: str | None, name: str) -> tuple[VAE, Dataset, Batch]:
    """Model, data and every row of them as the model takes it; ``name`` is the command that asks."""
    in_order(path, data, name)
    run = opened(path, device)
    model = run.model()
    dataset = run.read(data)
    own = dataset.fingerprint == run.config.data.fingerprint
    return model, dataset, runs.batch_of(run, model, dataset, np.arange(len(dataset.x)), own=own)


def _grey(x: np.ndarray, support: Support, run: Run) -> np.ndarray:
    """x from black (0) to white (1): over the likelihood's values where these end, else over the data's."""
    low, high = support.low, support.high
    if not (math.isfinite(low) and math.isfinite(high)):
        seen = x
        with contextlib.suppress(InputError):  # the run's data are gone or have changed
            seen = run.dataset().x
        low = low if math.isfinite(low) else min(0.0, float(seen.min()))
        high = high if math.isfinite(high) else max(1.0, float(seen.max()))
    return (x - low) / (high - low)
