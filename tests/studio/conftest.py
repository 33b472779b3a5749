"""The studio's page in a real browser: three small runs, one server, and a Chromium that may talk to it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_cases import table, trained, until, watched
from serving_cases import TOKEN, running

import vaelid as vd
from vaelid import studio
from vaelid.serving import Page, Site


class Tab:
    """A tab with the studio in it."""

    def __init__(self, page: Any) -> None:
        self.page = page

    @property
    def state(self) -> dict[str, Any]:
        """What the page says of itself."""
        found: dict[str, Any] = self.page.evaluate("window.__studio")
        return found

    def until(self, condition: str, seconds: float = 30.0) -> dict[str, Any]:
        """Wait until a condition on the state ``s`` holds; the state."""
        try:
            until(self.page, f"(() => {{ const s = window.__studio; return Boolean(s && ({condition})) }})()", seconds)
        except TimeoutError as error:
            maps = [
                (
                    one["run"],
                    one["ready"],
                    one["error"],
                    one["path"]["state"],
                    one["path"]["said"],
                    one["evidence"]["state"],
                )
                for one in self.state["maps"]
            ]
            raise TimeoutError(f"{condition} does not come to hold: {maps}") from error
        return self.state

    def by(self, name: str) -> Any:
        """An element by its test id."""
        return self.page.get_by_test_id(name)

    def at(self, x: float, y: float, which: int = 0) -> tuple[float, float]:
        """Where a point of the plane is on the page."""
        one = self.state["maps"][which]
        view, (width, height) = one["view"], one["size"]
        box = self.by("canvas").nth(which).bounding_box()
        across = (x - view["x0"]) / (view["x1"] - view["x0"])
        down = (view["y1"] - y) / (view["y1"] - view["y0"])
        return box["x"] + across * width, box["y"] + down * height

    def spot(self, across: float, up: float, which: int = 0) -> tuple[float, float]:
        """The point of the plane at a part of the view's width and height."""
        view = self.state["maps"][which]["view"]
        x, y = view["x0"] + across * (view["x1"] - view["x0"]), view["y0"] + up * (view["y1"] - view["y0"])
        return x, y

    def drag(self, *points: tuple[float, float], which: int = 0, steps: int = 4, button: str = "left") -> None:
        """Press at a point of the plane, move through others, and let go."""
        where = [self.at(*point, which=which) for point in points]
        self.page.mouse.move(*where[0])
        self.page.mouse.down(button=button)
        for each in where[1:]:
            self.page.mouse.move(*each, steps=steps)
        self.page.mouse.up(button=button)

    def keys(self, *names: str) -> None:
        """Press keys on the map."""
        self.by("canvas").first.focus()
        for name in names:
            self.page.keyboard.press(name)


@pytest.fixture(scope="session")
def page_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on digits with two latents each, one on a table with four, and one that is not there."""
    folder = tmp_path_factory.mktemp("studio")
    digits, rows = vd.data.load("digits"), table(folder / "table.csv")
    return [
        trained(folder / "digits", digits, 2, seed=0),
        trained(folder / "others", digits, 2, seed=1),
        trained(folder / "table", rows, 4, seed=0),
        folder / "nothing",
    ]


@pytest.fixture(scope="session")
def site(page_runs: list[Path]) -> Iterator[Site]:
    """A server over these runs."""
    with running({"studio": Page("Studio", lambda: studio.Desk(page_runs))}, "studio") as site:
        yield site


@pytest.fixture
def desk(page_runs: list[Path]) -> studio.Desk:
    """The same runs without a browser, the first one open."""
    found = studio.Desk(page_runs)
    found.open(0)
    return found


@pytest.fixture
def visit(browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Tab]]:
    """Open the studio at an address; a request that leaves this machine, or an error on the page, fails."""
    with watched(browser) as pages:

        def opened(hash_: str = "ground=none", *, on: Site | None = None, ready: bool = True, **how: Any) -> Tab:
            where = on or request.getfixturevalue("site")
            page = pages.page(**{"viewport": {"width": 1280, "height": 800}} | how)
            page.goto(f"http://127.0.0.1:{where.port}/studio?token={TOKEN}#{hash_}")
            tab = Tab(page)
            if ready:
                tab.until("s.ready && s.frames.first > 0")
            return tab

        yield opened
