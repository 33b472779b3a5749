"""`vaelid geodesic`, `map` and `distances`, and the report's section on the geometry of the latent space."""

import re
import shlex
import shutil

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from PIL import Image

import vaelid as vd
from vaelid import geometry, report, runs
from vaelid.report import charts
from vaelid.report.charts import Chart, along, kinds, pairs_of, side_of, straight, work
from vaelid.runs import Run

FISHER = "Fisher–Rao metric of the Binomial likelihood"
KEYS = {
    "run", "from", "to", "metric", "context", "converged", "status", "length", "error", "chord", "energy",
    "decrement", "straight_length", "iterations", "path", "out",
}  # fmt: skip


@pytest.fixture(scope="module")
def one_run(tmp_path_factory, call):
    """A run on digits, given the digit, with one latent; not to be changed."""
    path = tmp_path_factory.mktemp("one") / "run"
    few = ("--epochs", 1, "--set", "evaluation.samples=2", "--set", "evaluation.evidence=0", "--quiet")
    answer = call("train", "digits", "--context", "digit", "--latent", 1, "--out", path, *few)
    assert answer.code == 0, answer.err
    return path


def picture(path):
    """The size of a PNG that is not blank."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert np.ptp(np.asarray(image)) > 100
        return image.size


# -- geodesic ------------------------------------------------------------------------------------------------------


def test_geodesic_is_that_of_the_library(call, here, digits_run):
    answer = call("geodesic", digits_run, "--from", 3, "--to", 40, "--json")
    assert (answer.code, answer.err) == (0, "")
    found = answer.json
    assert found.keys() == KEYS
    assert (found["from"], found["to"], found["metric"], found["context"], found["out"]) == (3, 40, FISHER, None, None)
    run = Run.open(digits_run)
    model, data = run.model(), run.dataset()
    z = model.encode(data.x[[3, 40]])
    f = geometry.embedding(model)
    expected = geometry.geodesic(f, z[:1], z[1:], graph=runs.graph_of(run, model, data, f))
    torch.testing.assert_close(torch.tensor(found["path"]), expected.path[0])
    torch.testing.assert_close(torch.tensor(found["path"])[[0, -1]], z)
    for name in ("length", "chord", "energy", "error", "decrement"):
        assert found[name] == pytest.approx(float(getattr(expected, name)), rel=1e-4, abs=1e-6)
    assert found["converged"] is True
    assert found["chord"] <= found["length"] <= found["straight_length"] + found["error"]
    assert found["straight_length"] == pytest.approx(float(geometry.length(f, straight(z[:1], z[1:]))))
    assert list(here.iterdir()) == []


def test_words_of_a_path(call, here, digits_run):
    answer = call("geodesic", digits_run, "--from", 3, "--to", 40, "--quiet", "--metric", "mean")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == "row 3 to row 40: metric of the decoder's mean E[x|z]"
    assert re.fullmatch(
        r"  distance  between [\d.]+ \(chord\) and [\d.]+ ± [\d.]+ \(length of the path found\)", lines[1]
    )
    assert re.fullmatch(r"  straight  [\d.]+(: the path is [\d.]+% shorter)?", lines[2])
    assert re.fullmatch(r"  search    \d+ iterations, converged", lines[3])


def test_a_path_that_did_not_converge_says_why(call, here, digits_run, monkeypatch):
    solve = geometry.geodesic
    monkeypatch.setattr(
        geometry, "geodesic", lambda *given, **named: solve(*given, **named, iterations=0, tolerance=1e-15)
    )
    answer = call("geodesic", digits_run, "--from", 3, "--to", 40)
    assert answer.code == 0
    assert "  search    0 iterations, not converged: the iterations ran out" in answer.out


def test_a_row_to_itself(call, here, table_run):
    answer = call("geodesic", table_run[0], "--from", 7, "--to", 7, "--json", "--out", "same.png")
    assert (answer.code, answer.err) == (0, "")
    assert (answer.json["length"], answer.json["straight_length"], answer.json["converged"]) == (0, 0, True)
    picture(here / "same.png")


def test_pictures_of_a_path(call, here, digits_run, table_run):
    """Strips of tiles; for a table lines, and for its two latents a map below them."""
    answer = call("geodesic", digits_run, "--from", 3, "--to", 40, "--out", "path.png", "--metric", "moments")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-1] == "  picture   path.png"
    width, height = picture(here / "path.png")
    assert height < width / 2
    answer = call("geodesic", table_run[0], "--from", 3, "--to", 9, "--out", "Lines.PNG", "--json")
    assert (answer.code, answer.json["out"]) == (0, "Lines.PNG"), answer.err
    width, height = picture(here / "Lines.PNG")
    assert height > 0.7 * width


def test_a_conditional_model_is_given_the_context_of_the_first_row(call, here, one_run):
    first = call("geodesic", one_run, "--from", 3, "--to", 4, "--json", "--out", "path.png")
    assert first.code == 0, first.err
    assert first.json["context"] == "row 3 (digit = 3)"
    assert picture(here / "path.png")
    run = Run.open(one_run)
    model, data = run.model(), run.dataset()
    z = runs.latent_means(run, model, data, np.array([3, 4]))
    f = geometry.embedding(model, data.context[3])
    assert first.json["straight_length"] == pytest.approx(float(geometry.length(f, straight(z[:1], z[1:]))), rel=1e-4)
    assert (
        "likelihood, given the context of row 4 (digit = 4)\n" in call("geodesic", one_run, "--from", 4, "--to", 3).out
    )


# -- map -----------------------------------------------------------------------------------------------------------


def test_map_of_two_latents(call, here, table_run):
    answer = call("map", table_run[0], "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.json.keys() == {"run", "rows", "metric", "context", "slice", "paths", "converged_share", "out"}
    rows = len(Run.open(table_run[0]).split().test)
    assert (answer.json["rows"], answer.json["slice"], answer.json["out"]) == (rows, False, "map.png")
    assert picture(here / "map.png")


def test_map_of_many_latents_is_a_slice(call, here, digits_run):
    answer = call("map", digits_run, "--out", "m.png", "--metric", "mean")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("metric of the decoder's mean E[x|z]\n  map       m.png: 180 test rows, a slice of 8")
    assert answer.out.endswith("  paths     4 of 4 converged\n")
    assert picture(here / "m.png")


def test_map_of_one_latent_is_a_line(call, here, one_run):
    answer = call("map", one_run, "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["paths"], answer.json["converged_share"], answer.json["slice"]) == (0, None, False)
    assert answer.json["context"].startswith("a typical row (digit = ")
    width, height = picture(here / "map.png")
    assert height < 0.6 * width


# -- distances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npy", ".npz"])
def test_distances_are_those_of_the_library(ending, call, here, table_run):
    answer = call("distances", table_run[0], "--rows", 3, "--out", f"d{ending}", "--json")
    assert (answer.code, answer.err) == (0, "")
    run = Run.open(table_run[0])
    model, data, index = run.model(), run.dataset(), runs.scored_rows(run, 3)
    expected = geometry.distances(geometry.embedding(model), runs.latent_means(run, model, data, index))
    medians = {f"median_{name}" for name in ("length", "chord", "error")}
    assert answer.json.keys() == medians | {
        "run", "rows", "metric", "context", "pairs", "converged_share", "violations", "out",
    }  # fmt: skip
    assert (answer.json["rows"], answer.json["pairs"], answer.json["converged_share"]) == (3, 3, 1.0)
    assert answer.json["violations"] == expected.violations()[0]
    if ending == ".npz":
        with np.load(here / "d.npz") as arrays:
            assert set(arrays.files) == {"id", "length", "chord", "error", "converged"}
            ids, length = arrays["id"], arrays["length"]
            np.testing.assert_allclose(arrays["chord"], expected.chord.numpy(), rtol=1e-5, atol=1e-6)
    elif ending == ".npy":
        ids, length = index, np.load(here / "d.npy")
    else:
        read = pyarrow.csv.read_csv if ending == ".csv" else pyarrow.parquet.read_table
        table = read(here / f"d{ending}")
        assert table.column_names == ["id", *map(str, data.row_id[index])]
        ids, *columns = (column.to_numpy() for column in table.columns)
        length = np.column_stack(columns)
    np.testing.assert_array_equal(ids, data.row_id[index])
    np.testing.assert_allclose(length, expected.length.numpy(), rtol=1e-5, atol=1e-6)


def test_words_of_distances(call, here, digits_run):
    answer = call("distances", digits_run, "--rows", 4)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == f"4 test rows: {FISHER}"
    assert lines[1] == "  pairs     6, of which 100.0% converged"
    assert lines[4] == "  saved     distances.csv"


# -- wrong calls ---------------------------------------------------------------------------------------------------

CASES = {
    "a row that is not there": ("geodesic {} --from 3 --to 1797", "no row 1797", "0 to 1796"),
    "a row below the first": ("geodesic {} --from -1 --to 3", "no row -1", "0 to 1796"),
    "no second row": ("geodesic {} --from 3", "--to", "--help"),
    "a row that is no number": ("geodesic {} --from three --to 3", "'three'", "whole number"),
    "unknown metric": ("geodesic {} --from 3 --to 4 --metric fischer", "--metric fischer", "did you mean 'fisher'?"),
    "unknown metric of a map": ("map {} --metric means", "--metric means", "did you mean 'mean'?"),
    "unknown metric of distances": ("distances {} --metric zzz", "--metric zzz", "fisher, mean, moments"),
    "a path that is no picture": ("geodesic {} --from 3 --to 4 --out path.jpg", "'.jpg'", ".png"),
    "a path as a folder": ("geodesic {} --from 3 --to 4 --out path", "no ending", ".png"),
    "a map that is no picture": ("map {} --out map.csv", "'.csv'", ".png"),
    "a map into no folder": ("map {} --out no/map.png", "no does not exist", "mkdir -p"),
    "distances as a picture": ("distances {} --out d.png", "'.png'", ".csv, .parquet, .npy, .npz"),
    "distances of one row": ("distances {} --rows 1", "--rows is 1", "at least 2"),
    "no such run": ("map nothing", "no run folder nothing", "vaelid train digits"),
    "a device that is none": ("distances {} --device gpu", "--device gpu", "cpu, cuda"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_nothing_written(case, call, here, digits_run):
    typed, *fragments = CASES[case]
    answer = call(*shlex.split(typed.replace("{}", shlex.quote(str(digits_run)))))
    assert answer.code == 2, answer
    assert re.fullmatch(r"vaelid: [^\n]+\n", answer.err), answer.err
    for fragment in fragments:
        assert fragment.lower() in answer.err.lower()
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("typed", ["geodesic run --from 3 --to 4", "map run", "distances run"])
def test_a_run_whose_data_are_gone(typed, call, here, table_run):
    shutil.copytree(table_run[0], here / "run")
    config = here / "run" / "config.toml"
    config.write_text(config.read_text().replace("my table.csv", "gone.csv"))
    answer = call(*typed.split())
    assert answer.code == 2
    assert re.fullmatch(r"vaelid: [^\n]*gone\.csv[^\n]+\n", answer.err)
    assert [path.name for path in here.iterdir()] == ["run"]


# -- the section of the report -------------------------------------------------------------------------------------


def section(path):
    """The text of the section on geometry."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r"<h2>Geometry of the latent space</h2>(.*?)</section>", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def few(monkeypatch):
    """Few pairs, to be fast."""
    monkeypatch.setattr(charts, "_SCATTERED", 12)


@pytest.fixture
def short(here, digits_run, few):
    """A run on digits that may be changed."""
    shutil.copytree(digits_run, here / "run")
    return Run.open("run")


def test_section(short):
    model = short.model()
    shown = section(report.write(short, model))
    assert f"Lengths are those of the {FISHER}." in shown
    assert shown.count("<img") == 3
    assert "a slice of 8 dimensions" in shown
    assert "shortest paths found within that plane between unlike rows, 4 of 4 converged" in shown
    assert "Each point one of 12 pairs of test rows" in shown
    cells = re.findall(r"<td>(.*?)</td>", shown)
    assert cells[:2] == ["12", "12"]
    chord, length, line, error = (float(cell.replace("−", "-")) for cell in cells[2:])
    assert 0 < chord <= length <= line
    assert error < 0.1 * length


def test_section_of_a_table_and_of_one_latent(table_run, one_run, tmp_path, few):
    shutil.copytree(table_run[0], tmp_path / "table")
    run = Run.open(tmp_path / "table")
    shown = section(report.write(run, run.model()))
    assert "Fisher–Rao metric of the Gaussian likelihood" in shown
    assert "slice" not in shown
    assert "The features that change most" in shown
    shutil.copytree(one_run, tmp_path / "one")
    run = Run.open(tmp_path / "one")
    shown = section(report.write(run, run.model()))
    assert "The decoder is looked at given digit = " in shown
    assert "how fast what is decoded changes with z" in shown


def test_section_of_a_code_that_says_nothing(short):
    """All latent means are one point."""
    model = short.model()
    for parameter in model.posterior.parameters():
        torch.nn.init.zeros_(parameter)
    shown = section(report.write(short, model))
    assert shown.count("<img") == 3
    assert "rank correlation n/a" in shown
    assert re.findall(r"<td>(.*?)</td>", shown)[:2] == ["12", "12"]


def test_section_where_there_is_no_geometry(short, monkeypatch):
    def refuse(*_):
        raise NotImplementedError("no derivative of this operation\nsecond line")

    monkeypatch.setattr(geometry, "embedding", refuse)
    shown = section(report.write(short, short.model()))
    assert "No geometry of this model: no derivative of this operation</p>" in shown
    assert "<img" not in shown


def test_section_of_a_decoder_that_is_too_large(short, monkeypatch):
    monkeypatch.setattr(charts, "_SECTION", 1e3)
    shown = section(report.write(short, short.model()))
    assert "take too long for a report. See: vaelid map run</p>" in shown
    assert "<img" not in shown


# -- what pictures show ----------------------------------------------------------------------------------------------


def test_equal_steps_of_length():
    """On the curve z ↦ z² lengths from 0 are z², so equal steps are square roots."""
    f = geometry.Embedding(lambda z: z.square())
    path = torch.linspace(0, 2, 33, dtype=torch.float64)[:, None]
    z, lengths = along(f, path, 5)
    np.testing.assert_allclose(lengths, [0, 1, 2, 3, 4], rtol=1e-12)
    np.testing.assert_allclose(z[:, 0].numpy(), 2 * np.sqrt([0, 0.25, 0.5, 0.75, 1]), atol=1e-3)


def test_log_volume_on_a_chart():
    """In a plane the metric is that of the plane: here 100 times the identity, whatever the third axis does."""
    rng = np.random.default_rng(0)
    turn = torch.linalg.qr(torch.from_numpy(rng.normal(size=(3, 3)))).Q
    z = torch.from_numpy(rng.normal(size=(50, 3)) * [3, 2, 0]) @ turn + 1
    f = geometry.Embedding(lambda z: z @ turn.T * torch.tensor([10, 10, 0.1], dtype=torch.float64), latent=3)
    chart = Chart.of(f, z)
    assert (chart.sliced, chart.size, sum(chart.shares)) == (True, 3, pytest.approx(1))
    values = chart.log_volume(chart.frame(None), 4)
    np.testing.assert_allclose(values, np.log(100), rtol=1e-6)
    low, high = chart.frame(None)
    assert ((low < chart.points.numpy()) & (chart.points.numpy() < high)).all()


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("labelled", [False, True])
def test_pairs_of_unlike_rows(size, labelled):
    rng = np.random.default_rng(size)
    labels = rng.integers(0, 4, 60)
    z = torch.from_numpy(rng.normal(size=(60, size)) + 9 * labels[:, None])
    found = kinds(z, labels if labelled else None)
    assert 1 <= len(found) <= 4
    assert len(np.unique(found)) == found.size
    if labelled:
        assert found.shape == (2, 2)
        assert labels[found[0]].tolist() == [0, 3]
        assert (labels[found[:, 0]] != labels[found[:, 1]]).all()


def test_rules_by_what_a_point_costs(digits_run):
    model = vd.load(digits_run)
    weights = sum(p.numel() for p in model.likelihood.parameters() if p.ndim == 2)
    one = work(geometry.embedding(model), 8)
    assert weights < one < 3 * weights
    assert [pairs_of(each, 20) for each in (10**5, 10**6, 10**7, 10**8)] == [100, 14, 1, 0]
    assert [side_of(each) for each in (10**6, 10**7, 10**9)] == [64, 31, 16]

    def many(z):
        for _ in range(999):
            z = z + 1
        return z

    assert pairs_of(work(geometry.Embedding(many), 2), 2) == 0
