"""The studio's page in use: two maps, addresses, files, the keyboard, themes, and what goes wrong."""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from serving_cases import running
from studio.desk_cases import trained

import vaelid as vd
from vaelid import studio
from vaelid.serving import Page, Site

Visit = Callable[..., Any]
ROW = 11
AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"


def test_two_runs_side_by_side(visit: Visit, page_runs: list[Path]) -> None:
    tab = visit(f"ground=none&row={ROW}")
    tab.until("s.row")
    tab.by("side-by-side").click()
    tab.until(f"s.maps.length === 2 && s.maps[1].ready && s.maps[1].row && s.maps[1].row.row === {ROW}")
    tab.drag(tab.spot(0.4, 0.4, 1), tab.spot(0.6, 0.5, 1), which=1)
    state = tab.until("s.maps[1].decoded && s.maps[1].drags.sent === s.maps[1].drags.drawn")
    assert state["front"] == 1
    assert state["maps"][0]["decoded"] is None
    second = studio.Desk(page_runs)
    second.open(1)
    last = state["maps"][1]["decoded"]
    assert last["bytes"] == second.drag(last["x"], last["y"])[1].flatten().tolist()
    tab.by("tab-row").click()
    tab.by("row-number").fill("30")
    tab.by("row-go").click()
    tab.until("s.maps.every(m => m.row && m.row.row === 30)")  # the same data: one choice
    tab.by("side-by-side").click()
    tab.until("s.maps.length === 1 && s.run === 0")


def test_an_address_brings_everything_back(visit: Visit) -> None:
    wanted = (
        f"run=1&view=-2,-2,3,2&colour=split&ground=volume&row={ROW}&a=-1,0.5&b=row:20&tool=path&tab=path"
        "&2.run=2&2.plane=dims,1,3&2.ground=none&2.colour=KL"
    )
    tab = visit(wanted)
    state = tab.until(
        "s.maps.length === 2 && s.maps[1].ready && s.maps[0].row && s.maps[0].path.state === 'done'"
        " && location.hash.includes('2.colour=KL') && location.hash.includes('row:20')"
    )
    again = visit(tab.page.evaluate("location.hash").removeprefix("#"))
    back = again.until("s.maps.length === 2 && s.maps[1].ready && s.maps[0].row && s.maps[0].path.state === 'done'")
    for each in (state, back):
        first, second = each["maps"]
        assert (first["run"], first["colour"], first["background"], first["chosen"]) == (1, "split", "volume", ROW)
        assert first["anchors"][0]["x"] == -1
        assert first["anchors"][1]["row"] == 20
        assert (second["run"], second["plane"], second["colour"]) == (2, {"kind": "dims", "i": 1, "j": 3}, "KL")
        assert (each["tool"], each["tab"]) == ("path", "path")
        view = first["view"]  # what was asked for, and what else the map has room for
        assert view["x0"] <= -2 + 1e-6
        assert view["x1"] >= 3 - 1e-6
        assert view["y0"] <= -2 + 1e-6
        assert view["y1"] >= 2 - 1e-6
        assert min(view["x1"] - view["x0"] - 5, view["y1"] - view["y0"] - 4) == pytest.approx(0, abs=1e-6)
    assert "view=-2,-2,3,2&" in again.page.evaluate("location.hash")


def test_the_map_is_saved_as_a_picture(visit: Visit) -> None:
    tab = visit("ground=lattice")
    tab.until("s.lattice")
    with tab.page.expect_download() as download:
        tab.by("png").click()
    data = Path(download.value.path()).read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    state = tab.state
    assert width > state["size"][0]
    assert height > state["size"][1]
    assert download.value.suggested_filename == "digits-digit.png"


SVG = "{http://www.w3.org/2000/svg}"


def drawing(tab: Any, name: str) -> tuple[Any, list[str], list[Any]]:
    """The map saved as SVG: its root, its texts, its points; it refers to nothing outside itself."""
    with tab.page.expect_download() as download:
        tab.by("svg").click()
    assert download.value.suggested_filename == name
    text = Path(download.value.path()).read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert "://" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    for each in root.iter():
        assert each.get("href", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert each.get("clip-path", "url(#plot)") == "url(#plot)"
    width, height = (float(root.get(side, "0")) for side in ("width", "height"))
    assert width > tab.state["size"][0]
    assert height > tab.state["size"][1]
    points = [each for group in root.iter(f"{SVG}g") if group.get("class") == "points" for each in group]
    return root, [each.text or "" for each in root.iter(f"{SVG}text")], points


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_map_is_saved_as_a_drawing(visit: Visit, desk: studio.Desk, theme: str) -> None:
    tab = visit(f"ground=lattice&row={ROW}&a=-1,0&b=1,0.5", color_scheme=theme)
    tab.until("s.lattice && s.row && s.path.state === 'done'")
    root, texts, points = drawing(tab, "digits-digit.svg")
    assert len(points) == tab.state["shown"] == 1797
    assert {"z0", "z1", "digits · 2 latents · 1,797 rows", "digit:", "A", "B"} <= set(texts)
    assert sum(bool(re.fullmatch("−?[0-9.]+", each)) for each in texts) >= 6  # ticks
    counts = dict(zip(*(desk.colour("digit")[key] for key in ("names", "counts")), strict=True))
    assert {f"{name} ({count})" for name, count in counts.items()} <= set(texts)
    assert "E[x|z]" in root.findtext(f"{SVG}title", "")
    assert any(each.startswith("Background: E[x|z]") for each in texts)
    assert "1,797 points" in root.findtext(f"{SVG}desc", "")
    assert len(list(root.iter(f"{SVG}image"))) == 1  # the background
    across = sorted(float(each.get("cx", "nan")) for each in points)
    plane, (x0, x1) = desk.plane("dims", 0, 1), (tab.state["view"][end] for end in ("x0", "x1"))
    wanted = np.sort((plane["points"][:, 0] - x0) / (x1 - x0) * tab.state["size"][0])
    np.testing.assert_allclose(across, wanted, atol=0.05)
    tab.by("legend-entry").nth(3).click()
    tab.until("s.shown < s.points")
    tab.by("zoom-in").click()
    view = tab.until(f"s.view.x0 > {x0} + 0.01")["view"]
    x, y = plane["points"][np.asarray(desk.colour("digit")["codes"]) != 3].T
    seen = (view["x0"] < x) & (x < view["x1"]) & (view["y0"] < y) & (y < view["y1"])
    _, texts, points = drawing(tab, "digits-digit.svg")
    assert 0 < len(points) == np.count_nonzero(seen) < 1797
    assert f"3 ({counts['3']}), hidden" in texts


def test_a_drawing_says_what_volume_numbers_and_selections_are(visit: Visit) -> None:
    tab = visit("ground=volume&colour=KL&tool=lasso")
    tab.until("s.volume && s.volume.state === 'done'")
    corners = [tab.spot(*each) for each in ((0.4, 0.35), (0.6, 0.35), (0.6, 0.65), (0.4, 0.35))]
    tab.drag(*corners)
    tab.until("s.selection && s.selection.count > 0")
    tab.by("svg").focus()
    with tab.page.expect_download() as download:
        tab.page.keyboard.press("Enter")
    root = ElementTree.parse(download.value.path()).getroot()
    assert "log √det G" in root.findtext(f"{SVG}title", "")
    texts = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert any(re.fullmatch(r"KL: \S+", each) for each in texts)
    faded = [each for each in root.iter(f"{SVG}circle") if each.get("opacity")]
    assert len(faded) == 1797 - tab.state["selection"]["count"]


def test_names_and_crowds_in_a_drawing(visit: Visit, tmp_path: Path) -> None:
    many = 20_500
    table = tmp_path / "crowd.csv"
    rng = np.random.default_rng(0)
    sides = ("c", "<a> & 'b'")
    rows = [f"{a:.3f},{b:.3f},{sides[int(a > 0)]}" for a, b in rng.normal(size=(many, 2))]
    table.write_text("\n".join(["p,q,side", *rows]))
    path = trained(tmp_path / "crowd", vd.data.load(table, label="side"), latent=2)
    with running({"studio": Page("Studio", lambda: studio.Desk([path]))}, "studio") as site:
        tab = visit(on=site)
        assert tab.state["shown"] == many
        root, texts, points = drawing(tab, "crowd-side.svg")
        assert [each.tag for each in points] == [f"{SVG}image"]
        assert "20,500 points, as an image" in root.findtext(f"{SVG}desc", "")
        assert any(each.startswith("<a> & 'b' (") for each in texts)
        tab.by("legend-entry").first.click()
        tab.until("s.shown < s.points")
        assert len(drawing(tab, "crowd-side.svg")[2]) == tab.state["shown"]


def test_cells_that_were_not_observed_are_called_missing(visit: Visit, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(120, 1))
    table = tmp_path / "table.csv"
    rows = [",".join(f"{value:.3f}" for value in row) for row in z + 0.1 * rng.normal(size=(120, 3))]
    table.write_text("\n".join(["width,bend,twist", *rows]))
    data = vd.data.load(table)
    mask = rng.random((120, 3)) > 0.3
    mask[7] = [True, False, True]
    path = trained(tmp_path / "masked", data, mask=mask, latent=2)
    desk = studio.Desk([path])
    desk.open(0)
    found = desk.row(7)
    assert found["missing"] == [False, True, False]
    with running({"studio": Page("Studio", lambda: studio.Desk([path]))}, "studio") as site:
        tab = visit("ground=none&row=7&tab=row&colour=bend", on=site)
        tab.until("s.row && s.row.state === 'done'")
        cells = tab.by("panel-row").locator("table.values tbody tr")
        said = [each.split("\t") for each in cells.all_inner_texts()]
        assert [name for name, *_ in said] == ["width", "bend", "twist"]
        assert [x == "missing" for _, x, _ in said] == found["missing"]
        assert cells.nth(1).locator("td em").inner_text() == "missing"  # set apart from numbers
        assert all(re.fullmatch("−?[0-9.]+", again) for *_, again in said)  # what the model makes of it
        for name, where in (("near-latent", "latent"), ("near-data", "data")):
            near = tab.by(name).locator("button").evaluate_all("all => all.map(e => +e.dataset.row)")
            assert near == [each["row"] for each in found["neighbours"][where]]
            assert len(near) == 8
        tab.until("s.colour === 'bend'")
        missing = tab.by("legend").locator(".entry")
        assert missing.inner_text().strip() == "missing"
        assert missing.locator("canvas").count() == 1
        _, texts, points = drawing(tab, "masked-bend.svg")
        rings = [each for each in points if each.get("stroke")]
        assert len(rings) == np.count_nonzero(~mask[:, 1])
        assert "missing" in texts
        tab.by("tab-selection").click()
        with tab.page.expect_download() as download:
            tab.by("csv-all").click()
        rows_ = desk.plane("dims", 0, 1)["rows"].tolist()
        assert Path(download.value.path()).read_text() == desk.table(rows_)["csv"]
        tab.by("tab-row").click()
        tab.by("near-data").locator("button").first.click()
        second = found["neighbours"]["data"][0]["row"]
        tab.until(f"s.row && s.row.row === {second}")
        again = [each == "missing" for each in cells.locator("td:nth-child(2)").all_inner_texts()]
        assert again == desk.row(second)["missing"] == (~mask[second]).tolist()


def test_by_keyboard_alone(visit: Visit) -> None:
    tab = visit()
    tab.keys("ArrowRight", "ArrowRight", "ArrowUp")
    tab.until("s.decoded && s.cross")
    tab.until("/Nearest row|Off the data|^[a-z0-9., ]+$/.test(s.spoken)")
    width = "(s.view.x1 - s.view.x0)"
    before = tab.state["view"]
    tab.keys("+")
    tab.until(f"{width} < {before['x1'] - before['x0']} * 0.9")
    tab.keys("0")
    tab.until(f"Math.abs(s.view.x0 - {before['x0']}) < 1e-6")
    tab.keys("r", "Enter")
    tab.until("s.tool === 'row' && s.chosen !== null")
    tab.keys("p", "Enter", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "Enter")
    tab.until("s.path.state === 'done'")
    tab.keys("l", *["Shift+ArrowRight"] * 8, *["Shift+ArrowDown"] * 8, "Enter")
    tab.until("s.selection && s.selection.count > 0")
    tab.keys("Escape")
    tab.until("!s.selection")
    tab.keys("m", "ArrowRight")
    tab.until(f"s.view.x0 > {before['x0']}")
    tab.by("tab-selection").focus()
    tab.page.keyboard.press("ArrowLeft")
    tab.until("s.tab === 'dimensions'")
    assert tab.by("live").get_attribute("aria-live") == "polite"
    reached = tab.page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, a, canvas[tabindex]')]
            .filter(e => e.offsetParent && !e.disabled && e.tabIndex < 0 && e.getAttribute('role') !== 'tab').length"""
    )
    assert reached == 0


def test_themes_and_stillness(visit: Visit) -> None:
    tab = visit(color_scheme="dark", reduced_motion="reduce")
    state = tab.state
    assert state["theme"] == "dark"
    assert state["still"]
    tab.by("theme").click()
    tab.until("s.theme === 'light'")
    assert tab.page.evaluate("document.documentElement.dataset.theme") == "light"
    tab.page.reload()
    tab.until("s.ready && s.theme === 'light'")  # kept
    durations = tab.page.evaluate(
        "[...document.querySelectorAll('*')].map(e => getComputedStyle(e, '::after').animationDuration)"
    )
    assert {float(each.removesuffix("s")) <= 1e-3 for each in durations} == {True}


def test_help_says_how_it_is_worked(visit: Visit) -> None:
    tab = visit()
    tab.by("help-open").click()
    tab.by("help").wait_for()
    assert "crosshair" in tab.by("help").inner_text()
    tab.page.keyboard.press("Escape")
    tab.by("help").wait_for(state="hidden")
    tab.by("help-open").click()  # it opens again
    tab.by("help").wait_for()
    tab.by("help-close").click()
    tab.by("help").wait_for(state="hidden")


def test_two_browsers_at_once(visit: Visit) -> None:
    first, second = visit(), visit("run=1&ground=none")
    first.drag(first.spot(0.5, 0.5), first.spot(0.6, 0.6))
    second.drag(second.spot(0.5, 0.5), second.spot(0.3, 0.6))
    one = first.until("s.decoded && s.drags.sent === s.drags.drawn")["decoded"]
    other = second.until("s.decoded && s.drags.sent === s.drags.drawn")["decoded"]
    assert one["bytes"] != other["bytes"]


def test_a_client_that_goes_in_mid_job_leaves_the_server_up(visit: Visit) -> None:
    tab = visit(f"ground=none&row={ROW}&tab=row")
    tab.until("s.row")
    tab.by("evidence").click()
    tab.until("s.evidence.rounds.length > 0")
    tab.page.close()
    after = visit(f"ground=none&row={ROW}&tab=row")
    after.until("s.row")
    after.by("evidence").click()
    after.until("s.evidence.rounds.length > 0")


def test_a_run_that_is_not_there_says_so(visit: Visit, page_runs: list[Path]) -> None:
    tab = visit("run=3", ready=False)
    tab.until("s.error")
    assert "no run folder" in tab.by("failed").inner_text()
    tab.by("run").select_option("0")
    tab.until("s.ready && s.points === 1797 && !s.error")


def test_a_run_that_vanishes_and_a_server_that_stops(visit: Visit, page_runs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "copy"
    shutil.copytree(page_runs[0], path)
    with running({"studio": Page("Studio", lambda: studio.Desk([path]))}, "studio") as site:
        tab = visit(on=site)
        shutil.rmtree(path)
        tab.drag(tab.spot(0.5, 0.5), tab.spot(0.6, 0.6))
        tab.until("s.decoded")  # what is in memory stays
        tab.page.reload()
        tab.until("s.error && !s.ready")
        assert "copy" in tab.by("failed").inner_text()
    tab.by("gone").wait_for()
    assert "server" in tab.by("gone").inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit: Visit, theme: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm ci in web/")
    tab = visit(f"ground=none&row={ROW}&tab=row&a=-1,0&b=1,0.5", color_scheme=theme)
    tab.until("s.row && s.path.state === 'done'")
    tab.page.evaluate(AXE.read_text())
    tab.by("kl-bar").wait_for(state="detached")
    tab.drag(tab.spot(0.2, 0.2), tab.spot(0.3, 0.3))
    for name in ("row", "decoded", "path", "dimensions", "selection"):
        tab.by(f"tab-{name}").click()
        if name == "dimensions":
            tab.by("kl-bar").first.click()
            tab.until("s.traversal")
        assert serious(tab) == [], name
    tab.by("side-by-side").click()
    tab.until("s.maps.length === 2 && s.maps[1].ready")
    assert serious(tab) == []
    tab.by("help-open").click()
    tab.by("help").wait_for()
    assert serious(tab) == []


def serious(tab: Any) -> list[str]:
    """What axe-core calls serious or critical."""
    found = tab.page.evaluate("axe.run()")
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def test_narrow_screens_have_nothing_beside_the_edge(visit: Visit) -> None:
    tab = visit(f"ground=none&row={ROW}&tab=row", viewport={"width": 360, "height": 740})
    tab.until("s.row")
    for name in ("row", "decoded", "path", "dimensions", "selection"):
        tab.by(f"tab-{name}").click()
        assert tab.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name


def test_snapshot_cannot_be_written_to(visit: Visit, site: Site) -> None:
    tab = visit()
    assert tab.page.evaluate("Object.isFrozen(window.__studio) && Object.isFrozen(window.__studio.maps[0].view)")
