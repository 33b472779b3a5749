"""One row, or some: what it is, what q says of it, what is near it."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelid import runs
from vaelid.distributions import Normal
from vaelid.evidence import importance
from vaelid.model import Problem, evaluating
from vaelid.random import Key
from vaelid.studio.planes import Plane
from vaelid.studio.subject import Subject
from vaelid.transports import FullNormal

NEIGHBOURS = 8
DRAWS = 512  # from a q whose covariance has no closed form
SAMPLES = 64  # from q for the terms of the ELBO
_BLOCK = 1 << 22  # cells of data compared at once
_KEY = Key(0).fold("studio")


def row(subject: Subject, plane: Plane, number: int) -> dict[str, Any]:
    """All that is known of a row at once; see `vaelid.studio.Desk.row`."""
    place = int(subject.places([number])[0])
    batch = subject.batch(np.array([place]))
    with torch.no_grad(), evaluating(subject.model):
        problem = subject.model.given(batch)
        z = problem.centre
        covariance, exact = spread(problem)
    at = z.double().cpu().numpy()
    sd = covariance[0].diagonal().clamp_min(0).sqrt().tolist()
    terms = importance(subject.model, batch, SAMPLES, _KEY.fold("row"))
    shown, again = subject.shown(_visible(batch.x, batch.mask)), subject.shown(subject.expected(z, batch.context))
    form = "tiles" if subject.picture else "values"
    context = runs.context_of(subject.run, subject.data, np.array([place]))
    missing = None if batch.mask is None else (~batch.mask[0]).flatten().tolist()
    return {
        "row": number,
        "z": at[0].tolist(),
        "sd": sd,
        "sd_exact": exact,
        "point": plane.feet(at)[0].tolist(),
        "ellipse": _axes(plane, covariance)[0],
        "far": float(subject.latents.near.distance(at)[0]),
        "x": shown[form][0],
        "reconstruction": again[form][0],
        "names": [] if subject.picture else subject.features,
        "missing": missing if missing and any(missing) else None,
        "label": subject.label(place),
        "split": ("train", "validation", "test", "none")[subject.part[place]],
        "context": runs.context_in_words(subject.data, None if context is None else context[0]),
        "elbo": float(terms.elbo[0]),
        "log_likelihood": float(terms.reconstruction[0]),
        "kl": float(terms.rate[0]),
        "kl_cells": None if terms.kl is None else terms.kl[0].tolist(),
        "samples": SAMPLES,
        "neighbours": {"latent": _near_latent(subject, at, place), "data": _near_data(subject, place)},
    }


def thumbnails(subject: Subject, numbers: list[int]) -> dict[str, Any]:
    """Rows as they are shown: ``tiles`` (n, h, w, c), or ``values`` (n, features)."""
    batch = subject.batch(subject.places(numbers))
    return subject.shown(_visible(batch.x, batch.mask))


def ellipses(subject: Subject, plane: Plane, numbers: list[int]) -> dict[str, Any]:
    """One standard deviation of q(z|x) in the plane: ``centre`` (n, 2), and ``axes`` (n, 2, 2) with axes as columns."""
    with torch.no_grad(), evaluating(subject.model):
        problem = subject.model.given(subject.batch(subject.places(numbers)))
        z, (covariance, exact) = problem.centre, spread(problem)
    return {
        "centre": plane.feet(z.double().cpu().numpy()).astype(np.float32),
        "axes": _axes(plane, covariance),
        "approximate": not exact,
    }


def table(subject: Subject, numbers: list[int]) -> dict[str, Any]:
    """Row numbers, latent means and labels of rows that are shown, as CSV.

    Rows that are not among those shown are encoded as well.
    """
    places = subject.places(numbers)
    z = subject.means(places)
    labels, name = subject.data.labels, subject.data.label_name or "label"
    columns = ["row", *(f"z{axis}" for axis in range(z.shape[1])), *([] if labels is None else [name])]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    digits = ".9g" if subject.model.dtype == torch.float32 else ".17g"
    for number, place, at in zip(numbers, places, z.tolist(), strict=True):
        cells = [format(value, digits) for value in at]
        writer.writerow([number, *cells, *([] if labels is None else [labels[place].item()])])
    return {"columns": columns, "csv": file.getvalue()}


def spread(problem: Problem) -> tuple[Tensor, bool]:
    """Covariance of q of every row, (n, d, d), float64, and whether it is exact; else it is that of `DRAWS` draws."""
    q: Any = problem.start
    if isinstance(q, Normal):
        scale = q.scale.expand(problem.batch.rows, -1).double()
        return torch.diag_embed(scale.square()).cpu(), True
    if isinstance(q, FullNormal):
        scale = q.scale_tril.double()
        return (scale @ scale.mT).cpu(), True
    z = q.push(problem.noise(_KEY.fold("spread"), DRAWS))[0].double()
    apart = z - z.mean(0)
    return (torch.einsum("sni,snj->nij", apart, apart) / (DRAWS - 1)).cpu(), False


def _axes(plane: Plane, covariance: Tensor) -> np.ndarray:
    """Semi-axes of ellipses of one standard deviation in the plane, as columns, (n, 2, 2), float32."""
    within = plane.axes @ covariance.numpy() @ plane.axes.T
    if len(plane.axes) == 1:
        found = np.zeros((len(within), 2, 2), np.float32)
        found[:, 0, 0] = np.sqrt(within[:, 0, 0])
        return found
    values, vectors = np.linalg.eigh(within)
    axes: np.ndarray = vectors * np.sqrt(np.clip(values, 0, None))[:, None, :]
    return axes[:, :, ::-1].astype(np.float32)  # the long axis first


def _visible(x: Tensor, mask: Tensor | None) -> Tensor:
    """Rows with cells that were not observed as NaN."""
    return x.float() if mask is None else torch.where(mask, x.float(), math.nan)


def _listed(subject: Subject, places: np.ndarray, distances: np.ndarray) -> list[dict[str, Any]]:
    ids = subject.data.row_id
    return [
        {"row": int(ids[place]), "distance": float(distance), "label": subject.label(int(place))}
        for place, distance in zip(places, distances, strict=True)
    ][:NEIGHBOURS]


def _near_latent(subject: Subject, at: np.ndarray, place: int) -> list[dict[str, Any]]:
    """The nearest rows shown, by the distance of latent means."""
    distances, found = subject.latents.near.neighbours(at, NEIGHBOURS + 1)
    places = subject.latents.index[found[0]]
    other = places != place
    return _listed(subject, places[other], distances[0][other])


def _near_data(subject: Subject, place: int) -> list[dict[str, Any]]:
    """The nearest rows shown, by the Euclidean distance of x; of a table's columns in their standard deviations.

    Where cells are missing in either row, the others count for them.
    """
    data, index = subject.data, subject.latents.index
    flat = data.x.reshape(data.rows, -1)
    scale = np.ones(flat.shape[1], np.float32)
    mask = None if subject.rows is None or subject.rows.batch.mask is None else subject.rows.batch.mask
    seen = None if mask is None else mask.numpy(force=True).reshape(flat.shape)
    if not subject.picture:
        some = flat[index].astype(np.float64)
        sd = some.std(0) if seen is None else np.ma.array(some, mask=~seen[index]).std(0).filled(0)
        scale = np.where(sd > 0, 1 / np.where(sd > 0, sd, 1), 1).astype(np.float32)
    step = max(1, _BLOCK // flat.shape[1])
    parts = []
    for first in range(0, len(index), step):
        places = index[first : first + step]
        square = np.square((flat[places].astype(np.float32) - flat[place].astype(np.float32)) * scale)
        if seen is None:
            parts.append(square.sum(1))
        else:
            both = seen[places] & seen[place]
            count = np.maximum(both.sum(1), 1)
            mean = np.where(both, square, 0).sum(1) / count * flat.shape[1]
            parts.append(np.where(both.any(1), mean, np.inf))
    distances = np.sqrt(np.concatenate(parts))
    distances[index == place] = np.inf
    nearest = np.argsort(distances, kind="stable")[:NEIGHBOURS]
    nearest = nearest[np.isfinite(distances[nearest])]
    return _listed(subject, index[nearest], distances[nearest])
