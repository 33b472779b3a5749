"""Each figure of the lesson in a browser: its numbers are the library's, and change with the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from page_cases import figure, state, until

import vaelid as vd
from vaelid import geometry, lesson
from vaelid.evidence.quadrature import Quadrature, quadrature
from vaelid.lesson.gradients import gradients
from vaelid.runs import SCORING, Run
from vaelid.studio import Subject

Visit = Callable[..., Any]
Runs = dict[str, Run]


# Where the middle of q is on the screen, from the frame of the plane and the room that its axes leave.
HANDLE = """(mean) => {
  const canvas = document.querySelector('[data-testid=ellipse]');
  const box = canvas.getBoundingClientRect();
  const [wide, tall] = [box.width - 60, box.height - 48];
  const frame = window.__lesson.figures.approximation.frame;
  const scale = Math.min(wide / (frame[2] - frame[0]), tall / (frame[3] - frame[1]));
  return [
    box.left + 50 + wide / 2 + (mean[0] - (frame[0] + frame[2]) / 2) * scale,
    box.top + 10 + tall / 2 - (mean[1] - (frame[1] + frame[3]) / 2) * scale,
  ];
}"""


def integrated(run: Run, row: int) -> Quadrature:
    subject = Subject.open(run.path)
    return quadrature(subject.model, subject.batch(subject.places([row])))


def test_belief_is_the_quadratures_and_another_datum_moves_it(visit: Visit, page_runs: Runs) -> None:
    page = visit()
    found = figure(page, "belief")
    expected = integrated(page_runs["digits"], found["row"])
    assert found["log_evidence"] == float(expected.log_evidence[0])
    assert found["error"] == float(expected.error[0])
    assert f"{found['log_evidence']:.2f}".replace("-", "−")[:-1] in page.get_by_test_id("belief-evidence").inner_text()
    picker = page.get_by_test_id("picker-belief")
    assert picker.get_by_role("radio").count() == 40
    picker.get_by_role("radio").nth(3).click()
    other = figure(page, "belief", f"f.row !== {found['row']}")
    assert other["log_evidence"] == float(integrated(page_runs["digits"], other["row"]).log_evidence[0])
    picker.get_by_role("radio").nth(3).press("ArrowRight")
    figure(page, "belief", f"f.row !== {other['row']}")
    for name in ("prior", "likelihood", "posterior"):
        assert page.get_by_test_id(f"map-{name}").get_attribute("aria-label").startswith("p(")


def test_the_divergence_is_the_quadratures_wherever_the_ellipse_is_dragged(visit: Visit, page_runs: Runs) -> None:
    page = visit()
    figure(page, "belief")
    before = figure(page, "approximation")
    canvas = page.get_by_test_id("ellipse")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    grid = integrated(page_runs["digits"], before["row"])
    canvas.focus()
    for key in ("ArrowLeft", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowDown", "r", "r"):
        canvas.press(key)
    moved = figure(page, "approximation", f"f.angle > {before['angle']} + 0.15")
    assert moved["mean"][0] < before["mean"][0]
    assert moved["sd"][0] > before["sd"][0]
    q = lesson.Ellipse.of(moved["mean"], moved["sd"], moved["angle"])
    kl, error = grid.kl(q.log_density)
    assert moved["kl"] == pytest.approx(float(kl[0]), abs=float(error[0]) + moved["kl_error"] + 1e-4)
    page.get_by_test_id("choose-best").click()
    best = figure(page, "approximation", "f.kl === f.best.kl || Math.abs(f.kl - f.best.kl) < 1e-4")
    assert best["kl"] <= best["encoder"]["kl"]
    assert "KL is" in canvas.get_attribute("aria-label")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.get_by_test_id("choose-encoder").click()
    figure(page, "approximation", "Math.abs(f.kl - f.encoder.kl) < 1e-4")


def test_the_ellipse_can_be_dragged_by_the_mouse(visit: Visit) -> None:
    page = visit()
    before = figure(page, "approximation")
    canvas = page.get_by_test_id("ellipse")
    canvas.scroll_into_view_if_needed()
    at = page.evaluate(HANDLE, before["mean"])
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 25, at[1] - 15, steps=4)
    page.mouse.up()
    right, up = before["mean"]
    after = figure(page, "approximation", f"f.mean[0] > {right} && f.mean[1] > {up}")
    assert after["sd"] == pytest.approx(before["sd"])


def test_the_bar_stays_level_and_is_measured(visit: Visit, page_runs: Runs) -> None:
    page = visit()
    figure(page, "approximation")
    before = figure(page, "bar")
    page.get_by_test_id("bar-ellipse").press("ArrowUp")
    after = figure(page, "bar", f"f.kl !== {before['kl']}")
    grid = integrated(page_runs["digits"], after["row"])
    for found in (before, after):
        assert found["log_evidence"] == float(grid.log_evidence[0])
        slack = found["kl_error"] + found["elbo_error"] + found["log_evidence_error"]
        assert found["kl"] + found["elbo"] == pytest.approx(found["log_evidence"], abs=slack + 1e-6)
    q = lesson.Ellipse.of(after["mean"], after["sd"], after["angle"])
    elbo, error = grid.elbo(q.log_density)
    assert after["elbo"] == pytest.approx(float(elbo[0]), abs=float(error[0]) + after["elbo_error"] + 1e-4)
    page.get_by_test_id("bracket").click()
    held = figure(page, "bar", "f.bracket && f.bracket.lower !== null")["bracket"]
    spread = 5 * (held["lower_se"] + held["upper_se"]) + 0.1
    assert held["lower"] - spread < after["log_evidence"] < held["upper"] + spread
    assert "lies between" in page.get_by_test_id("bracket-said").inner_text()
    page.evaluate("document.querySelector('[data-testid=bracket-cancel]')?.click()")  # it may have ended by itself
    page.get_by_test_id("bracket").wait_for()


def test_rate_and_distortion_are_an_evaluation(visit: Visit, page_runs: Runs) -> None:
    page = visit()
    found = figure(page, "betas", "!f.running && f.points.length > 2")
    betas = [point["beta"] for point in found["points"]]
    assert betas == sorted(betas)
    made = lesson.companion(page_runs["digits"], betas[0])
    batch = made.sample.batch(made.model, made.sample.parts.test)
    expected = vd.evaluate(made.model, batch, samples=100, key=SCORING.fold("evaluate"))
    first = found["points"][0]
    assert (first["rate"], first["rate_se"]) == pytest.approx(expected.rate)
    assert (first["distortion"], first["distortion_se"]) == pytest.approx(expected.distortion)
    page.get_by_test_id(f"beta-{betas[-1]:g}").click()
    assert figure(page, "betas", f"f.picked === {betas[-1]}")
    assert f"β = {betas[-1]:g}" in page.get_by_test_id("betas-reading").inner_text()
    page.get_by_test_id(f"beta-{betas[-1]:g}").press("ArrowLeft")
    figure(page, "betas", f"f.picked === {betas[-2]}")


def test_gradients_are_those_of_the_row(visit: Visit, page_runs: Runs) -> None:
    page = visit()
    found = figure(page, "gradients")
    page.get_by_test_id("eps-1").focus()
    page.keyboard.press("ArrowRight")
    moved = figure(page, "gradients", f"f.eps[0] !== {found['eps'][0]}")
    assert moved["z"] == pytest.approx(np.array(moved["mean"]) + np.array(moved["sd"]) * np.array(moved["eps"]))
    page.get_by_test_id("noise").press("Shift+ArrowUp")
    moved = figure(page, "gradients", f"f.eps[1] > {found['eps'][1]} + 0.4")
    page.get_by_test_id("gradients-samples").select_option("100")
    few = figure(page, "gradients", "f.samples === 100")
    subject = Subject.open(page_runs["digits"].path)
    datum = lesson.Datum.of(subject.model, subject.batch(subject.places([few["row"]])))
    expected = gradients(datum, few["eps"], 100)
    for name in ("exact", "ratio"):
        assert few[name] == pytest.approx(expected[name], rel=1e-6)
    for name in ("pathwise", "score", "baseline"):
        assert few[name]["mean"] == pytest.approx(expected[name]["mean"], rel=1e-6)
        assert few[name]["variance"] == pytest.approx(expected[name]["variance"], rel=1e-6)


def test_the_plane_is_decoded_sampled_and_crossed(visit: Visit, page_runs: Runs) -> None:
    page = visit()
    before = figure(page, "plane", "f.decoded")
    canvas = page.get_by_test_id("plane-map")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 20, steps=5)
    page.mouse.up()
    figure(page, "plane", f"f.z[0] !== {before['z'][0]} && f.far > 1")
    assert page.get_by_test_id("far").is_visible()
    page.get_by_test_id("sample-prior").click()
    figure(page, "plane", "f.drawn === 12")
    page.get_by_test_id("geodesic").click()
    found = figure(page, "plane", "f.geodesic")
    model = Subject.open(page_runs["digits"].path).model
    a, b = (torch.tensor([found[end]], dtype=torch.float32) for end in ("a", "b"))
    direct = geometry.geodesic(geometry.embedding(model), a, b)
    assert found["geodesic"]["length"] <= found["geodesic"]["straight_length"] + 1e-6
    assert found["geodesic"]["length"] == pytest.approx(float(direct.length), rel=0.02)
    page.get_by_test_id("hold-z").press("ArrowRight")
    canvas.press("Shift+ArrowLeft")
    moved = figure(page, "plane", f"f.a[0] < {found['a'][0]} && f.geodesic")
    assert moved["z"] == found["z"] != before["z"]
    assert page.get_by_test_id("legend").get_by_role("listitem").count() == 11
    assert page.get_by_test_id("open-studio").get_attribute("href") == "/studio"


def test_every_figure_changes_with_the_run(visit: Visit) -> None:
    numbers = []
    for name in ("digits", "others"):
        page = visit(name)
        belief, approximation = figure(page, "belief"), figure(page, "approximation")
        bar, slopes = figure(page, "bar"), figure(page, "gradients")
        figure(page, "plane", "f.decoded")
        page.get_by_test_id("geodesic").click()
        path = figure(page, "plane", "f.geodesic")["geodesic"]
        numbers.append((belief["log_evidence"], approximation["kl"], bar["elbo"], slopes["exact"], path["length"]))
    for one, other in zip(*numbers, strict=True):
        assert one != other
    rates = [figure(visit(name), "betas", "f.points.length > 0")["points"][0]["rate"] for name in ("digits", "table")]
    assert rates[0] != rates[1]


def test_a_table_of_four_latents_is_shown_by_a_companion(visit: Visit) -> None:
    page = visit("table")
    assert "because the run has 4 latents" in page.get_by_test_id("subject").inner_text()
    assert state(page)["subject"]["companion"]
    figure(page, "belief")
    assert "a companion with two latents" in page.get_by_test_id("figure-belief").inner_text()
    for name in ("width", "bend", "twist", "height", "sum"):
        assert page.get_by_test_id("figure-belief").get_by_role("rowheader", name=name, exact=True).is_visible()
    for name in ("approximation", "bar", "gradients"):
        figure(page, name)
    figure(page, "plane", "f.decoded")
    until(page, "document.querySelector('[data-testid=legend]').innerText.includes('down')")


def test_what_is_waited_for_and_what_has_gone_is_said_in_words(visit: Visit) -> None:
    page = visit(script=SOCKET)
    figure(page, "belief")
    page.evaluate("WebSocket.prototype.send = () => undefined")
    page.get_by_test_id("picker-belief").get_by_role("radio").nth(5).click()
    assert "Integrating over the plane" in page.get_by_test_id("figure-belief").inner_text()
    page.evaluate("held.close()")
    page.get_by_test_id("gone").wait_for()
    assert "reload" in page.get_by_test_id("gone").inner_text()
    assert "has stopped" in page.get_by_test_id("figure-belief").inner_text()
    assert state(page)["error"]


SOCKET = """
const Own = WebSocket;
window.WebSocket = class extends Own { constructor(...given) { super(...given); window.held = this; } };
"""
