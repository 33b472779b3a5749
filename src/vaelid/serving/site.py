"""The site: pages, assets and sockets, for whoever has the token of this launch and nobody else."""

from __future__ import annotations

import contextlib
import html
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from typing import final
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from vaelid.serving.desks import Desk
from vaelid.serving.sockets import Tab

TABS = 16  # open at once
JOBS = 2  # running at once
MESSAGE = 1 << 16  # bytes of a message from a browser, at most
ASSETS = resources.files("vaelid.serving").joinpath("assets")
_MISSING = "This address needs the token of its launch: open the address that the terminal shows."
_POLICY = {
    "default-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",  # KaTeX places its boxes by style attributes
    "img-src": "'self' blob: data:",
    "media-src": "'self' blob:",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
}
_HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


@final
@dataclass(frozen=True)
class Page:
    """A page of the site.

    Attributes:
        title: of the browser's tab.
        desk: makes what answers a tab.
    """

    title: str
    desk: Callable[[], Desk]


@final
@dataclass(frozen=True)
class Site:
    """What is served.

    Attributes:
        pages: by name; each is found at ``/NAME``, its socket at ``/ws/NAME``.
        port: where it will listen; part of the only host and origin that are let in.
        home: the page that ``/`` leads to.
        token: of this launch.
    """

    pages: Mapping[str, Page]
    port: int
    home: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a browser on this machine calls it."""
        return f"127.0.0.1:{self.port}", f"localhost:{self.port}"

    @property
    def address(self) -> str:
        """What to open first."""
        return f"http://127.0.0.1:{self.port}/{self.home}?token={self.token}"

    @property
    def cookie(self) -> str:
        """The cookie's name: cookies do not know ports, so the name does."""
        return f"vaelid-{self.port}"


def application(site: Site) -> ASGIApp:
    """The site as an ASGI application."""
    pool = ThreadPoolExecutor(JOBS, "job")
    tabs: set[Tab] = set()

    async def page(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in site.pages:
            return PlainTextResponse("No such page.", 404)
        return Response(_document(name, site.pages[name].title, tuple(site.pages)), media_type="text/html")

    async def home(_: Request) -> Response:
        return RedirectResponse(f"/{site.home}")

    async def talk(socket: WebSocket) -> None:
        name = socket.path_params["name"]
        if name not in site.pages:
            await socket.close(4404, "no such page")
            return
        await socket.accept()
        if len(tabs) >= TABS:
            await socket.close(4429, f"{TABS} tabs are open; close one")
            return
        tab = Tab(socket, site.pages[name].desk, pool)
        tabs.add(tab)
        try:
            await tab.talk()
        finally:
            tabs.discard(tab)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        for tab in list(tabs):
            tab.leave()
        pool.shutdown(wait=False, cancel_futures=True)

    routes = [
        Route("/", home),
        Route("/{name}", page),
        WebSocketRoute("/ws/{name}", talk),
        Mount("/assets", StaticFiles(directory=str(ASSETS))),
    ]
    return _Guard(Starlette(routes=routes, lifespan=lifespan), site)


def _document(name: str, title: str, pages: tuple[str, ...]) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n"
        '<link rel="icon" href="/assets/icon.svg" type="image/svg+xml">\n'
        '<link rel="stylesheet" href="/assets/app.css">\n'
        '<script src="/assets/app.js" defer></script>\n</head>\n'
        f'<body data-page="{html.escape(name)}" data-pages="{html.escape(" ".join(pages))}">\n'
        '<div id="app"><p class="loading">Loading …</p></div>\n'
        "<noscript>This page draws with JavaScript, which is switched off.</noscript>\n</body>\n</html>\n"
    )


@final
class _Guard:
    """Lets in who has the token and comes from the site itself; everybody else stays outside, on HTTP and WebSocket."""

    def __init__(self, inside: ASGIApp, site: Site) -> None:
        self.inside, self.site = inside, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, turn away, or swap a token in the address for a cookie."""
        if scope["type"] == "lifespan":
            await self.inside(scope, receive, send)
            return
        here = HTTPConnection(scope)
        origin = here.headers.get("origin")
        local = here.headers.get("host") in self.site.hosts and (
            origin in {f"http://{host}" for host in self.site.hosts}
            or (origin is None and scope["type"] == "http" and scope["method"] in ("GET", "HEAD"))
        )
        known = self._known(here.cookies.get(self.site.cookie))
        if scope["type"] == "websocket":
            if local and known:
                await self.inside(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 4403, "reason": "not from this page"})
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        answer: ASGIApp = self.inside
        if not local:
            answer = PlainTextResponse("This server answers its own pages on this machine only.", 403)
        elif self._known(here.query_params.get("token")):
            answer = self._swapped(here)
        elif not known:
            answer = PlainTextResponse(_MISSING, 403)
        await answer(scope, receive, sealed)

    def _known(self, token: str | None) -> bool:
        return token is not None and secrets.compare_digest(token.encode(), self.site.token.encode())

    def _swapped(self, here: HTTPConnection) -> Response:
        """The same address without the token, which goes on as a cookie that scripts cannot read."""
        rest = [(name, value) for name, value in here.query_params.multi_items() if name != "token"]
        path = here.url.path + (f"?{urlencode(rest)}" if rest else "")
        answer = RedirectResponse("/" + path.lstrip("/"))  # never another host's
        answer.set_cookie(self.site.cookie, self.site.token, httponly=True, samesite="strict", path="/")
        return answer


__all__ = ["ASSETS", "Page", "Site", "application"]
