"""Commands that measure in latent space: ``geodesic map distances``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor

from vaelid import checks, geometry, runs
from vaelid.cli.arguments import Device, Json, Quiet, RunPath, opened, whole
from vaelid.cli.output import Output, number
from vaelid.data import Dataset, check_images_path, check_table_path, write_table
from vaelid.errors import InputError, nearest
from vaelid.geometry import Distances, Embedding, Geodesics
from vaelid.model import VAE
from vaelid.runs import Run

METRICS: dict[str, Callable[[VAE, Any], Embedding]] = {
    "fisher": geometry.embedding,
    "mean": geometry.mean_embedding,
    "moments": geometry.moments_embedding,
}
_SEGMENTS = 32
_MAPPED = 1000  # rows of a map, at most

Metric = Annotated[str, typer.Option("--metric", metavar="NAME", help="fisher, mean or moments.")]
Png = Annotated[Path, typer.Option("--out", metavar="PNG", help="Picture to write.")]


class _Space(NamedTuple):
    """A run with a metric on its latent space, at one context."""

    run: Run
    model: VAE
    dataset: Dataset
    f: Embedding
    context: Tensor | None
    given: str

    @classmethod
    def of(cls, run: Run, model: VAE, dataset: Dataset, metric: str, context: np.ndarray | None, whose: str) -> _Space:
        """The space at a context, ``whose`` it is."""
        held = None if context is None else torch.from_numpy(context).to(model.device, model.dtype)
        words = runs.context_in_words(dataset, context)
        said = "" if context is None else whose + (f" ({words})" if words else "")
        return cls(run, model, dataset, METRICS[metric](model, held), held, said)

    @property
    def under(self) -> str:
        """The metric, and the context, in words."""
        return self.f.name + (f", given the context of {self.given}" if self.given else "")


def geodesic(
    run: RunPath,
    start: Annotated[int, typer.Option("--from", metavar="I", parser=whole, help="Row at which the path starts.")],
    end: Annotated[int, typer.Option("--to", metavar="J", parser=whole, help="Row at which it ends.")],
    metric: Metric = "fisher",
    out: Annotated[Path | None, typer.Option("--out", metavar="PNG", help="Picture of the path to write.")] = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Shortest path between two rows in latent space.

    Rows are those of the run's data, named by their numbers in the source. The search starts from a path through
    the latent means of training rows, or from the straight line. A conditional model is looked at given the context
    of row I.
    """
    output = Output(json, quiet)
    _check_metric(metric)
    out = None if out is None else _check_png(out)
    folder = opened(run, device)
    model, dataset = folder.model(), folder.dataset()
    index = np.array([runs.place_of(dataset, row) for row in (start, end)])
    context = runs.context_of(folder, dataset, index[:1])
    context = None if context is None else context[0]
    space = _Space.of(folder, model, dataset, metric, context, f"row {start}")
    z = runs.latent_means(folder, model, dataset, index)
    found = geometry.geodesic(space.f, z[:1], z[1:], graph=runs.graph_of(folder, model, dataset, space.f))
    t = torch.linspace(0, 1, _SEGMENTS + 1).to(z)
    straight = float(geometry.length(space.f, torch.lerp(z[0], z[1], t[:, None])[None]))
    table = {
        "run": str(folder.path),
        "from": start,
        "to": end,
        "metric": space.f.name,
        "context": space.given or None,
        "converged": bool(found.converged),
        "status": found.reasons()[0],
        **{name: float(getattr(found, name)) for name in ("length", "error", "chord", "energy", "decrement")},
        "straight_length": straight,
        "iterations": int(found.iterations),
        "path": found.path[0].tolist(),
        "out": None if out is None else str(out),
    }
    if out is not None:
        _draw_path(space, found, (start, end), table, out)
    output.result(table, [f"row {start} to row {end}: {space.under}", *_about_path(table)])


def map_(
    run: RunPath,
    metric: Metric = "fisher",
    out: Png = Path("map.png"),
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Map of the metric's volume with test rows and paths.

    The volume, log √det G, lies under the latent means of test rows. With more than two latents it is a slice, the
    plane in which the latent means vary most; with one, log √G along it.
    """
    output = Output(json, quiet)
    _check_metric(metric)
    out = _check_png(out)
    space, index = _test_rows(opened(run, device), metric, _MAPPED)
    from vaelid.report.charts import Chart, kinds  # matplotlib takes a while to import
    from vaelid.report.geometry import map_of
    from vaelid.report.style import save

    z, index = _usable(space, index)
    labels = space.dataset.labels
    labels = None if labels is None else np.asarray(labels)[index]
    chart = Chart.of(space.f, z)
    name = space.dataset.label_name or "label"
    found = chart.paths(kinds(z, labels))
    save([map_of(chart, found, labels, name)], out)
    paths = 0 if found is None else len(found.path)
    converged = 0 if found is None else int(found.converged.sum())
    table = {
        "run": str(space.run.path),
        "rows": len(z),
        "metric": space.f.name,
        "context": space.given or None,
        "slice": chart.sliced,
        "paths": paths,
        "converged_share": converged / paths if paths else None,
        "out": str(out),
    }
    share = f", a slice of {chart.size} dimensions ({sum(chart.shares):.0%} of the variance)" if chart.sliced else ""
    lines = [space.under, f"  map       {out}: {len(z):,} test rows{share}"]
    output.result(table, [*lines, *([f"  paths     {converged} of {paths} converged"] if paths else [])])


def distances(
    run: RunPath,
    rows: Annotated[int, typer.Option("--rows", metavar="N", parser=whole, help="How many test rows.")] = 50,
    metric: Metric = "fisher",
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write.")] = Path("distances.csv"),
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Lengths of shortest paths between all pairs of N test rows.

    Writes .csv, .parquet, .npy or .npz, as the ending of --out says; .npz holds chords, errors and convergence too.
    """
    output = Output(json, quiet)
    rows = checks.positive_int(rows, "--rows", minimum=2)
    _check_metric(metric)
    out = check_table_path(out)
    space, index = _test_rows(opened(run, device), metric, rows)
    z, index = _usable(space, index)
    with output.bar("pairs of rows", len(z) * (len(z) - 1) // 2) as on_pairs:
        found = geometry.distances(space.f, z, on_progress=lambda done, _: on_pairs(done))
    ids = space.dataset.row_id[index]
    matrices = {name: getattr(found, name).numpy(force=True) for name in ("length", "chord", "error", "converged")}
    if out.suffix.lower() == ".npz":
        write_table(out, matrices, ids)
    else:
        write_table(out, matrices["length"], ids, names=[str(row) for row in ids])
    table = {"run": str(space.run.path), "rows": len(z), "metric": space.f.name, "context": space.given or None}
    table |= _summary(found) | {"out": str(out)}
    output.result(table, [f"{len(z):,} test rows: {space.under}", *_about_distances(table)])


def _check_metric(name: str) -> None:
    if name not in METRICS:
        raise InputError(f"--metric {name}", f"one of {', '.join(METRICS)}", nearest(name, METRICS))


def _check_png(path: Path) -> Path:
    if path.suffix.lower() != ".png":
        ending = f"the ending {path.suffix!r}" if path.suffix else "no ending"
        raise InputError(f"output {path} has {ending}", "a picture, .png")
    return check_images_path(path)


def _test_rows(folder: Run, metric: str, rows: int) -> tuple[_Space, np.ndarray]:
    """A run's latent space at the typical context of its test rows, and the places of ``rows`` of these at most."""
    model, dataset = folder.model(), folder.dataset()
    index = runs.scored_rows(folder, rows)
    context = runs.typical_context(folder, dataset, index)
    return _Space.of(folder, model, dataset, metric, context, "a typical row"), index


def _usable(space: _Space, index: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Latent means of rows that are finite, and their places."""
    z = runs.latent_means(space.run, space.model, space.dataset, index)
    finite = z.isfinite().all(1)
    return z[finite], index[finite.numpy(force=True)]


def _draw_path(space: _Space, found: Geodesics, ends: tuple[int, int], table: dict[str, Any], out: Path) -> None:
    """Decoded along path and straight line; for two latents the map with both as well."""
    from vaelid.report.charts import Chart
    from vaelid.report.geometry import Pair, compared, map_of
    from vaelid.report.material import Look
    from vaelid.report.style import save

    model, dataset = space.model, space.dataset
    rows = runs.graph_rows(space.run, dataset)
    pair = Pair(found.path[0], f"row {ends[0]} to row {ends[1]}: ")
    lengths = np.array([[table["length"], table["straight_length"]]])
    figures = [compared(Look(space.run, model, dataset, rows), space.f, [pair], lengths, space.context)[0]]
    if found.path.shape[2] == 2 and len(rows) > 2:
        chart = Chart.of(space.f, runs.latent_means(space.run, model, dataset, rows))
        labels = None if dataset.labels is None else np.asarray(dataset.labels)[rows]
        figures.append(map_of(chart, found, labels, dataset.label_name or "label"))
    save(figures, out)


def _about_path(table: dict[str, Any]) -> list[str]:
    shorter = 1 - table["length"] / table["straight_length"] if table["straight_length"] > 0 else 0.0
    length, chord, error, straight = (
        number(table[name], 3) for name in ("length", "chord", "error", "straight_length")
    )
    end = "converged" if table["converged"] else f"not converged: {table['status']}"
    lines = [
        f"  distance  between {chord} (chord) and {length} ± {error} (length of the path found)",
        f"  straight  {straight}: the path is {shorter:.1%} shorter" if shorter >= 5e-4 else f"  straight  {straight}",
        f"  search    {table['iterations']} iterations, {end}",
    ]
    return [*lines, f"  picture   {table['out']}"] if table["out"] else lines


def _summary(found: Distances) -> dict[str, Any]:
    """The numbers that say how good a matrix of distances is."""
    above = torch.triu_indices(len(found.length), len(found.length), 1)
    wrong, pairs = found.violations()
    medians = {
        f"median_{name}": float(np.nanmedian(getattr(found, name)[above[0], above[1]].numpy(force=True)))
        for name in ("length", "chord", "error")
    }
    return {"pairs": pairs, "converged_share": found.converged_share, "violations": wrong, **medians}


def _about_distances(table: dict[str, Any]) -> list[str]:
    length, chord, error = (number(table[f"median_{name}"], 3) for name in ("length", "chord", "error"))
    return [
        f"  pairs     {table['pairs']:,}, of which {table['converged_share']:.1%} converged",
        f"  medians   length {length}, chord {chord}, error of the length {error}",
        f"  triangle  {table['violations']:,} pairs are longer by 1% or more than a way over a third row",
        f"  saved     {table['out']}",
    ]
