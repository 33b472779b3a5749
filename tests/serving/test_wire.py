"""The bytes of a conversation, there and back."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from serving_cases import read

from vaelid.errors import InputError
from vaelid.serving import wire


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (5, 1, 2)])
def test_arrays_arrive_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.asarray(100 * np.random.default_rng(0).random(shape)).astype(dtype)
    message = wire.pack({"id": 3, "ok": {"first": values, "deep": [values.T, "x" * len(shape)], "none": None}})
    found = read(message)
    assert found["id"] == 3
    assert found["ok"]["first"].dtype == dtype
    np.testing.assert_array_equal(found["ok"]["first"], values)
    np.testing.assert_array_equal(found["ok"]["deep"][0], values.T)


def test_arrays_lie_at_multiples_of_eight_bytes() -> None:
    """So that a browser can look at them where they are."""
    message = wire.pack({"id": 1, "ok": [np.zeros(3, np.uint8), np.zeros(5, np.float64)]})
    assert isinstance(message, bytes)
    _, length = struct.unpack_from("<II", message)
    start = 8 + length + -(8 + length) % 8
    assert all((start + each["offset"]) % 8 == 0 for each in json.loads(message[8 : 8 + length])["arrays"])


def test_what_browsers_lack_becomes_what_they_have() -> None:
    found = read(
        wire.pack({"big": np.array([2**53, -1]), "flags": np.array([True, False]), "turned": np.zeros(2, ">f4")})
    )
    assert (found["big"].dtype, found["flags"].dtype, found["turned"].dtype) == (np.float64, np.uint8, np.dtype("<f4"))
    np.testing.assert_array_equal(found["big"], [2**53, -1])


def test_numbers_that_are_not_finite_become_null() -> None:
    text = wire.pack({"a": float("inf"), "b": [np.float32("nan"), np.int64(3), np.bool_(True)], "c": 1e-9})
    assert json.loads(text) == {"a": None, "b": [None, 3, True], "c": 1e-9}


def test_drags_there_and_back() -> None:
    assert wire.read_drag(struct.pack("<Iff", 7, 0.5, -2)) == (7, 0.5, -2.0)
    answer = wire.drag_answer(7, 1.5, np.array([[1, 2], [3, 4]], np.uint8).T)
    assert answer == struct.pack("<IIf", 0, 7, 1.5) + bytes([1, 3, 2, 4])


@pytest.mark.parametrize("data", [b"", bytes(11), bytes(13), struct.pack("<Iff", 1, float("inf"), 0)])
def test_other_drags_are_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        wire.read_drag(data)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ('{"id": 1, "op": "row"}', (1, "row", {})),
        ('{"id": 1, "op": "row", "args": {"row": 2}}', (1, "row", {"row": 2})),
    ],
)
def test_requests_are_read(text: str, request_: tuple[int, str, dict[str, Any]]) -> None:
    assert wire.read_text(text) == request_


@pytest.mark.parametrize(
    "text", ["", "1", "[]", "{}", '{"id": "1", "op": "row"}', '{"id": 1, "op": "row", "more": 1}', "[" * 100_000]
)
def test_other_requests_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        wire.read_text(text)
