"""How tests look at a page in a browser."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import vaelid as vd
from vaelid.training import Settings

SECONDS = 30.0  # that something is waited for, at most


def until(page: Any, condition: str, seconds: float = SECONDS) -> Any:
    """Wait until an expression holds on the page; its value. The page's own policy forbids Playwright's way of it."""
    end = time.monotonic() + seconds
    while not (found := page.evaluate(condition)):
        if time.monotonic() > end:
            raise TimeoutError(f"{condition} does not come to hold: {page.evaluate('window.__lesson?.narrator')}")
        page.wait_for_timeout(30)
    return found


def state(page: Any) -> Any:
    """What the page says of itself."""
    return page.evaluate("window.__lesson")


def figure(page: Any, name: str, condition: str = "true") -> Any:
    """A figure's numbers, once it has some of which the condition holds; ``f`` are the numbers in it."""
    page.get_by_test_id(f"figure-{name}").scroll_into_view_if_needed()
    return until(page, f"(() => {{ const f = __lesson.figures.{name}; return f && ({condition}) ? f : null }})()")


class Watched:
    """Contexts of a browser in which a request that leaves this machine, or an error on the page, is found out."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.contexts: list[Any] = []
        self.strangers: list[str] = []
        self.errors: list[str] = []

    def page(self, **how: Any) -> Any:
        """A page in a context of its own."""
        context = self.browser.new_context(**how)
        self.contexts.append(context)
        context.route("**/*", self._guard)
        page = context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return page

    def _guard(self, route: Any) -> None:
        if route.request.url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:")):
            route.fallback()
        else:
            self.strangers.append(route.request.url)
            route.abort()


@contextlib.contextmanager
def watched(browser: Any) -> Iterator[Watched]:
    """Pages that are closed at the end, and held to have stayed at home and made no errors."""
    found = Watched(browser)
    yield found
    for context in found.contexts:
        context.close()
    assert found.strangers == []
    assert found.errors == []


def trained(path: Path, data: Any, latent: int, seed: int = 0) -> Path:
    """A small run."""
    model = vd.recipes.vae(data, latent=latent, hidden=(32,))
    vd.fit(model, data, settings=Settings(epochs=5), progress=False, out=path, seed=seed)
    return path


def table(path: Path) -> Any:
    """A table with five columns made of two, and a label."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 2))
    bent = np.stack((z[:, 0], np.sin(2 * z[:, 0]), z[:, 0] * z[:, 1], z[:, 1], z.sum(1)), 1)
    lines = [",".join(f"{value:.4f}" for value in row) for row in bent + 0.1 * rng.normal(size=bent.shape)]
    named = [f"{line},{'up' if up else 'down'}" for line, up in zip(lines, z[:, 0] > 0, strict=True)]
    path.write_text("\n".join(["width,bend,twist,height,sum,side", *named]))
    return vd.data.load(path, label="side")
