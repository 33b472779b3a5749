"""Geodesics beside stochman 0.3.0 and Adam on the discrete curve: ``python -m benchmarks.geometry RUN``.

Needs, beside vaelid: ``pip install --no-deps stochman==0.3.0``. RUN is a run folder of a model of images.

Every contestant solves the same pairs of test images under the same embedding, the Fisher–Rao one, in float32 on one
thread. They take turns, and a contestant's figure is the median of its turns. vaelid's time has in it the graph of
neighbours over latent means of training rows where one is laid, the search, and the lengths and errors that it reports;
the others' time ends with their curves. Afterwards all curves are measured in the same way, by vaelid's quadrature of
the cubic spline through their points, in float64.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

import vaelid as vd
from benchmarks.geodesic_contestants import CONTESTANTS
from vaelid import geometry, runs
from vaelid.runs.session import batch_of, scored_rows

NAME = "vaelid"
GRAPH_ROWS = 3000
GRAPH_LATENTS = 4  # latents, at most, with which a graph of neighbours is worth its time
WARM = 4  # pairs that a contestant solves before it is timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS), help="contestants beside vaelid")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4, 16, 64, 256])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    run = runs.Run.open(asked.run)
    model, dataset = run.model().requires_grad_(False), run.dataset()
    z = model.encode(batch_of(run, model, dataset, scored_rows(run, 2 * asked.pairs)))
    z = z[vd.Key(0).permutation(len(z))]
    a, b = z[: asked.pairs], z[asked.pairs :]
    around = model.encode(batch_of(run, model, dataset, run.split().train[:GRAPH_ROWS]))
    f = geometry.embedding(model)
    laid = a.shape[1] <= GRAPH_LATENTS

    def ours(a: Tensor, b: Tensor) -> Tensor:
        graph = geometry.Graph.build(f, around) if laid else None
        return geometry.geodesic(f, a, b, graph=graph).points([k / 128 for k in range(129)])

    contestants = {NAME: ours} | {
        name: (lambda a, b, solve=CONTESTANTS[name]: solve(f.function, a, b)) for name in asked.only
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    curves: dict[str, Tensor] = {}
    for solve in contestants.values():
        solve(a[:WARM], b[:WARM])
    for _ in range(asked.rounds):
        for name, solve in contestants.items():
            start = time.perf_counter()
            curves[name] = solve(a, b)
            seconds[name].append(time.perf_counter() - start)
    exact = geometry.embedding(copy.deepcopy(model).double())
    lengths = {name: geometry.length(exact, points.double()) for name, points in curves.items()}
    best = torch.stack(list(lengths.values())).amin(0)
    print(f"{asked.run}: {a.shape[1]} latents, {asked.pairs} pairs, {'a graph over' if laid else 'no graph; of'} "
          f"{GRAPH_ROWS:,} training rows, torch {torch.__version__}, one thread")  # fmt: skip
    print(f"  {'':20} ms per pair  vaelid / it   length / best: median, 95 %   / vaelid's: median")
    for name in contestants:
        ratio = statistics.median(own / other for own, other in zip(seconds[NAME], seconds[name], strict=True))
        spread = (lengths[name] / best).quantile(torch.tensor([0.5, 0.95], dtype=torch.float64))
        print(f"  {name:20} {1e3 * statistics.median(seconds[name]) / asked.pairs:11.1f}  × {ratio:5.2f}   "
              f"{spread[0]:21.4f}  {spread[1]:.4f}   {(lengths[name] / lengths[NAME]).median():16.4f}")  # fmt: skip
    found = geometry.geodesic(f, a, b, graph=geometry.Graph.build(f, around) if laid else None)
    print(f"  converged {int(found.converged.sum())} of {asked.pairs}; iterations {_quantiles(found.iterations)} "
          f"(median, 95 %, most); chord / length {(found.chord / found.length).median():.2f}")  # fmt: skip
    print("  pairs per second as the batch grows, the graph apart:")
    graph = geometry.Graph.build(f, around) if laid else None
    for size in asked.batches:
        many = [torch.cat([x] * -(-size // len(x)))[:size] for x in (a, b)]
        times = []
        for _ in range(asked.rounds):
            start = time.perf_counter()
            geometry.geodesic(f, *many, graph=graph)
            times.append(time.perf_counter() - start)
        print(f"    {size:5,}  {size / statistics.median(times):8.1f}", flush=True)


def _quantiles(counts: Tensor) -> str:
    values = counts.double().quantile(torch.tensor([0.5, 0.95, 1.0], dtype=torch.float64))
    return ", ".join(f"{value:.0f}" for value in values)


if __name__ == "__main__":
    main()
