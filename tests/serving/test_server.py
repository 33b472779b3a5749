"""The local server: who is let in, what is bounded, and that nothing a client does takes it down."""

from __future__ import annotations

import contextlib
import json
import re
import struct
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field
from serving_cases import ask, get, read, running, talk, wait_for
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from vaelid.errors import InputError
from vaelid.serving import Cancelled, Page, Progress, Site, job, op
from vaelid.serving.launch import bound
from vaelid.serving.site import MESSAGE, TABS
from vaelid.serving.sockets import BURST, WAITING


class Counter:
    """A desk whose answers are known."""

    closed = 0
    working = 0

    def __init__(self) -> None:
        self.drags: list[tuple[float, float]] = []
        self.hold = threading.Event()
        self.hold.set()

    @op
    def add(self, a: int, b: Annotated[float, Field(ge=0)] = 1.0) -> dict[str, Any]:
        return {"sum": a + b}

    @op
    def arrays(self, kind: Literal["small", "nan"]) -> dict[str, Any]:
        values = np.arange(6, dtype=np.float32).reshape(2, 3)
        return {"values": values, "deep": [{"rows": np.array([1, 2**40])}], "none": float("nan"), "kind": kind}

    @op
    def refuse(self) -> dict[str, Any]:
        raise InputError("row 7", "a row that is there", "choose another")

    @op
    def fall(self) -> dict[str, Any]:
        raise ZeroDivisionError("of the desk")

    @job
    def count(self, steps: int, seconds: float = 0.0, *, progress: Progress) -> dict[str, Any]:
        Counter.working += 1
        try:
            for step in range(steps):
                progress.send({"step": step, "at": np.array([step])})
                time.sleep(seconds)
        finally:
            Counter.working -= 1
        return {"steps": steps}

    @job
    def think(self, *, progress: Progress) -> dict[str, Any]:
        Counter.working += 1
        try:
            while True:  # without a word
                progress.check()
                time.sleep(0.01)
        finally:
            Counter.working -= 1

    @op
    def slow(self) -> dict[str, Any]:
        time.sleep(0.01)
        return {}

    def drag(self, x: float, y: float) -> tuple[float, np.ndarray]:
        self.drags.append((x, y))
        if x < 0:
            raise InputError("a negative x", "a positive one")
        time.sleep(0.02)
        return x + y, np.array([len(self.drags), 7], np.uint8)

    def close(self) -> None:
        Counter.closed += 1


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running({"one": Page("One", Counter), "two": Page("Two", Counter)}, "one") as found:
        yield found


def test_the_address_swaps_its_token_for_a_cookie(site: Site) -> None:
    status, headers, _ = get(site, f"/one?token={site.token}&keep=1", cookie="")
    assert (status, headers["location"]) == (307, "/one?keep=1")
    assert headers["set-cookie"].startswith(f"{site.cookie}={site.token};")
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=strict" in headers["set-cookie"]
    status, _, body = get(site, "/one")
    assert status == 200
    assert b"<title>One</title>" in body
    assert get(site, "/")[1]["location"] == "/one"
    assert get(site, "/three")[0] == 404


def test_a_token_in_the_address_leads_nowhere_else(site: Site) -> None:
    _, headers, _ = get(site, f"//example.org/x?token={site.token}", cookie="")
    assert not headers["location"].startswith("//")


@pytest.mark.parametrize(
    "headers",
    [
        {"cookie": ""},
        {"cookie": "vaelid-1=the-token"},
        {"host": "example.org"},
        {"host": "127.0.0.1"},
        {"origin": "http://example.org"},
        {"origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/one", "/assets/app.js", "/"])
def test_strangers_stay_outside(site: Site, path: str, headers: dict[str, str]) -> None:
    status, answer, body = get(site, path, **headers)
    assert status == 403
    assert site.token.encode() not in body
    assert answer["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_is_taken_by_http(site: Site, method: str) -> None:
    assert get(site, "/one", method)[0] == 403  # without an Origin of this site
    assert get(site, "/one", method, origin=f"http://127.0.0.1:{site.port}")[0] == 405


@pytest.mark.parametrize(
    "path",
    ["/assets/../site.py", "/assets/%2e%2e/site.py", "/assets/..%2fsite.py", "/assets//etc/passwd", "/assets/%00"],
)
def test_no_path_leads_out_of_the_assets(site: Site, path: str) -> None:
    status, _, body = get(site, path)
    assert status == 404
    assert b"import" not in body


def test_every_asset_that_the_page_names_is_served(site: Site) -> None:
    _, headers, page = get(site, "/one")
    for said in ("default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"):
        assert said in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    named = re.findall(r'(?:src|href)="([^"]+)"', page.decode())
    styles = [path for path in named if path.endswith(".css")]
    for style in styles:
        text = get(site, style)[2].decode()
        folder = style.rsplit("/", 1)[0]
        named += [f"{folder}/{url.removeprefix('./')}" for url in re.findall(r"url\(\"?([^)\"]+)", text)]
    assert len(named) > 15
    for path in named:
        status, _, body = get(site, path)
        assert status == 200, path
        assert body
        assert not re.search(rb"https?://(?!www\.w3\.org/)[a-z]", page), "a page names another host"


def test_a_socket_needs_the_cookie_and_the_origin(site: Site) -> None:
    for wrong in ({"cookie": "x=1"}, {"origin": "http://example.org"}, {"cookie": f"{site.cookie}=other"}):
        with pytest.raises(InvalidStatus, match="403"), talk(site, "one", **wrong):
            pass
    with pytest.raises(InvalidStatus, match="403"), talk(site, "three"):
        pass
    with talk(site, "one", origin=f"http://localhost:{site.port}") as socket:
        assert ask(socket, 1, "add", a=1)["ok"] == {"sum": 2.0}


def test_answers_hold_arrays_as_they_are(site: Site) -> None:
    with talk(site, "one") as socket:
        found = ask(socket, 5, "arrays", kind="nan")["ok"]
    assert found["values"].dtype == np.float32
    np.testing.assert_array_equal(found["values"], np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(found["deep"][0]["rows"], [1, 2**40])
    assert found["none"] is None


@pytest.mark.parametrize(
    ("op_name", "args", "said"),
    [
        ("subtract", {}, "nothing here is called 'subtract'; expected known: add, arrays"),
        ("__init__", {}, "nothing here is called '__init__'"),
        ("close", {}, "nothing here is called 'close'"),
        ("add", {}, "add: a: field required."),
        ("add", {"a": "x"}, "add: a: input should be a valid integer"),
        ("add", {"a": 1, "c": 2}, "add: c: extra inputs are not permitted."),
        ("add", {"a": 1, "b": -1}, "add: b: input should be greater than or equal to 0."),
        ("arrays", {"kind": "large"}, "arrays: kind: input should be 'small' or 'nan'."),
        ("refuse", {}, "row 7; expected a row that is there. Choose another."),
        ("fall", {}, "fall failed: of the desk"),
    ],
)
def test_what_cannot_be_answered_is_said_and_the_talk_goes_on(
    site: Site, op_name: str, args: dict[str, Any], said: str
) -> None:
    with talk(site, "one") as socket:
        assert ask(socket, 1, op_name, **args)["error"].startswith(said)
        assert ask(socket, 2, "add", a=2)["ok"] == {"sum": 3.0}


@pytest.mark.parametrize(
    "message",
    ["{", "[]", "3", '{"id": true, "op": "add"}', '{"id": 1}', '{"id": 1, "op": "add", "args": 3}', "[" * 5000,
     '{"id": 1, "op": "add", "args": {"a": 1, "b": NaN}}', '{"id": 1, "op": "add", "args": {"a": 1, "b": Infinity}}',
     b"123", b"", struct.pack("<Iff", 1, float("nan"), 0)],
)  # fmt: skip
def test_malformed_messages_get_a_sentence(site: Site, message: str | bytes) -> None:
    with talk(site, "one") as socket:
        socket.send(message)
        assert "error" in read(socket.recv(10))
        assert ask(socket, 2, "add", a=2)["ok"] == {"sum": 3.0}


def test_large_messages_and_floods_close_the_tab_alone(site: Site) -> None:
    large = [json.dumps({"id": 1, "op": "add", "args": {"a": "x" * MESSAGE}})]
    flood = [json.dumps({"id": number, "op": "cancel"}) for number in range(2 * BURST)]
    with talk(site, "one") as other:
        for messages in (large, flood):
            with talk(site, "one") as socket:
                with contextlib.suppress(ConnectionClosed):
                    for message in messages:
                        socket.send(message)
                wait_for(lambda socket=socket: _closed(socket))
        assert ask(other, 2, "add", a=2)["ok"] == {"sum": 3.0}


def _closed(socket: ClientConnection) -> bool:
    try:
        socket.recv(10)
    except ConnectionClosed:
        return True
    return False


def test_tabs_are_counted(site: Site) -> None:
    wait_for(lambda: _answers(site))
    with contextlib.ExitStack() as stack:
        for _ in range(TABS):
            assert ask(stack.enter_context(talk(site, "one")), 1, "add", a=1)["ok"] == {"sum": 2.0}
        with talk(site, "one") as late, pytest.raises(ConnectionClosed, match="tabs are open"):
            late.recv(10)
    wait_for(lambda: _answers(site))


def _answers(site: Site) -> bool:
    try:
        with talk(site, "one") as socket:
            return "ok" in ask(socket, 1, "add", a=1)
    except ConnectionClosed:
        return False


def test_jobs_stream_and_are_cancelled_or_replaced(site: Site) -> None:
    with talk(site, "one") as socket:
        socket.send(json.dumps({"id": 1, "op": "count", "args": {"steps": 3}}))
        found = [read(socket.recv(10)) for _ in range(4)]
        assert [each["partial"]["step"] for each in found[:3]] == [0, 1, 2]
        assert found[3]["ok"] == {"steps": 3}
        socket.send(json.dumps({"id": 2, "op": "count", "args": {"steps": 10_000, "seconds": 0.01}}))
        read(socket.recv(10))
        assert ask(socket, 3, "add", a=1)["ok"] == {"sum": 2.0}  # meanwhile
        socket.send(json.dumps({"id": 4, "op": "cancel", "args": {"job": 2}}))
        assert _last(socket, 2) == {"id": 2, "error": "cancelled", "cancelled": True}
        socket.send(json.dumps({"id": 5, "op": "count", "args": {"steps": 10_000, "seconds": 0.01}}))
        read(socket.recv(10))
        assert ask(socket, 6, "count", steps=1)["ok"] == {"steps": 1}  # a newer one of its name takes its place
        wait_for(lambda: Counter.working == 0)


def _last(socket: Any, number: int) -> dict[str, Any]:
    while True:
        found = read(socket.recv(10))
        if found["id"] == number and "partial" not in found:
            return found


def test_requests_that_wait_are_bounded(site: Site) -> None:
    with talk(site, "one") as socket:
        for number in range(WAITING + 20):
            socket.send(json.dumps({"id": number, "op": "slow"}))
        answers = [read(socket.recv(10)) for _ in range(WAITING + 20)]
        refused = [each for each in answers if "too many requests" in each.get("error", "")]
        assert 0 < len(refused) <= 20
        assert ask(socket, 200, "add", a=2)["ok"] == {"sum": 3.0}


def test_a_silent_job_ends_with_its_tab(site: Site) -> None:
    with talk(site, "one") as socket:
        socket.send(json.dumps({"id": 1, "op": "think"}))
        wait_for(lambda: Counter.working == 1)
    wait_for(lambda: Counter.working == 0)


def test_it_listens_to_this_machine_alone() -> None:
    with contextlib.closing(bound(0)) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_a_client_gone_in_mid_job_ends_it(site: Site) -> None:
    before = Counter.closed
    socket = talk(site, "one").__enter__()
    socket.send(json.dumps({"id": 1, "op": "count", "args": {"steps": 100_000, "seconds": 0.01}}))
    read(socket.recv(10))
    assert Counter.working == 1
    socket.socket.close()  # no word of farewell
    wait_for(lambda: Counter.working == 0)
    wait_for(lambda: Counter.closed > before)
    with talk(site, "one") as again:
        assert ask(again, 1, "add", a=1)["ok"] == {"sum": 2.0}


def test_the_latest_drag_wins(site: Site) -> None:
    with talk(site, "one") as socket:
        for sequence in range(40):
            socket.send(struct.pack("<Iff", sequence, sequence, 0.5))
        answers = []
        while not answers or answers[-1][1] != 39:
            data = socket.recv(10)
            assert isinstance(data, bytes)
            answers.append((*struct.unpack_from("<IIf", data), data[12:]))
        assert len(answers) < 20  # each takes 20 ms, and those between were never asked of the desk
        assert answers[-1] == (0, 39, 39.5, bytes([len(answers), 7]))
        socket.send(struct.pack("<Iff", 40, -1, 0))
        assert read(socket.recv(10)) == {"id": -1, "sequence": 40, "error": "a negative x; expected a positive one."}


def test_progress_ends_what_nobody_waits_for() -> None:
    said: list[dict[str, Any]] = []
    progress = Progress(said.append, lambda: len(said) == 2)
    progress.send({"step": 0})
    progress.send({"step": 1})
    with pytest.raises(Cancelled):
        progress.send({"step": 2})
    with pytest.raises(Cancelled):
        progress.check()
    assert said == [{"step": 0}, {"step": 1}]
