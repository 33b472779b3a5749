"""The lesson's desk: what its page may ask, about one model with two latents."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from vaelid import studio
from vaelid.errors import InputError
from vaelid.lesson import approximation as _approximation
from vaelid.lesson import belief as _belief
from vaelid.lesson import betas as _betas
from vaelid.lesson import gradients as _gradients
from vaelid.lesson import text
from vaelid.lesson.datum import Datum
from vaelid.lesson.ellipse import Ellipse
from vaelid.lesson.subject import Lesson
from vaelid.serving import Progress, job, op
from vaelid.studio.desk import Few, Frame, Point, Side, View
from vaelid.studio.planes import Kind

Spread = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)]
Cells = Annotated[int, Field(ge=8, le=200)]
Draws = Annotated[int, Field(ge=2, le=20_000)]
Rows = Annotated[list[int], Field(min_length=1, max_length=64)]

_KEPT = 16  # rows whose integrals are remembered


@final
@dataclass(frozen=True, eq=False)
class _Row:
    """A row before the model, with what takes a while to find out about it."""

    datum: Datum

    @functools.cached_property
    def encoder(self) -> dict[str, Any]:
        return _approximation.encoder(self.datum)

    @functools.cached_property
    def best(self) -> dict[str, Any]:
        q, kl, error = _approximation.best(self.datum)
        return q.as_dict() | {"kl": kl, "kl_error": error}


@final
class Desk:
    """Answers about the reader's run if it has two latents, else about a companion of it (`subject` says which).

    What is said of the plane (`plane`, `drag`, `lattice` …) is said by a `vaelid.studio.Desk` that looks at the model.

    Args:
        runs: the reader's run, the first of them; none for the model that comes along.
        device: where a run of two latents is looked at; by default where it was trained.
    """

    def __init__(self, runs: Sequence[Path | str] = (), device: str | None = None) -> None:
        self._path, self._device = (Path(runs[0]) if runs else None), device
        self._studio = studio.Desk([])
        self._lesson: Lesson | None = None
        self._rows: OrderedDict[int, _Row] = OrderedDict()

    def close(self) -> None:
        """Let go of the model."""
        self._lesson = None
        self._rows.clear()
        self._studio.close()

    # -- text and model ------------------------------------------------------------------------------------------

    @op
    def lessons(self) -> dict[str, Any]:
        """All lessons, one line each."""
        return text.lessons()

    @op
    def lesson(self, id: str) -> dict[str, Any]:  # noqa: A002
        """A lesson's sentences, and when each is spoken.

        Raises:
            InputError: there is none of that name.
        """
        return text.lesson(id)

    @job
    def subject(self, *, progress: Progress) -> dict[str, Any]:
        """Find the model that the figures are computed from, training a companion where the run has no plane.

        Partial results are ``{beta, epoch, epochs, elbo}`` of that training.

        Raises:
            InputError: the run is no whole run.
        """
        if self._lesson is None:
            found = Lesson.of(self._path, self._device, progress)
            self._rows.clear()
            self._studio.look(View.of(found.subject))
            self._lesson = found
        return self._lesson.about()

    @property
    def _open(self) -> Lesson:
        if self._lesson is None:
            raise InputError("no model is open", "one", "ask for the subject first")
        return self._lesson

    def _row(self, number: int) -> _Row:
        subject = self._open.subject
        if number not in self._rows:
            self._rows[number] = _Row(Datum.of(subject.model, subject.batch(subject.places([number]))))
            while len(self._rows) > _KEPT:
                self._rows.popitem(last=False)
        self._rows.move_to_end(number)
        return self._rows[number]

    def _shown(self, x: Tensor) -> np.ndarray:
        """A row (1, *event) as a browser takes it."""
        (cells,) = self._open.subject.shown(x).values()
        found: np.ndarray = cells[0]
        return found

    # -- figures -------------------------------------------------------------------------------------------------

    @op
    def belief(self, row: int, side: Cells = 100, frame: Frame | None = None) -> dict[str, Any]:
        """Figure 1: prior, likelihood and posterior as maps, log p(x) by quadrature, and the row itself."""
        datum, subject = self._row(row).datum, self._open.subject
        x, mask = datum.batch.x.float(), datum.batch.mask
        z = torch.tensor([datum.q.mean]).to(subject.model.device, subject.model.dtype)
        return _belief.belief(datum, side, frame) | {
            "row": row,
            "x": self._shown(x if mask is None else torch.where(mask, x, torch.nan)),
            "reconstruction": self._shown(subject.expected(z, datum.batch.context)),
        }

    @op
    def approximation(self, row: int, mean: Point, sd: Spread, angle: float) -> dict[str, Any]:
        """Figure 2: KL(q ‖ p(z|x)) of an ellipse, beside that of the model's own q and of the best normal."""
        found = self._row(row)
        q = Ellipse.of(mean, sd, angle)
        return _approximation.approximation(found.datum, q) | {"encoder": found.encoder, "best": found.best}

    @op
    def bar(self, row: int, mean: Point, sd: Spread, angle: float) -> dict[str, Any]:
        """Figure 3: log p(x) = KL + ELBO, each by its own nodes."""
        return _approximation.bar(self._row(row).datum, Ellipse.of(mean, sd, angle))

    @job
    def bracket(self, row: int, *, progress: Progress) -> dict[str, Any]:
        """Figure 3: log p(x) between sides that come closer; see `vaelid.studio.Desk.evidence`."""
        return self._studio.evidence(row, progress=progress)

    @job
    def betas(self, *, progress: Progress) -> dict[str, Any]:
        """Figure 4: rate and distortion of one companion for each β.

        Partial results are ``{beta, epoch, epochs, elbo}`` of a training, and ``{point: …}`` when it has ended.
        """
        found = self._open
        return _betas.betas(found.source, progress, found.subject.shown)

    @op
    def gradients(self, row: int, eps: Point, samples: Draws = 1000) -> dict[str, Any]:
        """Figure 5: z = m + s ⊙ ε, and the gradient by m₁ estimated in two ways from the same noise."""
        datum, subject = self._row(row).datum, self._open.subject
        found = _gradients.gradients(datum, eps, samples)
        z = torch.tensor([found["z"]]).to(subject.model.device, subject.model.dtype)
        return found | {"row": row, "picture": self._shown(subject.expected(z, datum.batch.context))}

    # -- the plane -----------------------------------------------------------------------------------------------

    def drag(self, x: float, y: float) -> tuple[float, np.ndarray]:
        """Figure 6: how far off the data a point of the plane is, and what is decoded there."""
        return self._studio.drag(x, y)

    @op
    def plane(self, kind: Kind = "dims", i: int = 0, j: int = 1) -> dict[str, Any]:
        """Where the rows are in the plane; see `vaelid.studio.Desk.plane`."""
        return self._studio.plane(kind, i, j)

    @op
    def colour(self, column: str) -> dict[str, Any]:
        """A column of the rows in the plane; see `vaelid.studio.Desk.colour`."""
        return self._studio.colour(column)

    @op
    def cell(self, x: float, y: float) -> dict[str, Any]:
        """What is decoded at a point, in the data's own units; see `vaelid.studio.Desk.cell`."""
        return self._studio.cell(x, y)

    @op
    def lattice(self, frame: Frame, across: Side, down: Side) -> dict[str, Any]:
        """What is decoded over a frame; see `vaelid.studio.Desk.lattice`."""
        return self._studio.lattice(frame, across, down)

    @op
    def row(self, row: int) -> dict[str, Any]:
        """A row; see `vaelid.studio.Desk.row`."""
        return self._studio.row(row)

    @op
    def thumbnails(self, rows: Rows) -> dict[str, Any]:
        """Some rows as they are shown; see `vaelid.studio.Desk.thumbnails`."""
        return self._studio.thumbnails(rows)

    @op
    def sample(self, n: Few, seed: int = 0) -> dict[str, Any]:
        """New data from the prior; see `vaelid.studio.Desk.sample`."""
        return self._studio.sample(n, seed)

    @job
    def geodesic(self, a: Point | int, b: Point | int, *, progress: Progress) -> dict[str, Any]:
        """The shortest path between two points beside the straight line; see `vaelid.studio.Desk.geodesic`."""
        return self._studio.geodesic(a, b, progress=progress)
