"""The lesson's page in a real browser: three small runs, their servers, and a Chromium that may talk to them alone."""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_cases import until
from serving_cases import TOKEN, running

import vaelid as vd
from vaelid import lesson, studio
from vaelid.runs import Run
from vaelid.serving import Page, Site
from vaelid.training import Settings

COMPANION = importlib.import_module("vaelid.lesson.companion")
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or the reason why there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def page_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Two runs on digits with two latents each, and one on a table with four."""
    folder = tmp_path_factory.mktemp("pages")
    digits, table = vd.data.load("digits"), _table(folder / "table.csv")
    return {
        "digits": _trained(folder / "digits", digits, 2, seed=0),
        "others": _trained(folder / "others", digits, 2, seed=1),
        "table": _trained(folder / "table-run", table, 4, seed=0),
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
    strangers: list[str] = []
    errors: list[str] = []
    contexts = []

    def guard(route: Any) -> None:
        if route.request.url.startswith("http://127.0.0.1:"):
            route.fallback()
        else:
            strangers.append(route.request.url)
            route.abort()

    def opened(name: str = "digits", script: str = "", block: str = "", **how: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | how)
        contexts.append(context)
        context.route("**/*", guard)
        if block:
            context.route(block, lambda route: route.abort())
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        if script:
            page.add_init_script(script)
        site = sites(name)
        page.goto(f"http://127.0.0.1:{site.port}/lesson?token={TOKEN}")
        until(page, "window.__lesson?.ready")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert strangers == []
    assert errors == []


def _trained(path: Path, data: Any, latent: int, seed: int) -> Run:
    model = vd.recipes.vae(data, latent=latent, hidden=(32,))
    vd.fit(model, data, settings=Settings(epochs=5), progress=False, out=path, seed=seed)
    return Run.open(path)


def _table(path: Path) -> Any:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 2))
    bent = np.stack((z[:, 0], np.sin(2 * z[:, 0]), z[:, 0] * z[:, 1], z[:, 1], z.sum(1)), 1)
    lines = [",".join(f"{value:.4f}" for value in row) for row in bent + 0.1 * rng.normal(size=bent.shape)]
    named = [f"{line},{'up' if up else 'down'}" for line, up in zip(lines, z[:, 0] > 0, strict=True)]
    path.write_text("\n".join(["width,bend,twist,height,sum,side", *named]))
    return vd.data.load(path, label="side")
