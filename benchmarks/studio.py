"""How fast the studio answers, in headless Chromium, measured in the page.

    python -m benchmarks.studio [RUN …] [--moves 300]

Drags: the pointer crosses the map in steps; from each pointer event to the end of the frame that shows its decoded
picture. Without RUN: two models of 28 × 28 pixels (digits, enlarged), one with a Bernoulli likelihood and one with the
likelihood that grey images get by themselves. Points: a table of 150,000 rows, of which the studio draws 100,000 and
says so; the time between frames while the map is panned, and that of a full redraw after each zoom. First page: from
navigation until the points are drawn. Lines to hold: drag median 16 ms, 95th percentile 40 ms; pan 95th percentile
33 ms; redraw 200 ms; first page 1.5 s.

Needs Playwright (a test extra) and Chromium on the path.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from playwright.sync_api import Page, sync_playwright

import vaelid as vd

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
ROWS = 150_000
PAUSE = 0.016  # seconds between pointer events


def pictures(folder: Path, likelihood: str) -> Path:
    """A run on digits of 28 × 28 pixels, as `vaelid train` would make it; trained for an epoch, which is as fast."""
    digits = vd.data.load("digits")
    large = np.kron(digits.x, np.ones((1, 1, 4, 4)))[..., 2:30, 2:30]
    x = (large > 7).astype(np.uint8) if likelihood == "bernoulli" else np.round(large * 255 / 16).astype(np.uint8)
    return trained(folder / f"28x28-{likelihood}", x, digits.labels)


def table(folder: Path) -> Path:
    """A run on a table of many rows."""
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((ROWS, 2))).float()
    x = torch.cat((noise, noise.square(), noise.prod(1, keepdim=True)), 1) + 0.1 * torch.randn(ROWS, 5)
    return trained(folder / "table", x.numpy(), (noise[:, 0] > 0).long().numpy())


def trained(out: Path, x: np.ndarray, labels: np.ndarray) -> Path:
    np.savez(out.with_suffix(".npz"), x=x, label=labels)
    data = vd.data.load(out.with_suffix(".npz"), label="label")
    vd.fit(vd.recipes.vae(data, latent=2), data, epochs=1, out=out, progress=False)
    return out


@contextlib.contextmanager
def served(run: Path) -> Iterator[str]:
    """The address of a studio over a run."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vaelid", "studio", str(run), "--port", "0", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def state(page: Page, what: str) -> Any:
    """A part of what the page says of itself."""
    return page.evaluate(f"window.__studio.{what}")


def opened(page: Page, address: str) -> float:
    """Open the studio and wait for its points; seconds from navigation, by the page's own clock."""
    page.goto(address)
    while not (first := page.evaluate("window.__studio?.frames?.first ?? 0")):
        page.wait_for_timeout(20)
    return float(first) / 1e3


def box(page: Page) -> tuple[float, float, float, float]:
    """The map's place on the page: left, top, width, height."""
    found = page.get_by_test_id("canvas").first.bounding_box()
    assert found is not None
    return found["x"], found["y"], found["width"], found["height"]


def drag(page: Page, moves: int) -> None:
    """Move the pressed pointer through the map along a rosette."""
    left, top, width, height = box(page)
    t = np.linspace(0, 2 * np.pi, moves)
    xs = left + width * (0.5 + 0.3 * np.cos(3 * t) * np.cos(t))
    ys = top + height * (0.5 + 0.3 * np.cos(3 * t) * np.sin(t))
    page.mouse.move(float(xs[0]), float(ys[0]))
    page.mouse.down()
    for x, y in zip(xs, ys, strict=True):
        page.mouse.move(float(x), float(y))
        time.sleep(PAUSE)
    page.mouse.up()


# Drives a pan from inside the page, one pointer event a frame, so that what is timed is the page.
PAN = """(moves) => new Promise((done) => {
  const canvas = document.querySelector("[data-testid=canvas]");
  const { left, top, width, height } = canvas.getBoundingClientRect();
  canvas.setPointerCapture = canvas.releasePointerCapture = () => {};
  let move = 0;
  const say = (type) => {
    const t = (2 * Math.PI * move) / moves;
    canvas.dispatchEvent(new PointerEvent(type, {
      bubbles: true, pointerId: 1, isPrimary: true, pointerType: "mouse", button: type === "pointermove" ? -1 : 0,
      buttons: type === "pointerup" ? 0 : 1, clientX: left + width * (0.5 + 0.3 * Math.cos(3 * t) * Math.cos(t)),
      clientY: top + height * (0.5 + 0.3 * Math.cos(3 * t) * Math.sin(t)),
    }));
  };
  say("pointerdown");
  const frame = () => {
    move += 1;
    say("pointermove");
    if (move < moves) requestAnimationFrame(frame);
    else { say("pointerup"); done(); }
  };
  requestAnimationFrame(frame);
})"""


def quantiles(values: list[float]) -> str:
    middle, high = np.quantile(values, (0.5, 0.95))
    return f"median {middle:.1f} ms, 95th percentile {high:.1f} ms, {len(values)} of them"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--moves", type=int, default=300)
    asked = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is not on the path")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        runs = asked.runs or [pictures(Path(folder), likelihood) for likelihood in ("bernoulli", "grey")]
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        print(f"{browser.browser_type.name} {browser.version}, {os.cpu_count()} cores, torch {torch.__version__}")
        for run in runs:
            with served(run) as address:
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                cold = opened(page, address)
                drag(page, asked.moves)
                drags = state(page, "drags")
                print(f"{run.name}: first page {cold:.2f} s; drag to picture {quantiles(drags['shown'])}")
                page.close()
        with served(table(Path(folder))) as address:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            cold = opened(page, address)
            print(f"table: {state(page, 'info.sample')}; first page {cold:.2f} s")
            page.get_by_test_id("tool-pan").click()
            page.evaluate(PAN, asked.moves)
            print(f"  pan, between frames {quantiles(state(page, 'frames.pans'))}")
            left, top, width, height = box(page)
            page.mouse.move(left + width / 2, top + height / 2)
            before = len(state(page, "frames.redraws"))
            for step in range(10):
                page.mouse.wheel(0, -120 if step % 2 else 120)
                page.wait_for_timeout(700)
            print(f"  redraw {quantiles(state(page, 'frames.redraws')[before:])}")
        browser.close()


if __name__ == "__main__":
    main()
