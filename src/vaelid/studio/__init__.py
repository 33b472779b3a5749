"""Studio: what a browser may ask of runs, as methods of a `Desk`; it owns no numerics and draws nothing."""

from vaelid.studio.desk import Desk, View
from vaelid.studio.planes import Plane
from vaelid.studio.subject import Subject

__all__ = ["Desk", "Plane", "Subject", "View"]
