"""The studio's desk: what one browser tab may ask, about the run that it has open and the plane that it looks at."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, final

import numpy as np
from pydantic import Field

from vaelid import geometry
from vaelid.errors import InputError
from vaelid.geometry import Embedding, Graph
from vaelid.runs import Run
from vaelid.serving import Progress, job, op
from vaelid.studio import dimensions as _dimensions
from vaelid.studio import inference, maps, paths
from vaelid.studio import rows as _rows
from vaelid.studio.columns import Columns
from vaelid.studio.planes import Kind, Plane, offered
from vaelid.studio.subject import Subject, named
from vaelid.studio.waiting import cancellable

Point = Annotated[list[float], Field(min_length=2, max_length=2)]
Frame = Annotated[list[float], Field(min_length=4, max_length=4)]
Side = Annotated[int, Field(ge=1, le=24)]
Grid = Annotated[int, Field(ge=8, le=64)]
Fine = Annotated[int, Field(ge=8, le=400)]
Few = Annotated[int, Field(ge=1, le=64)]
Steps = Annotated[int, Field(ge=2, le=15)]
Dim = Annotated[int, Field(ge=0)]


@final
class View:
    """A run and a plane of its latent space, with what is made of both when it is first needed."""

    def __init__(self, subject: Subject, plane: Plane, columns: Columns | None = None) -> None:
        self.subject, self.plane = subject, plane
        self.columns = Columns(subject) if columns is None else columns
        self.pointer = maps.Pointer(subject, plane)

    def turned(self, plane: Plane) -> View:
        """The same run and another plane."""
        return View(self.subject, plane, self.columns)

    @classmethod
    def of(cls, subject: Subject) -> Self:
        """The plane to begin with."""
        return cls(subject, offered(subject.latents)[0])

    @functools.cached_property
    def points(self) -> np.ndarray:
        """Where the rows that are shown are in the plane, (n, 2), float32."""
        return self.plane.feet(self.subject.latents.z).astype(np.float32)

    @functools.cached_property
    def metric(self) -> Embedding:
        """The geometry of p(x|z) as a function of coordinates in the plane."""
        subject = self.subject
        f = geometry.embedding(subject.model, None if subject.context is None else subject.context[0])
        return self.plane.within(f, subject.latents.centre(subject.model))

    @functools.cached_property
    def graph(self) -> Graph | None:
        """A graph in the plane, where searches for paths begin."""
        return paths.graph_within(self.subject, self.plane, self.metric)


@final
class Desk:
    """Answers about some runs, one of which is open.

    Rows are named by their numbers in the source. A frame is x0, y0, x1, y1 in the plane; grids over a frame have their
    first row at y0. Images come as bytes (height, width, channels), rows of tables as float32 in the data's own units.

    Args:
        runs: the folders of the runs.
        device: where their models are put; None for where each was trained.
    """

    def __init__(self, runs: Sequence[Path | str], device: str | None = None) -> None:
        self._paths, self._device = [Path(run) for run in runs], device
        self._view: View | None = None

    def close(self) -> None:
        """Let go of what is open."""
        self._view = None

    @property
    def view(self) -> View:
        """What is looked at.

        Raises:
            InputError: no run is open.
        """
        if self._view is None:
            raise InputError("no run is open", "a run", "open one first")
        return self._view

    def look(self, view: View) -> None:
        """Look at a run that was opened elsewhere."""
        self._view = view

    # -- runs and planes -----------------------------------------------------------------------------------------

    @op
    def runs(self) -> dict[str, Any]:
        """The runs there are; one that cannot be opened says why."""
        return {"runs": [self._listed(index) for index in range(len(self._paths))]}

    @op
    def open(self, run: int) -> dict[str, Any]:
        """Open a run and say what it is; everything else is then about this one.

        Raises:
            InputError: there is no such run, or it cannot be read.
        """
        if not 0 <= run < len(self._paths):
            raise InputError(f"run {run}", f"one from 0 to {len(self._paths) - 1}")
        self._view = View.of(Subject.open(self._paths[run], self._device))
        return {"index": run, **self._about()}

    @op
    def plane(self, kind: Kind, i: Dim = 0, j: Dim = 1) -> dict[str, Any]:
        """Look at another plane; where the rows are in it.

        Raises:
            InputError: there is no such plane.
        """
        subject = self.view.subject
        view = self._view = self.view.turned(Plane.of(subject.latents, kind, i, j))
        ids = np.arange(0) if subject.dataset is None else subject.dataset.row_id[subject.latents.index]
        plane = view.plane
        return {
            "axes": list(plane.names),
            "slice": plane.sliced,
            "said": plane.said,
            "frame": plane.frame(view.points),
            "points": view.points,
            "rows": ids.astype(np.int32),
        }

    @op
    def colour(self, column: str) -> dict[str, Any]:
        """A column of the rows that are shown, in the order of `plane`'s points."""
        return self.view.columns.colour(column)

    # -- the map -------------------------------------------------------------------------------------------------

    def drag(self, x: float, y: float) -> tuple[float, np.ndarray]:
        """How far off the data a point of the plane is, and what is decoded there.

        Far is the distance of z to the nearest latent mean, in all dimensions, over the 99th percentile of that
        distance among the rows themselves: above 1 is off the data. NaN where there are no rows.
        """
        return self.view.pointer(x, y)

    @op
    def cell(self, x: float, y: float) -> dict[str, Any]:
        """What is decoded at a point, in the data's own units, and z there."""
        return maps.cell(self.view.subject, self.view.plane, x, y)

    @op
    def lattice(self, frame: Frame, across: Side, down: Side) -> dict[str, Any]:
        """What is decoded at the middles of a frame's cells, and how far off the data each is."""
        return maps.lattice(self.view.subject, self.view.plane, frame, across, down)

    @job
    def volume(self, frame: Frame, side: Grid = 32, *, progress: Progress) -> dict[str, Any]:
        """log √det G of the plane over a frame."""
        view = self.view
        metric = view.metric  # not to be cut short: what it is tried for settles how it works
        with cancellable(progress):
            return maps.volume(view.subject, view.plane, metric, frame, side, progress)

    # -- rows ----------------------------------------------------------------------------------------------------

    @op
    def row(self, row: int) -> dict[str, Any]:
        """A row: what it is, q(z|x), its reconstruction, the terms of its ELBO, and the rows nearest to it."""
        return _rows.row(self.view.subject, self.view.plane, row)

    @op
    def thumbnails(self, rows: Annotated[list[int], Field(min_length=1, max_length=64)]) -> dict[str, Any]:
        """Some rows as they are shown."""
        return _rows.thumbnails(self.view.subject, rows)

    @op
    def ellipses(self, rows: Annotated[list[int], Field(min_length=1, max_length=500)]) -> dict[str, Any]:
        """One standard deviation of q(z|x) of some rows in the plane."""
        return _rows.ellipses(self.view.subject, self.view.plane, rows)

    @op
    def table(self, rows: Annotated[list[int], Field(min_length=1, max_length=100_000)]) -> dict[str, Any]:
        """Some rows' numbers, latent means and labels as CSV."""
        return _rows.table(self.view.subject, rows)

    # -- inference and geometry ----------------------------------------------------------------------------------

    @job
    def posterior(
        self, row: int, frame: Frame | None = None, side: Fine = 120, *, progress: Progress
    ) -> dict[str, Any]:
        """p(z|x) of a row: on a grid where there are two latents, else draws."""
        view = self.view
        with cancellable(progress):
            if view.plane.size == 2:
                return inference.grid(view.subject, view.plane, row, frame, side)
            return inference.samples(view.subject, view.plane, row)

    @job
    def evidence(self, row: int, *, progress: Progress) -> dict[str, Any]:
        """log p(x) of a row between sides that come closer, round by round, and the terms of its ELBO."""
        with cancellable(progress):
            return inference.evidence(self.view.subject, row, progress)

    @job
    def geodesic(self, a: Point | int, b: Point | int, *, progress: Progress) -> dict[str, Any]:
        """The shortest path found between two points of the plane or rows, beside the straight line."""
        view = self.view
        metric = view.metric  # see `volume`
        with cancellable(progress):
            return paths.geodesic(view.subject, view.plane, metric, view.graph, a, b)

    # -- dimensions and new data ---------------------------------------------------------------------------------

    @op
    def dimensions(self) -> dict[str, Any]:
        """How much each latent dimension is used."""
        return _dimensions.dimensions(self.view.subject)

    @op
    def traversal(self, dim: Dim, row: int | None = None, steps: Steps = 11) -> dict[str, Any]:
        """What is decoded while one dimension moves."""
        return _dimensions.traversal(self.view.subject, dim, row, steps)

    @op
    def sample(self, n: Few, seed: int = 0) -> dict[str, Any]:
        """New data: z ~ p(z), and what is decoded there."""
        return _dimensions.sample(self.view.subject, self.view.plane, n, seed)

    # -- what runs are -------------------------------------------------------------------------------------------

    def _listed(self, index: int) -> dict[str, Any]:
        path = self._paths[index]
        found = {"index": index, "name": path.name, "path": str(path), "ok": True, "error": ""}
        try:
            run = Run.open(path)
            if not run.model_file.exists():
                run.model()  # says so
        except InputError as error:
            return found | {"ok": False, "error": str(error)}
        return found

    def _about(self) -> dict[str, Any]:
        subject = self.view.subject
        latents, dataset, model = subject.latents, subject.dataset, subject.model
        total, shown = (0 if dataset is None else dataset.rows), len(latents.index)
        by = "" if dataset is None or dataset.labels is None else f" stratified by {dataset.label_name or 'label'}"
        return {
            "name": subject.run.path.name,
            "path": str(subject.run.path),
            "kind": subject.kind,
            "shape": subject.shape,
            "features": None if subject.picture else subject.features,
            "latent": latents.size,
            "rows": total,
            "shown": shown,
            "sample": None if shown == total else f"{shown:,} of {total:,} rows, a sample{by}",
            "gone": subject.gone,
            "likelihood": named(model.likelihood),
            "prior": named(model.prior),
            "posterior": named(model.posterior),
            "expected": subject.answer,
            "context": subject.words,
            "columns": self.view.columns.listed(),
            "active": latents.active.tolist(),
            "kl": None if latents.cells is None else latents.cells[0].tolist(),
            "label": None if dataset is None or dataset.labels is None else dataset.label_name or "label",
            "planes": [plane.about() for plane in offered(latents)],
        }
