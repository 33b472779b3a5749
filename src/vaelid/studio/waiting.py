"""How a job that is deep in the library learns that nobody waits for it any more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from vaelid.model import VAE
from vaelid.serving import Progress

_CHECK: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


def watched(model: VAE) -> VAE:
    """The model, whose decoder from now on asks at every call, inside `cancellable`, whether anybody still waits."""
    model.likelihood.register_forward_pre_hook(_ask)
    return model


@contextlib.contextmanager
def cancellable(progress: Progress) -> Iterator[None]:
    """Inside, in this thread, every call of a watched model's decoder ends the job if nobody waits.

    Raises:
        Cancelled: nobody does.
    """
    progress.check()
    token = _CHECK.set(progress.check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def _ask(*_: object) -> None:
    check = _CHECK.get()
    if check is not None:
        check()
