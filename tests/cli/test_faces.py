"""`lesson` and `studio` start, say where, let in who has the token, and stop at Ctrl-C."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest


@pytest.mark.parametrize("words", [("studio", "RUN"), ("studio", "RUN", "RUN"), ("lesson",), ("lesson", "RUN")])
def test_serves_until_interrupted(spawn, tmp_path: Path, digits_run: Path, words: tuple[str, ...]) -> None:
    words = tuple(str(digits_run) if word == "RUN" else word for word in words)
    process = spawn(*words, "--port", 0, "--json", cwd=tmp_path)
    try:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        assert (found["page"], found["runs"]) == (words[0], list(words[1:]))
        address = urlsplit(found["address"])
        assert (address.hostname, address.port, address.path) == ("127.0.0.1", found["port"], f"/{words[0]}")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", found["port"], timeout=20)) as connection:
            connection.request("GET", f"{address.path}?{address.query}")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 307
            cookie = str(answer.getheader("set-cookie")).partition(";")[0]
            for page in ("studio", "lesson"):
                connection.request("GET", f"/{page}", headers={"Cookie": cookie})
                answer = connection.getresponse()
                assert f"<title>vaelid {page}</title>".encode() in answer.read()
                connection.request("GET", f"/{page}")
                answer = connection.getresponse()
                assert (answer.status, b"token" in answer.read()) == (403, True)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        opening = "".join(f"opening {path} …\n" for path in words[1:2] if words[0] == "studio")
        assert process.stderr.read() == f"{opening}Ctrl-C stops it.\nstopped\n"
    finally:
        process.kill()
        process.communicate()


def test_what_cannot_be_served_is_refused(call, tmp_path: Path, digits_run: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = call("studio", digits_run, "--port", port)
    assert found.code == 2
    assert f"port {port} cannot be used" in found.err
    assert "leave out --port" in found.err.lower()
    for words, said in {
        ("studio", tmp_path): "lacks config.toml",
        ("lesson", tmp_path): "lacks config.toml",
        ("studio",): "RUN",
        ("studio", digits_run, "--port", 70_000): "0 to 65535",
    }.items():
        found = call(*words)
        assert (found.code, found.out) == (2, "")
        assert said in found.err
