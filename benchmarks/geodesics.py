"""Geodesics between test rows, rechecked, and what they are worth to a nearest neighbour.

    python -m benchmarks.geodesics RUN [--pairs 1000]

Pairs are random test rows. A path counts as converged where, in float64 and by other code than the search's own status,
its endpoints are the given ones, its squared undamped Newton decrement is at most the tolerance times its energy, and
its energy is not above the straight line's. Then every one of 200 further test rows is given the label of its nearest
among the 20 training rows that are nearest to it by Euclidean distance in latent space, by either distance.
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
from torch import Tensor

import vaelid as vd
from vaelid import geometry, runs
from vaelid.geometry import blocks, curves
from vaelid.geometry.manifold import Embedding
from vaelid.runs.session import batch_of, scored_rows

GRAPH_ROWS, GRAPH_LATENTS = 3000, 4
AMONG, SEARCHED = 20, 10_000
STRICT = 200  # pairs that are solved once more, to a tolerance of 1e-6
TRIANGLES = 40  # rows among whose triangles violations are counted


def recheck(exact: Embedding, path: Tensor, a: Tensor, b: Tensor, tolerance: float) -> Tensor:
    """Which paths are converged, in float64, (n,)."""
    nodes = path.double()
    good = []
    for rows in torch.split(torch.arange(len(nodes)), 50):
        system = blocks.assemble(exact, nodes[rows])
        solution = blocks.solve(system.diagonal, system.upper, system.gradient.unsqueeze(-1))
        line = curves.straight(nodes[rows, 0], nodes[rows, -1], nodes.shape[1] - 1)
        lower = exact.path_energy(nodes[rows]) <= exact.path_energy(line) * (1 + 1e-9)
        small = solution.positive & (solution.decrement[:, 0] <= tolerance * system.energy)
        good.append(small & lower)
    ends = (path[:, 0] == a).all(1) & (path[:, -1] == b).all(1)
    return torch.cat(good) & ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=200)
    asked = parser.parse_args()
    run = runs.Run.open(asked.run)
    model, dataset = run.model().requires_grad_(False), run.dataset()
    test = scored_rows(run, 2 * asked.pairs + asked.queries)
    test = test[vd.Key(0).permutation(len(test)).numpy()]
    z = model.encode(batch_of(run, model, dataset, test))
    a, b, queries = z[: asked.pairs], z[asked.pairs : 2 * asked.pairs], z[2 * asked.pairs :]
    train = run.split().train[:SEARCHED]
    around = model.encode(batch_of(run, model, dataset, train))
    f, exact = geometry.embedding(model), geometry.embedding(copy.deepcopy(model).double()).looked_at(z.double())
    graph = geometry.Graph.build(f, around[:GRAPH_ROWS]) if z.shape[1] <= GRAPH_LATENTS else None
    print(f"{asked.run}: {z.shape[1]} latents, {asked.pairs} random pairs of test rows; {f.name}; "
          f"torch {torch.__version__}, {torch.get_num_threads()} threads")  # fmt: skip
    for tolerance, count in ((1e-3, asked.pairs), (1e-6, min(STRICT, asked.pairs))):
        start = time.perf_counter()
        found = geometry.geodesic(f, a[:count], b[:count], graph=graph, tolerance=tolerance)
        seconds = time.perf_counter() - start
        good = recheck(exact, found.path, a[:count], b[:count], tolerance).double().mean()
        print(f"  tolerance {tolerance:g}, {count} pairs: converged {found.converged.double().mean():.1%}, rechecked "
              f"{good:.1%}, {1e3 * seconds / count:.1f} ms per pair")  # fmt: skip
        if tolerance == 1e-3:
            line = geometry.length(f, curves.straight(a, b, 64))
            share = torch.tensor([0.5, 0.95], dtype=torch.float64)
            middle, high = (found.error / found.length).quantile(share)
            ratio, chord = (found.length / line).median(), (found.chord / found.length).median()
            print(f"    by graph {found.by_graph.double().mean():.1%}; medians: length / straight line's {ratio:.3f}, "
                  f"chord / length {chord:.2f}, error / length {middle:.1e} (95 %: {high:.1e})")  # fmt: skip
    matrix = geometry.distances(f, z[:TRIANGLES])
    worse, of = matrix.violations()
    print(f"  distances among {TRIANGLES} test rows: {worse} of {of} pairs are more than 1 % longer than a way over "
          f"a third row (paths that are no shortest ones); converged {matrix.converged_share:.1%}")  # fmt: skip
    labels = dataset.labels
    if labels is None or not asked.queries:
        return
    start = time.perf_counter()
    near = geometry.nearest(f, queries, around, among=AMONG, graph=graph)
    seconds = time.perf_counter() - start
    truth = labels[test[2 * asked.pairs :]]
    right = {
        name: labels[train[index[:, 0].numpy()]] == truth
        for name, index in (("geodesic", near.index), ("Euclidean", near.euclidean))
    }
    either = int((right["geodesic"] != right["Euclidean"]).sum())
    shares = ", ".join(f"{hits.mean():.1%} {name}" for name, hits in right.items())
    print(f"  nearest neighbour of {asked.queries} test rows, the {AMONG} Euclidean-nearest of {len(train):,} training "
          f"rows measured: label right {shares}; they differ on {either}; converged "
          f"{near.converged.double().mean():.1%}; {1e3 * seconds / asked.queries:.0f} ms per query")  # fmt: skip


if __name__ == "__main__":
    main()
