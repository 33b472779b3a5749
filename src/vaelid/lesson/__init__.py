"""Lesson: Bayesian inference and the VAE told over a run, as methods of a `Desk`; it owns words and figures.

`MODEL` is the run that a reader without one of their own looks at: two latents, the built-in digits, counts out of 16
per pixel. ``python web/lesson_model.py`` made it; that script holds the command.
"""

from vaelid.lesson.companion import Companion, companion
from vaelid.lesson.datum import Datum
from vaelid.lesson.desk import Desk
from vaelid.lesson.ellipse import Ellipse
from vaelid.lesson.subject import MODEL

__all__ = ["MODEL", "Companion", "Datum", "Desk", "Ellipse", "companion"]
