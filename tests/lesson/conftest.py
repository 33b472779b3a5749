"""The lesson's page in a real browser: three small runs, their servers, and a Chromium that may talk to them alone."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from page_cases import table, trained, until, watched
from serving_cases import TOKEN, running

import vaelid as vd
from vaelid import lesson, studio
from vaelid.runs import Run
from vaelid.serving import Page, Site

COMPANION = importlib.import_module("vaelid.lesson.companion")


@pytest.fixture(scope="session")
def page_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Two runs on digits with two latents each, and one on a table with four."""
    folder = tmp_path_factory.mktemp("pages")
    digits, rows = vd.data.load("digits"), table(folder / "table.csv")
    return {
        "digits": Run.open(trained(folder / "digits", digits, 2, seed=0)),
        "others": Run.open(trained(folder / "others", digits, 2, seed=1)),
        "table": Run.open(trained(folder / "table-run", rows, 4, seed=0)),
    }


@pytest.fixture(scope="session")
def sites(page_runs: dict[str, Run]) -> Iterator[Callable[[str], Site]]:
    """A server for the run of a name, started when it is first asked for; companions are trained for a moment."""
    with contextlib.ExitStack() as stack:
        kept = {name: getattr(COMPANION, name) for name in ("STEPS", "EPOCHS")}
        stack.callback(lambda: [setattr(COMPANION, name, value) for name, value in kept.items()])
        COMPANION.STEPS, COMPANION.EPOCHS = 60, (4, 8)  # type: ignore[attr-defined]
        known: dict[str, Site] = {}

        def site(name: str) -> Site:
            if name not in known:
                path = page_runs[name].path
                pages = {
                    "lesson": Page("Lesson", lambda: lesson.Desk([path])),
                    "studio": Page("Studio", lambda: studio.Desk([path])),
                }
                known[name] = stack.enter_context(running(pages, "lesson"))
            return known[name]

        yield site


@pytest.fixture
def visit(browser: Any, sites: Callable[[str], Site]) -> Iterator[Callable[..., Any]]:
    """Open the lesson over the run of a name; a request that leaves this machine, or an error on the page, fails."""
    with watched(browser) as pages:

        def opened(name: str = "digits", script: str = "", block: str = "", **how: Any) -> Any:
            page = pages.page(**{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | how)
            if block:
                page.context.route(block, lambda route: route.abort())
            if script:
                page.add_init_script(script)
            page.goto(f"http://127.0.0.1:{sites(name).port}/lesson?token={TOKEN}")
            until(page, "window.__lesson?.ready")
            return page

        yield opened
