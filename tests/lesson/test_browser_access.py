"""The lesson's page for everybody: by keyboard, on a phone, in both themes, and as axe-core sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_cases import figure, state, until

Visit = Callable[..., Any]
AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
FIGURES = ("belief", "approximation", "bar", "betas", "gradients", "plane")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def drawn(page: Any) -> None:
    """Wait until all figures are there."""
    for name in FIGURES:
        figure(page, name, "f.decoded" if name == "plane" else "!f.running")


@pytest.mark.parametrize("how", [{}, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_serious_in_either_theme(visit: Visit, how: dict[str, Any]) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci in web/")
    page = visit(**how)
    drawn(page)
    page.get_by_test_id("sample-prior").click()
    page.get_by_test_id("geodesic").click()
    figure(page, "plane", "f.geodesic && f.drawn")
    page.get_by_test_id("play").click()
    until(page, "__lesson.narrator.state === 'playing'")
    page.mouse.wheel(0, -400)
    until(page, "document.querySelector('[data-testid=return]')")
    page.evaluate(AXE.read_text())
    for _ in range(2):
        assert page.evaluate(SERIOUS) == []
        page.get_by_test_id("help").click()
        assert page.evaluate(SERIOUS) == []
        page.get_by_test_id("help-close").click()
        page.get_by_test_id("theme").click()


SERIOUS = """axe.run({ resultTypes: ["violations"] }).then(({ violations }) => violations
  .filter(({ impact }) => ["serious", "critical"].includes(impact))
  .map(({ id, nodes }) => [document.documentElement.dataset.theme, id, nodes[0].html.slice(0, 200)]))"""


def test_tab_reaches_everything_and_everything_has_a_name(visit: Visit) -> None:
    page = visit()
    drawn(page)
    page.evaluate("scrollTo(0, 0), document.activeElement?.blur()")
    seen: list[str] = []
    for _ in range(150):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        if found is None or (seen and found["id"] == seen[0] and found["id"]):
            break
        assert found["name"], found
        assert found["visible"], found
        seen.append(found["id"])
    wanted = {f"listen-{number}" for number in range(1, 7)}
    wanted |= {
        "theme",
        "play",
        "next",
        "speed",
        "voice",
        "captions",
        "help",
        "ellipse",
        "bar-ellipse",
        "noise",
        "eps-1",
        "eps-2",
    }
    wanted |= {
        "plane-map",
        "sample-prior",
        "geodesic",
        "open-studio",
        "bracket",
        "gradients-samples",
        "choose-encoder",
        "choose-best",
    }
    assert wanted <= set(seen), wanted - set(seen)
    assert sum(each.startswith("beta-") for each in seen) == 1


FOCUSED = """(() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const box = at.getBoundingClientRect();
  const named = document.getElementById(at.getAttribute("aria-labelledby"))?.innerText;
  return {
    id: at.dataset.testid ?? "",
    name: at.getAttribute("aria-label") || at.labels?.[0]?.innerText || named || at.innerText || at.title || "",
    visible: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
    tag: at.outerHTML.slice(0, 120),
  };
})()"""


# What a key or a click makes of the dialog by the next task, before which no other key can come.
NEXT = """(act) => {
  const [dialog, next] = [document.querySelector("dialog"), new MessageChannel()];
  if (act === "?") document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "?", bubbles: true }));
  else dialog.querySelector("button").click();
  return new Promise((told) => {
    next.port1.onmessage = () => told(dialog.open);
    next.port2.postMessage(null);
  });
}"""


def test_help_is_there_before_the_next_key(visit: Visit) -> None:
    page = visit()
    for _ in range(5):  # the browser tells late that it was closed, when it may be open again
        assert page.evaluate(NEXT, "?") is True
        assert page.evaluate(NEXT, "close") is False
    page.evaluate(f"({NEXT})('?').then(() => ({NEXT})('close')).then(() => ({NEXT})('?'))")
    page.wait_for_timeout(100)
    assert page.get_by_test_id("help-dialog").is_visible()


def test_the_narrations_keys(visit: Visit) -> None:
    page = visit()
    page.keyboard.press("?")
    dialog = page.get_by_test_id("help-dialog")
    assert dialog.is_visible()
    page.keyboard.press("Space")  # it belongs to the dialog's button
    until(page, "!document.querySelector('dialog').open")
    assert state(page)["narrator"]["state"] == "idle"
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('dialog').open")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    until(page, "__lesson.narrator.state === 'playing'")
    assert page.evaluate("scrollY") == 0
    caption = page.get_by_test_id("caption")
    assert caption.is_visible()
    page.keyboard.press("c")
    assert not caption.is_visible()
    page.keyboard.press("c")
    assert caption.is_visible()
    page.keyboard.press(">")
    until(page, "__lesson.narrator.speed === 1.25")
    assert page.get_by_test_id("speed").input_value() == "1.25"
    page.keyboard.press("<")
    page.keyboard.press("<")
    until(page, "__lesson.narrator.speed === 0.75")
    page.keyboard.press("PageDown")
    until(page, "!__lesson.follow")
    page.keyboard.press("r")
    until(page, "__lesson.follow")


def test_where_the_reader_was_is_kept(visit: Visit) -> None:
    page = visit()
    page.get_by_test_id("sentence-4-3").click()
    until(page, "__lesson.narrator.paragraph === 3")
    assert state(page)["narrator"]["state"] == "idle"
    page.reload()
    until(page, "window.__lesson?.narrator?.paragraph === 3 && __lesson.narrator.sentence === 2")


def test_a_theme_is_kept(visit: Visit) -> None:
    page = visit(color_scheme="dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.get_by_test_id("theme").click()
    page.reload()
    until(page, "document.documentElement.dataset.theme === 'light'")


@pytest.mark.parametrize("width", [360, 390, 768, 1920])
def test_nothing_is_wider_than_the_screen(visit: Visit, width: int) -> None:
    page = visit("table", viewport={"width": width, "height": 800})
    for name in FIGURES:
        page.get_by_test_id(f"figure-{name}").scroll_into_view_if_needed()
        assert page.evaluate("document.documentElement.scrollWidth") == width
    drawn(page)
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


# What sticks out of the screen without being in a box that scrolls.
OUTSIDE = """[...document.querySelectorAll("main *, .narration *")].filter((each) => {
  const box = each.getBoundingClientRect();
  if (box.width === 0 || box.right <= innerWidth + 1) return false;
  return !each.closest(".picker, .display, .versions.table, .hidden, .katex-mathml");
}).map((each) => each.outerHTML.slice(0, 120))"""


def test_a_lesson_may_be_chosen_from_the_list(visit: Visit) -> None:
    page = visit()
    line = page.get_by_test_id("lesson-geometry-of-latent-spaces")
    assert line.get_attribute("aria-current") == "page"
    assert "0 / 6" in line.inner_text()
    assert page.url.endswith("#geometry-of-latent-spaces")
    assert (
        page.get_by_role("heading", level=1).inner_text()
        == "The Geometry of Latent Spaces: Bayesian Inference and the VAE"
    )
    assert page.get_by_role("heading", level=2).count() == 6
