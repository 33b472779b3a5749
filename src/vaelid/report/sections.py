"""The sections of the page: each takes the `Material` of a run and gives figures, tables and one line on each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from vaelid import runs
from vaelid.diagnostics import ACTIVE
from vaelid.priors import StandardNormal
from vaelid.random import Key
from vaelid.report import answers, figures, pictures
from vaelid.report.charts import Principal
from vaelid.report.evidence import evidence
from vaelid.report.geometry import latent_geometry
from vaelid.report.material import Material, Section, Shown, Table
from vaelid.report.style import short
from vaelid.report.words import rounded

FEATURES = 12  # of a table, at most
_LINES = 6
_PAIRS = 6
_IMAGES = 36
_CLASSES = 12
_DRAWS = 500
_KEY = Key(0).fold("report")


def training(material: Material) -> Section:
    """Terms over time."""
    curves, title = material.curves, "Training"
    if not len(curves.epoch):
        return Section(title, ["No epoch was recorded."])
    plateau = material.run.config.training.schedule == "plateau"
    objective = material.run.config.objective
    bounds = {"elbo": "ELBO", "iwae": f"importance-weighted bound, K = {objective.samples}"}
    bound = bounds.get(objective.name, "of the run's own objective")
    rate = "" if plateau else " The learning rate falls along a cosine."
    return Section(
        title,
        figures=[
            Shown(
                figures.terms(curves, mark_drops=plateau),
                f"The bound ({bound}) should rise and level off; validation falling away from train is "
                f"overfitting.{rate} Training means are taken while the weights move; early epochs may lie outside "
                "the frame.",
            )
        ],
    )


def plane(material: Material) -> Section:
    """Rate against distortion."""
    scores = material.evaluation
    return Section(
        "Rate and distortion",
        figures=[
            Shown(
                figures.plane(material.curves, scores.rate.value, scores.distortion.value),
                "Down is better reconstruction, left is a cheaper code; along a dashed line the ELBO stays the same.",
            )
        ],
    )


def dimensions(material: Material) -> Section:
    """KL per dimension."""
    title, kl = "KL per latent dimension", material.evaluation.kl_per_dimension
    if kl is None:
        return Section(title, ["There is no closed form of the KL per dimension between this posterior and prior."])
    shown = figures.SHOWN_DIMENSIONS
    more = f" The {shown} largest of {len(kl)} are shown." if len(kl) > shown else ""
    return Section(
        title,
        figures=[
            Shown(
                figures.kl_bars(np.array(kl), material.active),
                f"What each dimension says about x, in nats; active where the posterior mean has variance above "
                f"{ACTIVE} over test rows.{more}",
            )
        ],
    )


def reconstructions(material: Material) -> Section:
    """Best, median and worst rows."""
    elbo = np.nan_to_num(material.evaluation.per_row.elbo.cpu().numpy(), nan=-np.inf)
    order, image = np.argsort(-elbo, kind="stable"), material.dataset.kind == "image"
    count = min(_PAIRS if image else 1, max(1, len(order) // 3))
    middle = (len(order) - count) // 2
    groups = {"best": order[:count], "median": order[middle : middle + count], "worst": order[-count:]}
    found = {}
    for name, rows in groups.items():
        batch = runs.batch_of(material.run, material.model, material.dataset, material.index[rows])
        z = material.evaluation.per_row.centre[torch.from_numpy(rows)]
        found[name] = answers.reconstruct(material.model, batch, z)
    title = "Reconstructions"
    if image:
        picture = pictures.reconstructions(
            [
                (name, material.look.colours(seen.x), material.look.colours(seen.expected), elbo[groups[name]])
                for name, seen in found.items()
            ]
        )
        return Section(
            title,
            figures=[
                Shown(
                    picture,
                    f"Pairs: a test row left, its reconstruction ({material.look.expected} at the latent mean) right; "
                    "above each pair its ELBO, nats.",
                )
            ],
        )
    tables = [_compared(material, name, elbo[groups[name][0]], groups[name][0], seen) for name, seen in found.items()]
    return Section(
        title,
        [
            f"The test rows with the best, median and worst ELBO, and {material.look.expected} at the latent mean; "
            "features most off first, “off” being (x − reconstruction) in standard deviations of p(x|z)."
        ],
        tables=tables,
    )


def _compared(material: Material, name: str, elbo: float, row: int, seen: answers.Reconstructions) -> Table:
    x, expected, deviation = (part[0].reshape(-1) for part in seen)
    _, spread = material.look.spread()
    off = (x - expected) / np.maximum(deviation, 1e-30)
    worst = np.argsort(-np.nan_to_num(np.abs(off), nan=-1.0), kind="stable")[:FEATURES]
    number = material.dataset.row_id[material.index[row]]
    return Table(
        f"{name}: row {number}, ELBO {rounded(elbo, 1.0)}",
        ["feature", "x", "recon.", "off"],
        [
            [
                short(material.look.features[cell], 18),
                rounded(x[cell], material.look.grain(spread[cell])),
                rounded(expected[cell], spread[cell]),
                rounded(off[cell], 1.0),
            ]
            for cell in worst
        ],
    )


def samples(material: Material) -> Section:
    """New rows from the prior."""
    title, image, classes = "Samples from the prior", material.dataset.kind == "image", material.look.classes
    count, names = _IMAGES if image else _DRAWS, None
    device = material.model.device
    numbers = torch.arange(count, device=device)
    context = material.look.context(np.arange(count) % len(material.index))
    given = "" if context is None else " Covariates are those of test rows."
    if image and classes is not None and classes.size <= _CLASSES:
        names, across = [str(category) for category in classes.categories], pictures.ACROSS
        numbers = torch.arange(across, device=device).repeat(classes.size)
        context = torch.eye(classes.size, device=device, dtype=material.model.dtype).repeat_interleave(across, 0)
        given = f" Each row is given one {classes.name}, beside it; each column has the same z."
    means, draws = answers.prior_samples(material.model, numbers, _KEY.fold("samples"), context)
    if image:
        return Section(
            title,
            figures=[
                Shown(
                    pictures.samples(material.look.colours(means), material.look.colours(draws), names),
                    "New images: left what the decoder expects for z ~ p(z), right draws for the same z, with their "
                    f"noise.{given}",
                )
            ],
        )
    mean, deviation = material.look.spread()
    drawn = draws.reshape(count, -1).astype(np.float64)
    head = ["feature", "test mean", "test sd", "samples’ mean", "samples’ sd", "draw 1", "draw 2", "draw 3", "draw 4"]
    rows = [
        [
            short(name),
            *_alike((mean[cell], deviation[cell], drawn[:, cell].mean(), drawn[:, cell].std()), deviation[cell]),
            *_alike(drawn[:4, cell], material.look.grain(deviation[cell])),
        ]
        for cell, name in enumerate(material.look.features[:FEATURES])
    ]
    which = (
        f"the first {FEATURES} of {len(material.look.features)} features; "
        if len(material.look.features) > FEATURES
        else ""
    )
    return Section(
        title,
        tables=[
            Table(
                f"Test rows against {count} draws from the model: {which}means and deviations should agree.{given}",
                head,
                rows,
            )
        ],
    )


def latent_map(material: Material) -> Section:
    """The latent means in two dimensions."""
    title, usable = "Map of the latent means", np.isfinite(material.centre).all(1)
    z, size = material.centre[usable], material.model.prior.latent
    if len(z) < 3:
        return Section(title, [f"{len(z)} test rows are too few for a map."])
    labels = material.dataset.labels
    labels = None if labels is None else np.asarray(labels)[material.index][usable]
    names, origin, how = tuple(f"z{dimension}" for dimension in range(size)), np.zeros(2), "latent means"
    if size > 2:
        plane = Principal.of(z)
        z, origin, names = plane(z), plane(np.zeros((1, size)))[0], plane.names
        share = plane.shares.sum()
        how = f"the first two principal components of {size} latent dimensions ({share:.0%} of the variance)"
    normal = size > 1 and isinstance(material.model.prior, StandardNormal)
    circle = " The dashed circle holds 86% of the prior." if normal else ""
    name = material.dataset.label_name or "label"
    seen = material.dataset.covariates is not None and name in material.dataset.covariates.names
    coloured = "" if labels is None else f", by {name}, which the model {'is given' if seen else 'never saw'}"
    circle_at = (float(origin[0]), float(origin[1])) if normal else None
    picture = figures.latent_map(z, names, labels, name, circle_at, _KEY.fold("map"))
    return Section(title, figures=[Shown(picture, f"Each point a test row: {how}{coloured}.{circle}")])


def traversals(material: Material) -> Section:
    """What each dimension does."""
    title, use = "Traversals", material.use
    chosen = np.argsort(-use, kind="stable")[: answers.TRAVERSED]
    moved = answers.traverse(material.model, chosen, material.look.typical())
    unit = "" if material.evaluation.kl_per_dimension is None else " nats"
    names = [f"z{dimension} ({use[dimension]:.2f}{unit})" for dimension in chosen]
    most = f"The {len(chosen)} most used of {len(use)} dimensions" if len(use) > len(chosen) else "Each dimension"
    held = f", given {material.look.held}" if material.look.held else ""
    how = f"{most} from −2.5 to 2.5 standard deviations of the prior, the others at its mean{held}"
    if material.dataset.kind == "image":
        pixels = material.look.colours(moved.reshape(-1, *moved.shape[2:]))
        pixels = pixels.reshape(*moved.shape[:2], *pixels.shape[1:])
        return Section(
            title,
            figures=[
                Shown(
                    pictures.traversal_images(pixels, answers.STEPS, names),
                    f"{how}: a row whose tiles look alike is not used.",
                )
            ],
        )
    mean, deviation = material.look.spread()
    lines = (moved.reshape(*moved.shape[:2], -1) - mean) / np.where(deviation > 0, deviation, 1.0)
    effect = np.nan_to_num(np.ptp(lines, axis=1).max(0), nan=-1.0)
    features = np.argsort(-effect, kind="stable")[:_LINES]
    shown = [material.look.features[cell] for cell in features]
    return Section(
        title,
        figures=[
            Shown(
                pictures.traversal_lines(lines[..., features], answers.STEPS, names, shown),
                f"{how}: {material.look.expected} of the features that change most, in standard deviations over test "
                "rows.",
            )
        ],
    )


SECTIONS: tuple[Callable[[Material], Section | None], ...] = (
    training,
    plane,
    evidence,
    dimensions,
    reconstructions,
    samples,
    latent_map,
    latent_geometry,
    traversals,
)


def _alike(values: Iterable[float], spread: float) -> list[str]:
    return [rounded(value, spread) for value in values]
