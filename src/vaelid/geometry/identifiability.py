"""How far distances depend on the seed: the same pairs of rows in several trained models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from vaelid.errors import InputError
from vaelid.geometry.embedding import embedding
from vaelid.geometry.geodesic import geodesic
from vaelid.geometry.graph import Graph
from vaelid.geometry.manifold import Manifold
from vaelid.model import VAE


@final
@dataclass(frozen=True, eq=False)
class Identifiability:
    """Distances between P pairs of rows in M models that differ in their seed alone.

    Latent coordinates are arbitrary: another seed gives others. Distances under the decoder's metric do not depend on
    coordinates, so they vary between seeds only as far as the models do (Syrota et al. 2025).

    Attributes:
        geodesic: lengths of the paths found, (M, P).
        euclidean: Euclidean distances of the latent means, (M, P).
        converged: whether the searches converged, (M, P).
        metric: what is measured.
    """

    geodesic: Tensor
    euclidean: Tensor
    converged: Tensor
    metric: str

    @property
    def geodesic_variation(self) -> Tensor:
        """Coefficient of variation of each pair's geodesic distance over seeds, (P,)."""
        return self.geodesic.std(0) / self.geodesic.mean(0)

    @property
    def euclidean_variation(self) -> Tensor:
        """Coefficient of variation of each pair's Euclidean distance over seeds, (P,)."""
        return self.euclidean.std(0) / self.euclidean.mean(0)

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Quantiles of each pair's geodesic distance over seeds, linear between the M values, (P,) each."""
        ends = self.geodesic.new_tensor([0.5 - level / 2, 0.5 + level / 2])
        low, high = torch.quantile(self.geodesic, ends, dim=0)
        return low, high

    @property
    def t(self) -> float:
        """Student's t of the difference geodesic − Euclidean variation over pairs; negative: geodesics vary less.

        Pairs share rows and models, so they are not independent and t is descriptive.
        """
        difference = self.geodesic_variation - self.euclidean_variation
        if len(difference) < 2:
            return math.nan
        return float(difference.mean() / (difference.std() / len(difference) ** 0.5))

    def __str__(self) -> str:
        models, pairs = self.geodesic.shape
        geo, euclid = (float(v.mean()) for v in (self.geodesic_variation, self.euclidean_variation))
        return (
            f"{pairs:,} pairs in {models} models: coefficient of variation over seeds {geo:.3f} geodesic, "
            f"{euclid:.3f} Euclidean (mean over pairs, t = {self.t:.1f}); {self.metric}"
        )


def identifiability(
    models: Sequence[VAE],
    a: Any,
    b: Any,
    *,
    data: Any = None,
    metric: Callable[[VAE], Manifold] = embedding,
    **options: Any,
) -> Identifiability:
    """Distances between rows a and b (P, *event) in each of M models, geodesic and Euclidean.

    Args:
        models: models of the same data, trained with different seeds; two or more.
        a: rows of data.
        b: as many rows of data.
        data: rows over whose latent means a graph is laid in each model, for the starts of paths; none by default.
        metric: a model's geometry: `embedding`, `mean_embedding` or `moments_embedding`.
        options: further arguments of `geodesic`.

    Raises:
        InputError: fewer than two models, or what `geodesic` refuses.
    """
    if len(models) < 2:
        raise InputError(f"{len(models)} model{'s' * (not models)}", "two or more, trained with different seeds")
    lengths, flat, done, name = [], [], [], ""
    for model in models:
        f = metric(model)
        z, w = model.encode(a), model.encode(b)
        graph = None if data is None else Graph.build(f, model.encode(data))
        found = geodesic(f, z, w, graph=graph, **options)
        lengths.append(found.length.double().cpu())
        flat.append((z - w).norm(dim=1).double().cpu())
        done.append(found.converged.cpu())
        name = found.metric
    return Identifiability(torch.stack(lengths), torch.stack(flat), torch.stack(done), name)
