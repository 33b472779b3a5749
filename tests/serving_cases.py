"""A server in a thread of the test, and how to talk to it as a browser would."""

from __future__ import annotations

import contextlib
import http.client
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import uvicorn
from websockets.sync.client import ClientConnection, connect

from vaelid.serving import Page, Site, application
from vaelid.serving.launch import bound, configuration

TOKEN = "the-token"


@contextlib.contextmanager
def running(pages: Mapping[str, Page], home: str) -> Iterator[Site]:
    """Serve pages on a free port while the block runs."""
    with contextlib.closing(bound(0)) as listening:
        site = Site(pages, listening.getsockname()[1], home, token=TOKEN)
        server = uvicorn.Server(configuration(application(site)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_for(lambda: server.started)
        try:
            yield site
        finally:
            server.should_exit = True
            thread.join(20)
            if thread.is_alive():
                raise RuntimeError("the server did not stop")


def wait_for(done: Callable[[], Any], seconds: float = 20.0) -> None:
    """Until something holds."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)


def get(site: Site, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer; the cookie is sent unless ``cookie`` says otherwise."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    sent = {"Host": f"127.0.0.1:{site.port}", "Cookie": f"{site.cookie}={TOKEN}"}
    connection.request(method, path, headers={**sent, **{name.title(): value for name, value in headers.items()}})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def talk(site: Site, page: str, origin: str | None = None, cookie: str | None = None) -> ClientConnection:
    """A socket as the page opens it."""
    cookie = f"{site.cookie}={TOKEN}" if cookie is None else cookie
    return connect(
        f"ws://127.0.0.1:{site.port}/ws/{page}",
        origin=origin or f"http://127.0.0.1:{site.port}",  # type: ignore[arg-type]
        additional_headers={"Cookie": cookie},
        compression=None,
        proxy=None,
        max_size=None,
    )


def read(message: str | bytes) -> dict[str, Any]:
    """A message with its arrays put back where they belong."""
    if isinstance(message, str):
        return json.loads(message)  # type: ignore[no-any-return]
    tag, length = struct.unpack_from("<II", message)
    if tag != 1:
        raise ValueError("a drag's answer")
    found = json.loads(message[8 : 8 + length])
    start = 8 + length + -(8 + length) % 8
    arrays = [
        np.frombuffer(message, each["dtype"], int(np.prod(each["shape"])), start + each["offset"]).reshape(
            each["shape"]
        )
        for each in found.pop("arrays")
    ]

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return arrays[value["$array"]] if "$array" in value else {name: put(each) for name, each in value.items()}
        return [put(each) for each in value] if isinstance(value, list) else value

    return put(found)  # type: ignore[no-any-return]


def ask(socket: ClientConnection, number: int, op: str, **args: Any) -> dict[str, Any]:
    """Ask and wait for the answer to that number, past all others."""
    socket.send(json.dumps({"id": number, "op": op, "args": args}))
    while True:
        found = read(socket.recv(30))
        if found["id"] == number and "partial" not in found:
            return found
