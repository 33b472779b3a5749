"""How tests look at a page in a browser."""

from __future__ import annotations

import time
from typing import Any

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
