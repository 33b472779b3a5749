"""The narration on the real page: three clocks, jumps, scrolling, and what goes wrong with sound."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from page_cases import state, until

Visit = Callable[..., Any]
PARAGRAPHS = 6
FAST = """
for (const name of ["playbackRate", "defaultPlaybackRate"]) {
  const own = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, name);
  const set = function (value) { own.set.call(this, 16 * value); };
  Object.defineProperty(HTMLMediaElement.prototype, name, { get: own.get, set });
}
"""
HEARD = """
window.heard = { paragraphs: [], progress: [], most: 0 };
setInterval(() => {
  const now = window.__lesson?.narrator;
  if (!now || now.state === "idle" && heard.paragraphs.length === 0) return;
  if (heard.paragraphs.at(-1) !== now.paragraph) heard.paragraphs.push(now.paragraph);
  if (heard.progress.at(-1) !== now.progress) heard.progress.push(now.progress);
  heard.most = Math.max(heard.most, [...document.querySelectorAll("audio")].filter((each) => !each.paused).length);
}, 20);
"""
# A voice of the browser's. `ends` tells when an utterance that begins at `t` ms after the first word ends, or never.
VOICE = """
(() => {
  const voices = KIND === "none" ? [] : [{ lang: "en-GB", localService: true, default: true, name: "stub" }];
  let timer = 0, first = null;
  window.spoken = [];
  window.SpeechSynthesisUtterance = class { constructor(text) { this.text = text; } };
  const synthesis = {
    getVoices: () => voices,
    cancel() { clearTimeout(timer); },
    speak(utterance) {
      window.spoken.push(utterance.text);
      if (KIND === "hang") return;
      setTimeout(() => utterance.onstart?.({}), 0);
      first ??= performance.now();
      const length = 300 * utterance.text.split(" ").length / utterance.rate;
      if (KIND === "dies" && performance.now() + length > first + 14000) return;
      if (KIND === "normal") setTimeout(() => utterance.onboundary?.({ charIndex: 0, name: "word" }), length / 2);
      timer = setTimeout(() => utterance.onend?.({}), length);
    },
  };
  Object.defineProperty(window, "speechSynthesis", { configurable: true, value: synthesis });
})();
"""


def play(page: Any) -> None:
    page.get_by_test_id("play").click()
    until(page, "__lesson.narrator.state === 'playing'")


def sounding(page: Any) -> int:
    found: int = page.evaluate("[...document.querySelectorAll('audio')].filter((each) => !each.paused).length")
    return found


def test_recordings_at_sixteen_times_the_speed_visit_every_paragraph_once(visit: Visit) -> None:
    page = visit(script=FAST + HEARD)
    play(page)
    until(page, "__lesson.narrator.finished.length === 6 && heard.progress.length === 7", 60)
    heard = page.evaluate("heard")
    assert heard["paragraphs"] == list(range(PARAGRAPHS))
    assert heard["progress"] == [f"{done} / {PARAGRAPHS}" for done in range(PARAGRAPHS + 1)]
    assert heard["most"] == 1
    assert page.get_by_test_id("progress").inner_text() == "6 / 6"
    assert state(page)["narrator"]["clock"] == "audio"
    page.reload()
    until(page, "window.__lesson?.narrator")
    assert page.get_by_test_id("progress").inner_text() == "6 / 6"
    page.get_by_test_id("start-over").click()
    until(page, "__lesson.narrator?.progress === '0 / 6'")


def test_a_pause_freezes(visit: Visit) -> None:
    page = visit()
    play(page)
    until(page, "__lesson.narrator.time > 0.5")
    page.keyboard.press("k")
    until(page, "__lesson.narrator.state === 'paused'")
    before = state(page)["narrator"]
    page.wait_for_timeout(800)
    assert state(page)["narrator"] == before
    assert sounding(page) == 0
    page.keyboard.press("k")
    until(page, f"__lesson.narrator.time > {before['time']}")
    assert sounding(page) == 1


def test_a_jump_in_the_middle_of_a_sentence_leaves_one_audio_playing(visit: Visit) -> None:
    page = visit()
    play(page)
    until(page, "__lesson.narrator.time > 0.3")
    page.get_by_test_id("sentence-3-2").click()
    until(page, "__lesson.narrator.paragraph === 2 && __lesson.narrator.sentence === 1")
    page.get_by_test_id("listen-5").click()
    until(page, "__lesson.narrator.paragraph === 4")
    page.wait_for_timeout(400)
    assert sounding(page) == 1
    assert page.locator("audio").count() == 1
    assert page.get_by_test_id("sentence-5-1").get_attribute("aria-current") == "true"
    assert page.get_by_test_id("caption").inner_text().startswith("Training follows gradients")
    page.get_by_test_id("paragraph-2").locator(".text").click(position={"x": 2, "y": 2})
    until(page, "__lesson.narrator.paragraph === 1")
    assert state(page)["narrator"]["state"] == "playing"


def test_scrolling_does_not_move_the_narrator_and_there_is_a_way_back(visit: Visit) -> None:
    page = visit()
    assert page.get_by_test_id("return").count() == 0
    play(page)
    until(page, "__lesson.narrator.time > 0.2")
    place = state(page)["narrator"]
    page.mouse.move(300, 400)
    for _ in range(20):
        page.mouse.wheel(0, 300)
    until(page, "!__lesson.follow")
    now = state(page)["narrator"]
    assert (now["state"], now["paragraph"], now["progress"]) == ("playing", place["paragraph"], place["progress"])
    assert sounding(page) == 1
    until(page, "scrollY > 1500")
    page.get_by_test_id("return").click()
    until(page, "__lesson.follow && scrollY < 900")
    assert page.get_by_test_id("return").count() == 0
    assert page.get_by_test_id("sentence-1-1").is_visible()


def test_the_page_follows_the_narration(visit: Visit) -> None:
    page = visit()
    play(page)
    page.keyboard.press("l")
    page.keyboard.press("ArrowRight")
    until(page, "__lesson.narrator.paragraph === 2 && scrollY > 800")
    top = page.get_by_test_id("sentence-3-1").bounding_box()["y"]
    assert 0 < top < 800
    page.keyboard.press("Shift+ArrowRight")
    until(page, "__lesson.narrator.sentence === 1")
    page.keyboard.press("j")
    until(page, "__lesson.narrator.paragraph === 1 && __lesson.narrator.sentence === 0")


def test_silence_under_a_fake_clock(visit: Visit) -> None:
    page = visit(script=HEARD)
    page.get_by_test_id("voice").select_option("silent")
    page.clock.install()
    play(page)
    wind(page)
    heard = page.evaluate("heard")
    assert state(page)["narrator"]["progress"] == "6 / 6"
    assert sounding(page) == 0
    assert heard["most"] == 0


@pytest.mark.parametrize("kind", ["normal", "no boundary", "hang", "dies", "none"])
def test_the_browsers_voice(visit: Visit, kind: str) -> None:
    page = visit(script=VOICE.replace("KIND", json.dumps(kind)))
    page.clock.install()
    page.get_by_test_id("voice").select_option("speech")
    play(page)
    wind(page)
    narrator, spoken = state(page)["narrator"], page.evaluate("spoken.length")
    assert narrator["finished"] == list(range(PARAGRAPHS))
    if kind in ("hang", "none"):
        assert narrator["clock"] == "silent"
        assert "Captions go on in silence" in page.get_by_test_id("notice").inner_text()
        assert spoken == (2 if kind == "hang" else 0)
    else:
        assert narrator["clock"] == "speech"
        assert spoken == page.locator(".sentence").count()


def test_without_sound_captions_go_on(visit: Visit) -> None:
    page = visit(block="**/assets/audio/*.mp3")
    page.get_by_test_id("captions").click()
    page.clock.install()
    page.get_by_test_id("play").click()
    until(page, "__lesson.narrator.clock === 'silent'")
    assert "could not be" in page.get_by_test_id("notice").inner_text()
    assert page.get_by_test_id("caption").inner_text().startswith("Bayes")
    wind(page)
    assert state(page)["narrator"]["progress"] == "6 / 6"


def wind(page: Any, step: int = 20_000, most: int = 1_500_000) -> None:
    """Let the page's clock run until the narration has ended."""
    for _ in range(0, most, step):
        page.clock.run_for(step)
        if state(page)["narrator"]["state"] == "idle":
            return
    raise TimeoutError(state(page)["narrator"])
