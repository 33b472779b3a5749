"""Desks: objects that answer one browser tab, method by method, with arguments that are checked on the way in."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, final, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from vaelid.errors import InputError, VaelidError, nearest

_Method = TypeVar("_Method", bound=Callable[..., Any])
_MARK = "_vaelid_serving"


class Cancelled(VaelidError):
    """A job was given up: cancelled, replaced by a newer one of its name, or its client has gone."""


@final
class Progress:
    """What a job says on its way, and how it learns that nobody waits for it any more.

    Args:
        send: called with each partial result.
        gone: tells whether the job should end.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], gone: Callable[[], bool] = lambda: False) -> None:
        self._send, self._gone = send, gone

    def check(self) -> None:
        """End the job if nobody waits for it.

        Raises:
            Cancelled: nobody does.
        """
        if self._gone():
            raise Cancelled("cancelled")

    def send(self, partial: dict[str, Any]) -> None:
        """Send a partial result, if anybody still waits.

        Raises:
            Cancelled: nobody does.
        """
        self.check()
        self._send(partial)


class Desk(Protocol):
    """What a page opens for each of its tabs. Methods marked `op` or `job` can be asked for by name."""

    def drag(self, x: float, y: float) -> tuple[float, np.ndarray]:
        """The fast path: how far off the data a point of the plane lies, and what is decoded there."""

    def close(self) -> None:
        """The tab has gone."""


def op(method: _Method) -> _Method:
    """Mark a method as one that is answered at once, one after another."""
    setattr(method, _MARK, "op")
    return method


def job(method: _Method) -> _Method:
    """Mark a method as one that takes a while; it takes ``progress``, and may be cancelled."""
    setattr(method, _MARK, "job")
    return method


def kind(desk: Any, name: str) -> str:
    """``op`` or ``job``.

    Raises:
        InputError: the desk answers nothing of that name.
    """
    found = getattr(getattr(type(desk), name, None), _MARK, None)
    if found is None:
        known = [each for each in dir(type(desk)) if getattr(getattr(type(desk), each), _MARK, None)]
        raise InputError(f"nothing here is called {name!r}", nearest(name, known))
    return str(found)


def arguments(desk: Any, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments for a method, checked against its annotations.

    Raises:
        InputError: one is missing, unknown, of another type or not finite.
    """
    model = _model(getattr(type(desk), name))
    try:
        checked = model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{name}: {where or 'arguments'}: {first['msg'].lower()}") from error
    return {field: getattr(checked, field) for field in model.model_fields}


@functools.cache
def _model(method: Callable[..., Any]) -> type[BaseModel]:
    hints = get_type_hints(method, include_extras=True)
    fields: dict[str, Any] = {}
    for each in inspect.signature(method).parameters.values():
        if each.name not in ("self", "progress"):
            fields[each.name] = (hints[each.name], ... if each.default is each.empty else each.default)
    return create_model(
        method.__name__, __config__=ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=()), **fields
    )
