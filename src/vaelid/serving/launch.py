"""Start the site on this machine and stay until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping

import uvicorn
from starlette.types import ASGIApp

from vaelid.errors import InputError
from vaelid.serving.site import MESSAGE, Page, Site, application

PORT = 8765
_TRIES = 20  # ports from there on, before any


def serve(
    pages: Mapping[str, Page], home: str, port: int | None = None, ready: Callable[[Site], None] = lambda site: None
) -> None:
    """Serve pages on 127.0.0.1 until interrupted.

    Args:
        pages: by name.
        home: the name of the one that is opened first.
        port: where to listen; None takes the first free one from `PORT` on.
        ready: called once browsers may come.

    Raises:
        InputError: the port is taken or not allowed.
    """
    with contextlib.closing(bound(port)) as listening:
        site = Site(pages, listening.getsockname()[1], home)
        asyncio.run(_run(uvicorn.Server(configuration(application(site))), listening, lambda: ready(site)))


def configuration(application: ASGIApp) -> uvicorn.Config:
    """How uvicorn runs the site: quietly, messages bounded and not compressed."""
    return uvicorn.Config(
        application,
        log_level="error",
        access_log=False,
        ws="websockets-sansio",
        ws_max_size=MESSAGE,
        ws_ping_interval=30,
        ws_per_message_deflate=False,
        limit_concurrency=256,
        timeout_graceful_shutdown=2,
    )


async def _run(server: uvicorn.Server, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Until a signal, which uvicorn takes, finishes upon, and raises again."""
    task = asyncio.ensure_future(server.serve(sockets=[listening]))
    while not server.started and not task.done():
        await asyncio.sleep(0.005)
    if server.started:
        ready()
    await task


def bound(port: int | None) -> socket.socket:
    """A socket bound to 127.0.0.1.

    Raises:
        InputError: the port is taken or not allowed.
    """
    wanted = [*range(PORT, PORT + _TRIES), 0] if port is None else [port]
    for each in wanted:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", each))
        except (OSError, OverflowError) as error:
            listening.close()
            reason = getattr(error, "strerror", None) or error
            if len(wanted) == 1:
                raise InputError(f"port {port} cannot be used ({reason})", "a free one", "leave out --port") from error
        else:
            return listening
    raise InputError("no port of this machine is free", "a free one")
