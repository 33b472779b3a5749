"""The studio's map and panels on the real page: what they show is what the library says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from serving_cases import running

import vaelid as vd
from vaelid import geometry, studio
from vaelid.evidence import quadrature
from vaelid.runs import Run
from vaelid.serving import Page
from vaelid.studio import inference, latents

Visit = Callable[..., Any]
ROW = 11


def decoded(path: Path, x: float, y: float) -> np.ndarray:
    """E[x|z] of a picture of digits at a point, as bytes (h, w, 1)."""
    model = Run.open(path).model().eval()
    z = torch.tensor([[x, y]], dtype=torch.float32)
    with torch.no_grad():
        levels = model.decode(z).point * (255 / 16)
    bytes_: np.ndarray = (levels + 0.5).clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()
    return bytes_


def test_map_shows_every_row_where_the_desk_puts_it(visit: Visit, desk: studio.Desk) -> None:
    tab = visit()
    state, plane = tab.state, desk.plane("dims", 0, 1)
    assert state["points"] == state["shown"] == len(plane["rows"]) == 1797
    x0, y0, x1, y1 = plane["frame"]
    view = state["view"]
    assert view["x0"] <= x0 + 1e-6
    assert view["x1"] >= x1 - 1e-6
    assert view["y0"] <= y0 + 1e-6
    assert view["y1"] >= y1 - 1e-6
    assert tab.by("shown").inner_text() == "1,797 rows"
    assert tab.by("run-name").inner_text() == "digits"
    assert "2 latents" in tab.by("model").inner_text()
    assert state["frames"]["first"] > 0


def test_a_sample_is_called_one(
    visit: Visit, page_runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copytree(page_runs[0], tmp_path / "copy")
    monkeypatch.setattr(latents, "_FEWEST", 500)
    monkeypatch.setattr(latents, "SHOWN", 500)
    with running({"studio": Page("Studio", lambda: studio.Desk([path]))}, "studio") as site:
        tab = visit(on=site)
        assert tab.state["points"] == 500
        assert tab.by("shown").inner_text() == "500 of 1,797 rows, a sample stratified by digit"


def test_pan_and_zoom(visit: Visit) -> None:
    tab = visit("ground=none&tool=pan")
    before = tab.state["view"]
    width = before["x1"] - before["x0"]
    (ax, ay), (bx, by) = tab.spot(0.4, 0.4), tab.spot(0.6, 0.7)
    near = 0.01 * width
    tab.drag((ax, ay), (bx, by))
    panned = tab.until(f"Math.abs(s.view.x0 - {before['x0'] + ax - bx}) < {near}")["view"]
    assert panned["y0"] == pytest.approx(before["y0"] + ay - by, abs=near)
    assert panned["x1"] - panned["x0"] == pytest.approx(width)
    fixed = tab.spot(0.3, 0.8)
    x, y = tab.at(*fixed)
    tab.page.mouse.move(x, y)
    tab.page.mouse.wheel(0, -300)
    tab.until(f"s.view.x1 - s.view.x0 < {0.9 * width}")
    assert tab.at(*fixed) == pytest.approx((x, y), abs=1.5)  # what is under the pointer stays there
    tab.by("zoom-out").click()
    tab.by("zoom-all").click()
    tab.until(f"Math.abs(s.view.x0 - {before['x0']}) < 1e-6")
    tab.by("tool-decode").click()
    tab.drag((ax, ay), (bx, ay), button="right")  # pans with any tool
    tab.until(f"Math.abs(s.view.x0 - {before['x0'] + ax - bx}) < {near}")
    assert tab.state["drags"]["sent"] == 0
    tab.until("s.frames.pans.length > 0")


def test_hover_names_the_row_under_the_pointer(visit: Visit, desk: studio.Desk) -> None:
    tab = visit()
    x, y = desk.row(ROW)["point"]
    tab.page.mouse.move(*tab.at(x, y))
    state = tab.until("s.hover && s.hover.thumb && s.hover.ellipse")
    plane = desk.plane("dims", 0, 1)
    row = state["hover"]["row"]
    near = plane["points"][plane["rows"].tolist().index(row)]
    view = state["view"]
    assert np.hypot(near[0] - x, near[1] - y) <= 0.02 * (view["x1"] - view["x0"])
    assert f"row {row}" in tab.by("hover").inner_text()
    assert str(int(desk.row(row)["label"])) in tab.by("hover").inner_text()
    tab.page.mouse.move(5, 5)
    tab.until("!s.hover")


def test_lasso_selects_what_lies_inside(visit: Visit, desk: studio.Desk) -> None:
    tab = visit("ground=none&tool=lasso")
    (x0, y0), (x1, y1) = tab.spot(0.4, 0.35), tab.spot(0.6, 0.65)
    tab.drag((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0), steps=3)
    state = tab.until("s.selection && s.selection.count > 0")
    plane = desk.plane("dims", 0, 1)
    x, y = plane["points"].T
    inside = (x0 < x) & (x < x1) & (y0 < y) & (y < y1)
    rows = set(plane["rows"][inside].tolist())
    assert len(rows ^ set(state["selection"]["rows"])) <= 0.02 * len(rows) + 2  # those on the line
    assert state["tab"] == "selection"
    counted = tab.page.eval_on_selector_all("[data-testid=breakdown] > *", "all => all.map(e => +e.dataset.count)")
    assert sum(counted) == state["selection"]["count"]
    wanted = min(24, state["selection"]["count"])
    tab.by("selection-thumbs").locator("canvas").nth(wanted - 1).wait_for()
    assert tab.by("selection-thumbs").locator("canvas").count() == wanted
    tab.by("ellipses").click()
    tab.until(f"s.selection.ellipses === {min(500, state['selection']['count'])}")
    with tab.page.expect_download() as download:
        tab.by("csv").click()
    text = Path(download.value.path()).read_text()
    assert text == desk.table(state["selection"]["rows"])["csv"]
    tab.by("clear-selection").click()
    tab.until("!s.selection")
    with tab.page.expect_download() as download:
        tab.by("csv-all").click()
    assert Path(download.value.path()).read_text() == desk.table(plane["rows"].tolist())["csv"]


def test_colours_and_their_whole_legend(visit: Visit, desk: studio.Desk) -> None:
    tab = visit()
    entries = tab.by("legend-entry")
    found = desk.colour("digit")
    named = entries.evaluate_all("all => all.map(e => [e.dataset.name, +e.dataset.count])")
    assert named == [list(pair) for pair in zip(found["names"], found["counts"], strict=True)]
    entries.nth(3).click()
    assert tab.until("s.shown < s.points")["shown"] == 1797 - found["counts"][3]
    entries.nth(3).click()
    tab.until("s.shown === s.points")
    tab.by("colour").select_option("KL")
    tab.until("s.colour === 'KL'")
    bar = tab.by("colour-bar").get_attribute("aria-label")
    assert bar.startswith("KL: from ")
    tab.by("colour").select_option("split")
    tab.until("s.colour === 'split' && s.legend === 3")
    assert entries.evaluate_all("all => all.map(e => e.dataset.name)") == ["train", "validation", "test"]


def test_drag_decodes_what_the_library_decodes(visit: Visit, page_runs: list[Path]) -> None:
    tab = visit()
    end = tab.spot(0.6, 0.6)
    tab.drag(tab.spot(0.3, 0.3), end, steps=12)
    near = " && ".join(f"Math.abs(s.decoded.{axis} - {at}) < 0.02" for axis, at in zip("xy", end, strict=True))
    last = tab.until(f"s.decoded && {near} && s.drags.sent === s.drags.drawn")
    shown = np.array(last["decoded"]["bytes"], np.uint8).reshape(8, 8, 1)
    np.testing.assert_array_equal(shown, decoded(page_runs[0], last["decoded"]["x"], last["decoded"]["y"]))
    pixels = tab.by("screen").evaluate("c => [...c.getContext('2d').getImageData(0, 0, 8, 8).data]")
    np.testing.assert_array_equal(np.array(pixels).reshape(8, 8, 4)[..., :1], shown)
    assert len(last["drags"]["latencies"]) == last["drags"]["drawn"]
    assert min(last["drags"]["latencies"]) >= 0


def test_a_table_is_decoded_as_numbers(visit: Visit, page_runs: list[Path]) -> None:
    tab = visit("run=2&plane=dims,0,1")
    tab.drag(tab.spot(0.5, 0.5), tab.spot(0.6, 0.4))
    state = tab.until("s.decoded && s.drags.sent === s.drags.drawn")
    at = studio.Desk(page_runs)
    at.open(2)
    at.plane("dims", 0, 1)
    values = at.cell(float(np.float32(state["decoded"]["x"])), float(np.float32(state["decoded"]["y"])))["values"]
    shown = np.frombuffer(bytes(state["decoded"]["bytes"]), np.float32)
    np.testing.assert_allclose(shown, values, rtol=1e-5, atol=1e-6)
    assert [each.split("\t")[0] for each in tab.by("panel-decoded").locator("tbody tr").all_inner_texts()] == [
        *("width", "bend", "twist", "height", "sum")
    ]


def test_off_the_data_is_said(visit: Visit, desk: studio.Desk) -> None:
    tab = visit()
    tab.by("zoom-out").click(click_count=3)
    tab.drag(tab.spot(0.1, 0.1), tab.spot(0.12, 0.1))
    assert tab.until("s.far > 1")["far"] > 1
    assert "Off the data" in tab.by("off-data").inner_text()
    assert tab.by("far-flag").is_visible()
    point = tuple(desk.row(ROW)["point"])
    tab.drag(point, point)
    tab.until("s.far < 1")
    assert tab.by("far-flag").count() == 0


def test_lattice_follows_the_view(visit: Visit) -> None:
    tab = visit("ground=lattice")
    same = "['x0', 'y0', 'x1', 'y1'].every(end => Math.abs(s.lattice.frame[end] - s.view[end]) < 1e-9)"
    state = tab.until(f"s.lattice && {same}")
    down, across, *shape = state["lattice"]["shape"]
    assert shape == [8, 8, 1]
    assert across <= 24
    assert down <= 24
    tab.by("zoom-in").click()
    tab.until(f"s.view.x0 > {state['view']['x0']} && {same}")
    assert "E[x|z]" in tab.by("ground-legend").inner_text()


def test_volume_map_has_a_scale_and_a_name(visit: Visit, desk: studio.Desk) -> None:
    tab = visit("ground=volume")
    state = tab.until("s.volume && s.volume.state === 'done'")
    view = state["view"]
    side = state["volume"]["shape"][1]
    dx, dy = (view["x1"] - view["x0"]) / side, (view["y1"] - view["y0"]) / side
    first = torch.tensor([[view["x0"] + dx / 2, view["y0"] + dy / 2]])
    value = float(geometry.log_volume(geometry.embedding(Run.open(desk._paths[0]).model().eval()), first))
    assert state["volume"]["low"] <= value + 3  # the scale leaves out 2 % at either end
    assert "log √det G" in state["volume"]["said"]
    assert "log √det G" in tab.by("ground-legend").inner_text()


def test_path_is_the_librarys_geodesic(visit: Visit, desk: studio.Desk) -> None:
    tab = visit("ground=none&tool=path&tab=path")
    for spot in (tab.spot(0.3, 0.4), tab.spot(0.7, 0.6)):
        tab.drag(spot, spot)
    state = tab.until("s.path.state === 'done'")
    a, b = ([each["x"], each["y"]] for each in state["anchors"])
    view = desk.view
    ends = [torch.tensor([each]) for each in (a, b)]
    found = geometry.geodesic(view.metric, *ends, graph=view.graph)
    assert state["path"]["length"] == pytest.approx(float(found.length), rel=1e-5)
    assert state["path"]["energy"] == pytest.approx(float(found.energy), rel=1e-5)
    assert state["path"]["straight_energy"] == pytest.approx(float(found.straight_energy), rel=1e-5)
    assert state["path"]["length"] <= state["path"]["straight_length"] + 1e-6
    assert tab.by("strip-geodesic").locator("canvas").count() == state["path"]["steps"] == 11
    assert tab.by("strip-straight").locator("canvas").count() == 11
    assert tab.by("path-status").inner_text().startswith("Converged" if found.converged else "Not converged")
    aside = tab.spot(0.2, 0.5)
    tab.drag((a[0], a[1]), aside)  # an end is moved
    tab.until(f"s.path.state === 'done' && s.anchors[0].x < {(a[0] + aside[0]) / 2}")
    tab.by("row-B").fill(str(ROW))
    tab.by("row-B").press("Enter")
    tab.until(f"s.path.state === 'done' && s.anchors[1].row === {ROW}")
    with tab.page.expect_download() as download:
        tab.by("save-strips").click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


def test_row_with_its_terms_and_neighbours(visit: Visit, desk: studio.Desk) -> None:
    tab = visit("ground=none&tool=row")
    found = desk.row(ROW)
    tab.page.mouse.click(*tab.at(*found["point"]))
    tab.until("s.row")
    tab.by("tab-row").click()
    tab.by("row-number").fill(str(ROW))
    tab.by("row-go").click()
    state = tab.until(f"s.row && s.row.row === {ROW} && s.row.state === 'done'")
    assert state["row"]["elbo"] == pytest.approx(found["elbo"])
    assert tab.by("elbo").inner_text() == f"{found['elbo']:.2f}".replace("-", "−")
    for name, where in (("near-latent", "latent"), ("near-data", "data")):
        rows = tab.by(name).locator("button").evaluate_all("all => all.map(e => +e.dataset.row)")
        assert rows == [each["row"] for each in found["neighbours"][where]]
    tab.by("near-data").locator("canvas").nth(7).wait_for()
    second = found["neighbours"]["data"][0]["row"]
    tab.by("near-data").locator("button").first.click()
    tab.until(f"s.row && s.row.row === {second}")


def test_true_posterior_and_evidence(visit: Visit, page_runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tab = visit(f"ground=none&row={ROW}&tab=row")
    tab.until("s.row")
    tab.by("posterior").click()
    state = tab.until("s.posterior.state === 'done'")
    run = Run.open(page_runs[0])
    model, data = run.model().eval(), vd.data.load("digits")
    batch = vd.Batch(x=torch.from_numpy(data.x[[ROW]]).float(), row_id=torch.tensor([ROW]))
    exact = float(quadrature(model, batch).log_evidence)
    assert state["posterior"]["kind"] == "grid"
    assert state["posterior"]["log_evidence"] == pytest.approx(exact, abs=1e-3)
    assert state["posterior"]["kl"] > 0
    tab.by("evidence").click()
    tab.until("s.evidence.rounds.length > 1 && s.evidence.state === 'running'")
    tab.by("evidence-cancel").click()
    stopped = tab.until("s.evidence.state === 'cancelled'")
    assert 1 < len(stopped["evidence"]["rounds"]) < 8
    assert "Cancelled" in tab.by("evidence-cancelled").inner_text()
    monkeypatch.setattr(inference, "SAMPLES", (64, 256))
    monkeypatch.setattr(inference, "DISTRIBUTIONS", (5, 10))
    tab.by("evidence").click()
    rounds = tab.until("s.evidence.state === 'done'", 60)["evidence"]["rounds"]
    assert [each["round"] for each in rounds] == [1, 2, 3, 4]
    assert rounds[-1]["lower"] == pytest.approx(exact, abs=1)
    assert rounds[-1]["upper"] == pytest.approx(exact, abs=1)
    assert all(each["elbo"] < exact for each in rounds)
    assert tab.by("bracket").get_attribute("data-rounds") == "4"


def test_posterior_of_many_latents_is_drawn(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "DRAWS", 200)
    tab = visit(f"run=2&ground=none&row={ROW}&tab=row")
    tab.until("s.row")
    tab.by("posterior").click()
    state = tab.until("s.posterior.state === 'done'", 60)
    assert state["posterior"]["kind"] == "samples"
    assert state["posterior"]["draws"] == 200
    assert "R̂" in tab.by("posterior-samples").inner_text()


def test_dimensions_and_traversal(visit: Visit, page_runs: list[Path]) -> None:
    tab = visit("run=2&ground=none&tab=dimensions")
    state = tab.until("s.dimensions")
    at = studio.Desk(page_runs)
    at.open(2)
    assert state["dimensions"]["kl"] == pytest.approx(at.dimensions()["kl"])
    assert tab.by("kl-bar").count() == 4
    tab.by("kl-bar").nth(2).click()
    state = tab.until("s.traversal")
    assert state["traversal"]["values"] == pytest.approx(at.traversal(2)["values"])
    assert tab.by("traversal").locator("svg").count() == 5  # one chart per column
    tab.by("tab-decoded").click()
    tab.by("draw-prior").click()
    tab.until("s.draws === 11")


def test_planes_and_slices_are_named(visit: Visit, page_runs: list[Path]) -> None:
    tab = visit("run=2&ground=none")
    at = studio.Desk(page_runs)
    at.open(2)
    first = tab.state["plane"]
    assert tab.by("slice").inner_text() == at.plane(first["kind"], first["i"], first["j"])["said"]
    tab.by("plane").select_option("dims")
    tab.until("s.plane.kind === 'dims'")
    tab.by("dim-i").select_option("3")
    state = tab.until("s.plane.i === 3")
    assert tab.by("slice").inner_text() == at.plane("dims", 3, state["plane"]["j"])["said"]
    assert state["slice"].startswith("A slice of 4 dimensions")
    assert visit().by("slice").count() == 0  # two latents: the plane is all there is
