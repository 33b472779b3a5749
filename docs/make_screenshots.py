"""Take the pictures of lesson and studio for these pages: ``python docs/make_screenshots.py RUN``.

RUN has two latents, as ``vaelid train digits --latent 2`` makes it. Needs Playwright and Chromium on the path.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

TARGET = Path(__file__).parent / "images"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
WIDE = {"width": 1360, "height": 850}


def until(page: Page, condition: str) -> None:
    """Wait until an expression holds on the page."""
    while not page.evaluate(condition):
        page.wait_for_timeout(50)


def keep(page: Page, name: str) -> None:
    """Keep a picture of what is seen, in 256 colours."""
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(TARGET / f"{name}.png", optimize=True)


def lesson(page: Page, address: str) -> None:
    """The first paragraph, read aloud, beside its figure."""
    page.goto(address.replace("/studio?", "/lesson?"))
    until(page, "window.__lesson?.figures?.belief")
    page.get_by_test_id("play").click()
    page.wait_for_timeout(9000)
    page.evaluate("scrollTo(0, 372)")
    page.wait_for_timeout(600)
    keep(page, "lesson")


def studio(page: Page, address: str) -> None:
    """The map over decoded digits, and a row's posterior and evidence; then a geodesic over the metric's volume."""
    page.goto(f"{address}#tab=row&tool=row&ground=lattice&row=100")
    until(page, "window.__studio?.row && window.__studio.lattice")
    page.get_by_test_id("evidence").click()
    until(page, "window.__studio.evidence.state === 'done'")
    page.get_by_test_id("panel-row").evaluate("panel => panel.parentElement.scrollTo(0, 0)")
    page.wait_for_timeout(600)
    keep(page, "studio")
    page.get_by_test_id("theme").click()
    page.goto("about:blank")
    page.goto(f"{address}#tab=path&tool=path&ground=volume&a=-3,-1&b=3,2")
    until(page, "window.__studio?.path?.length && window.__studio.volume?.state === 'done'")
    page.wait_for_timeout(600)
    keep(page, "studio-path")


def main(run: str) -> None:
    """Serve the run and take the pictures."""
    command = [sys.executable, "-m", "vaelid", "studio", run, "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = json.loads(process.stdout.readline())["address"]  # type: ignore[union-attr]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            for each in (lesson, studio):
                page = browser.new_page(viewport=WIDE, color_scheme="light")
                each(page, address)
                page.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
