"""What the figures are computed from: the reader's run, a companion of it, or the model that comes along."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from vaelid.errors import InputError, RunError
from vaelid.lesson.companion import companion, latent_of
from vaelid.runs import SCORING, Run
from vaelid.serving import Progress
from vaelid.studio import Subject
from vaelid.studio.subject import named

OFFERED = 40  # rows to choose from
MODEL = Path(__file__).parent / "model"


@final
@dataclass(frozen=True, eq=False)
class Lesson:
    """A model with two latents, and where it comes from.

    Attributes:
        subject: the model with its rows, as the studio opens it.
        source: the run whose data companions are trained on.
        companion: whether the model is a companion of it.
        said: what the reader is told about all this; empty where the model is their own run.
    """

    subject: Subject
    source: Run
    companion: bool
    said: str

    @classmethod
    def of(cls, path: Path | None, device: str | None, progress: Progress) -> Self:
        """The model for a reader's run, or for none; trains a companion where the run has no plane.

        A run whose data are gone, or that no companion can be made for, gives way to the model that comes along. A run
        of two latents is moved to ``device``; companions stay on the CPU.

        Raises:
            InputError: the folder is no whole run.
            Cancelled: nobody waits for it any more.
        """
        if path is None:
            return cls(Subject.open(MODEL), Run.open(MODEL), False, "The model of digits that comes with vaelid.")
        run = Run.open(path)
        try:
            if latent_of(run) == 2:
                subject = Subject.open(path, device)
                if subject.dataset is None:
                    raise InputError(subject.gone)
                given = f"The model is given the context of each row; in the plane, {subject.words}." * bool(
                    subject.words
                )
                return cls(subject, run, False, given)
            trained = companion(run, 1.0, progress)
            return cls(Subject.open(trained.run.path), run, True, trained.said)
        except (InputError, RunError) as error:
            why = str(error).splitlines()[0].rstrip(".")
            said = f"{run.path.name} cannot be shown ({why}): this is the model of digits that comes with vaelid."
            return cls(Subject.open(MODEL), Run.open(MODEL), False, said)

    def about(self) -> dict[str, Any]:
        """The same in words and numbers; see `vaelid.lesson.Desk.subject`."""
        subject, model = self.subject, self.subject.model
        boxes = {"p(z)": model.prior, "p(x|z)": model.likelihood, "q(z|x)": model.posterior}
        return {
            "model": ", ".join(f"{sign} {named(box)}" for sign, box in boxes.items()),
            "companion": self.companion,
            "said": self.said,
            "latent": 2,
            "kind": subject.kind,
            "shape": subject.shape,
            "features": None if subject.picture else subject.features,
            "label": None if subject.data.labels is None else subject.data.label_name or "label",
            "rows": [[int(subject.data.row_id[place]), subject.label(place)] for place in self.offered()],
            "run": None if self.source.path == MODEL else str(self.source.path),
        }

    def offered(self) -> list[int]:
        """Places of `OFFERED` held-out rows at most, taken from every label in turn."""
        split, labels = self.subject.run.split(), self.subject.data.labels
        held = split.test if len(split.test) else split.validation
        order = held[SCORING.fold("lesson").permutation(len(held)).numpy()]
        if labels is None:
            return [int(place) for place in order[:OFFERED]]
        kinds, codes = np.unique(np.asarray(labels)[order], return_inverse=True)
        turn = np.empty(len(order), np.int64)  # a row's number among those of its label
        for code in range(len(kinds)):
            turn[codes == code] = np.arange((codes == code).sum())
        return [int(place) for place in order[np.lexsort((codes, turn))][:OFFERED]]
