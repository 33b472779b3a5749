"""What travels over the socket: JSON, and numbers beside it as they lie in memory.

A drag is 12 bytes, ``u32 sequence, f32 x, f32 y``; its answer ``u32 0, u32 sequence, f32 far`` and the raw cells. A
message with arrays is ``u32 1, u32 length``, JSON in which ``{"$array": i}`` stands for the i-th array, zeros up to a
multiple of 8, and the arrays. Everything is little-endian.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, NamedTuple

import numpy as np

from vaelid.errors import InputError

_DRAG = struct.Struct("<Iff")
_ANSWER = struct.Struct("<IIf")
_HEAD = struct.Struct("<II")


class Drag(NamedTuple):
    """Where the pointer is in the plane, and which of its messages this is."""

    sequence: int
    x: float
    y: float


def read_drag(data: bytes) -> Drag:
    """A drag as it came.

    Raises:
        InputError: it has not 12 bytes, or a coordinate is not finite.
    """
    if len(data) != _DRAG.size:
        raise InputError(f"a binary message of {len(data)} bytes", f"{_DRAG.size}: a number and two coordinates")
    drag = Drag(*_DRAG.unpack(data))
    if not (math.isfinite(drag.x) and math.isfinite(drag.y)):
        raise InputError("a coordinate that is not finite", "two numbers")
    return drag


def drag_answer(sequence: int, far: float, cells: np.ndarray) -> bytes:
    """The answer to a drag: cells are uint8 (a picture) or float32 (a table's row)."""
    return _ANSWER.pack(0, sequence, far) + np.ascontiguousarray(cells).tobytes()


def read_text(text: str) -> tuple[int, str, dict[str, Any]]:
    """A request: its number, what it asks for, and with which arguments.

    Raises:
        InputError: it is no such request.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("a message that is no JSON") from error
    match message:
        case {"id": int(number), "op": str(name), **rest} if not isinstance(number, bool):
            given = rest.pop("args", {})
            if isinstance(given, dict) and not rest:
                return number, name, given
    raise InputError("a message of another form", '{"id": 1, "op": "row", "args": {"row": 3}}')


def pack(message: dict[str, Any]) -> str | bytes:
    """A message as text, or as bytes where it holds arrays; numbers that are not finite become null."""
    arrays: list[np.ndarray] = []
    plain = _plain(message, arrays)
    if not arrays:
        return json.dumps(plain, allow_nan=False, separators=(",", ":"))
    listed, offset = [], 0
    for each in arrays:
        listed.append({"dtype": each.dtype.name, "shape": list(each.shape), "offset": offset})
        offset += each.nbytes + -each.nbytes % 8
    text = json.dumps({**plain, "arrays": listed}, allow_nan=False, separators=(",", ":")).encode()
    parts = [_HEAD.pack(1, len(text)), text, bytes(-(_HEAD.size + len(text)) % 8)]
    for each in arrays:
        parts += [each.tobytes(), bytes(-each.nbytes % 8)]
    return b"".join(parts)


def _plain(value: Any, arrays: list[np.ndarray]) -> Any:
    """A value as JSON has it, its arrays moved to ``arrays``."""
    match value:
        case np.ndarray():
            arrays.append(_portable(value))
            return {"$array": len(arrays) - 1}
        case np.generic():
            return _plain(value.item(), arrays)
        case dict():
            return {str(name): _plain(each, arrays) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each, arrays) for each in value]
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
    return str(value)


def _portable(array: np.ndarray) -> np.ndarray:
    """An array of a type that browsers have: little-endian, no wider than they hold exactly."""
    if array.dtype == np.bool_:
        return np.asarray(array, np.uint8, order="C")
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        return np.asarray(array, np.float64, order="C")  # exact up to 2^53
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")
