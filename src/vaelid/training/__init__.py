"""Training: a loop that yields events, its settings, its checkpoints."""

from vaelid.training.checkpoints import Checkpoints
from vaelid.training.events import Compiled, EpochDone, Event, Finished, Progress, RolledBack, Saved, Started
from vaelid.training.progress import watch
from vaelid.training.schedule import learning_rate
from vaelid.training.settings import Settings
from vaelid.training.signals import graceful
from vaelid.training.start import events, rows_of

__all__ = [
    "Checkpoints",
    "Compiled",
    "EpochDone",
    "Event",
    "Finished",
    "Progress",
    "RolledBack",
    "Saved",
    "Settings",
    "Started",
    "events",
    "graceful",
    "learning_rate",
    "rows_of",
    "watch",
]
