"""Commands that use a trained model give what the library gives: `evaluate encode reconstruct sample info compare`."""

import json
import math
import shutil

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

import vaelid as vd
from vaelid.runs import SCORING, Run


def read(path):
    """Ids (None in .npy) and values of a table that a command wrote."""
    if path.suffix == ".npy":
        return None, np.load(path)
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            ids = arrays["id"]
            (name,) = set(arrays.files) - {"id"}
            return ids, arrays[name]
    table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pyarrow.parquet.read_table(path)
    columns = [column.to_numpy() for column in table.columns]
    assert table.column_names[0] == "id"
    return columns[0], np.column_stack(columns[1:])


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npy", ".npz"])
def test_encode_is_model_encode(ending, call, here, digits_run):
    answer = call("encode", digits_run, "digits", "--out", f"z{ending}", "--json")
    assert answer.code == 0, answer.err
    assert answer.json == {"rows": 1797, "out": f"z{ending}"}
    digits = vd.data.load("digits")
    expected = vd.load(digits_run).encode(digits.x).numpy()
    ids, z = read(here / f"z{ending}")
    if ids is not None:
        np.testing.assert_array_equal(ids, digits.row_id)
    np.testing.assert_allclose(z, expected, rtol=1e-6, atol=1e-7)


def test_encode_takes_rows_in_their_own_order(call, here, digits_run):
    digits = vd.data.load("digits")
    chosen = np.array([5, 3, 900, 3])
    np.save(here / "some.npy", digits.x[chosen])
    assert call("encode", digits_run, "some.npy", "--out", "z.npz").code == 0
    ids, z = read(here / "z.npz")
    np.testing.assert_array_equal(ids, np.arange(4))
    np.testing.assert_allclose(z, vd.load(digits_run).encode(digits.x[chosen]).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npy", ".npz"])
def test_reconstruct_is_model_reconstruct(ending, call, here, table_run):
    run, source = table_run
    answer = call("reconstruct", run, source, "--out", f"x{ending}")
    assert answer.code == 0, answer.err
    assert answer.out == f"40 rows in x{ending}\n"
    ids, x = read(here / f"x{ending}")
    if ids is not None:
        np.testing.assert_array_equal(ids, np.arange(40))
    expected = vd.load(run).reconstruct(vd.data.load(source, label="kind").x).numpy()
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    if ending == ".csv":
        assert (here / "x.csv").read_text().splitlines()[0] == '"id","a","b","c"'


def test_labels_may_be_absent_from_new_rows(call, here, table_run):
    run, source = table_run
    (here / "new.csv").write_text("\n".join(line.rpartition(",")[0] for line in source.read_text().splitlines()))
    assert call("encode", run, "new.csv", "--out", "new.npy").code == 0
    assert call("encode", run, source, "--out", "old.npy").code == 0
    np.testing.assert_array_equal(np.load("new.npy"), np.load("old.npy"))


def test_columns_are_taken_by_their_names(call, here, table_run):
    run, source = table_run
    lines = [line.split(",") for line in source.read_text().splitlines()]
    (here / "new.csv").write_text("\n".join(f"text,{c},{a},{b}" for a, b, c, _ in lines).replace("text", "t", 1) + "\n")
    assert call("encode", run, "new.csv", "--out", "new.npy").code == 0
    assert call("encode", run, source, "--out", "old.npy").code == 0
    np.testing.assert_array_equal(np.load("new.npy"), np.load("old.npy"))
    (here / "other.csv").write_text(source.read_text().replace("a,b,c,kind", "a,b,d,kind"))
    answer = call("encode", run, "other.csv")
    assert answer.code == 2
    assert "other.csv has no column 'c'" in answer.err
    assert not (here / "latents.csv").exists()


def test_evaluate_is_the_library(call, here, digits_run):
    answer = call("evaluate", digits_run, "--samples", 30, "--json")
    assert answer.code == 0, answer.err
    run = Run.open(digits_run)
    expected = vd.evaluate(
        run.model(), vd.runs.batch_of(run, run.model(), run.dataset(), run.split().test), samples=30,
        key=SCORING.fold("evaluate"),
    )  # fmt: skip
    assert answer.json == {"run": str(digits_run)} | expected.as_dict()
    assert (answer.json["rows"], answer.json["samples"]) == (180, 30)


def test_evaluate_scores_a_row_alike_wherever_it_stands(call, here, digits_run):
    """The first 50 rows of the data, as a file of their own: same ids, same noise, same scores as the library's."""
    digits = vd.data.load("digits")
    np.save(here / "new.npy", digits.x[:50])
    answer = call("evaluate", digits_run, "new.npy", "--samples", 30, "--json")
    assert answer.code == 0, answer.err
    assert answer.err == ""
    model = vd.load(digits_run)
    batch = model.batch(digits.x[:50], row_id=digits.row_id[:50])
    expected = vd.evaluate(model, batch, samples=30, key=SCORING.fold("evaluate")).as_dict()
    for name in ("elbo", "iwae", "rate", "distortion", "elbo_se"):
        assert answer.json[name] == pytest.approx(expected[name], rel=1e-6)


def test_evaluate_some_rows(call, here, digits_run):
    some = call("evaluate", digits_run, "digits", "--rows", 20, "--samples", 5, "--json")
    assert some.code == 0
    assert some.json["rows"] == 20
    assert "of these rows were trained on" in some.err
    plain = call("evaluate", digits_run, "--rows", 7, "--samples", 5)
    assert plain.out.startswith("On 7 test rows of the run (mean ± standard error over rows):\n")
    assert "importance-weighted bound, 5 samples" in plain.out


def test_samples_of_images(call, here, digits_run):
    assert call("sample", digits_run, "-n", 6).out == "6 new rows in samples\n"
    files = sorted((here / "samples").iterdir())
    assert [file.name for file in files] == [f"{index:05}.png" for index in range(6)]
    x = vd.load(digits_run).sample(6, vd.Key(0).fold("sample")).numpy()
    with Image.open(files[2]) as image:
        np.testing.assert_array_equal(np.asarray(image), np.rint(x[2, 0] * 255 / 16).astype(np.uint8))
    assert call("sample", digits_run, "-n", 6, "--out", "grid.PNG").code == 0
    with Image.open(here / "grid.PNG") as image:
        assert min(image.size) > 2 * 32
    assert call("sample", digits_run, "-n", 6, "--out", "x.npy").code == 0
    np.testing.assert_array_equal(np.load("x.npy"), x)


def test_samples_are_named_by_their_seed(call, here, table_run):
    run, _ = table_run
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        assert call("sample", run, "-n", 9, "--seed", seed, "--out", f"{name}.csv").code == 0
    one, again, two = ((here / f"{name}.csv").read_text() for name in ("one", "again", "two"))
    assert one == again != two
    assert one.splitlines()[0] == '"id","a","b","c"'
    assert len(one.splitlines()) == 10
    expected = vd.load(run).sample(9, vd.Key(1).fold("sample")).numpy()
    np.testing.assert_allclose(read(here / "one.csv")[1], expected, rtol=1e-6)


def test_a_model_can_be_used_where_its_data_are_gone(call, here, table_run):
    run, source = table_run
    for name in ("run", "moved"):
        shutil.copytree(run, here / name)
    text = (here / "run" / "config.toml").read_text().replace(str(source), str(here / "gone.csv"))
    (here / "run" / "config.toml").write_text(text)
    answer = call("sample", "run", "-n", 3)
    assert (answer.code, answer.err) == (0, "")
    assert (here / "samples.csv").read_text().splitlines()[0] == '"id","a","b","c"'
    assert call("encode", "run", source, "--out", "z.csv").code == 0
    assert call("info", "run").code == 0
    assert call("evaluate", "run", source, "--samples", 5).code == 0
    assert call("evaluate", "run", "--samples", 5).code == 2
    assert call("evaluate", "moved", "--samples", 5).code == 0


def test_info(call, here, digits_run):
    answer = call("info", digits_run)
    assert answer.code == 0
    facts = dict(line.split(None, 1) for line in answer.out.split("\n\n")[0].splitlines())
    assert facts["state"] == "finished"
    assert (facts["data"], facts["likelihood"], facts["latent"], facts["epochs"]) == ("digits", "Binomial", "8", "2")
    metrics = json.loads((digits_run / "metrics.json").read_text())
    assert f"{metrics['elbo']:.2f} ± {metrics['elbo_se']:.2f} nats per row" in answer.out
    assert call("info", digits_run, "--json").json["metrics"] == metrics


def test_compare(call, here, digits_run, table_run):
    same = call("compare", digits_run, digits_run)
    assert same.code == 0
    header, first, second, *rest = same.out.splitlines()
    assert header.split()[:5] == ["run", "likelihood", "latent", "epochs", "ELBO"]
    assert first == second
    assert rest == []
    metrics = json.loads((digits_run / "metrics.json").read_text())
    for name in ("elbo", "iwae", "rate", "distortion"):
        assert f"{metrics[name]:.2f} ± {metrics[f'{name}_se']:.2f}" in first
    other = call("compare", digits_run, table_run[0])
    assert other.out.splitlines()[-1] == (
        "Not to be set side by side: these runs differ in test rows and base measure (a mass is no density)."
    )
    found = call("compare", digits_run, table_run[0], "--json").json
    assert [row["latent"] for row in found["runs"]] == [8, 2]
    assert found["same_test_rows"] is False


def test_report_names_the_page(call, here, table_run):
    shutil.copytree(table_run[0], here / "run")
    (here / "run" / "report.html").unlink()
    assert call("report", "run").out == "run/report.html\n"
    assert (here / "run" / "report.html").stat().st_size > 10_000


def test_help_has_a_line_for_every_flag(call, here):
    front = call("--help")
    assert front.code == 0
    assert call().out == front.out
    commands = [line.split()[0] for line in front.out.split("Commands:\n")[1].splitlines()]
    assert commands == [
        "train", "evaluate", "evidence", "encode", "reconstruct", "sample", "geodesic", "map", "distances", "report",
        "info", "compare", "lesson", "studio",
    ]  # fmt: skip
    for command in commands:
        text = call(command, "--help").out
        options = text.split("Options:\n")[1].splitlines()
        assert all(line.startswith("  -") and len(line) <= 80 for line in options), command
        assert "--json" in text
    assert call("--version").out == f"vaelid {vd.__version__}\n"


def test_numbers_that_are_not_finite_become_null(call, here, digits_run):
    """One row has no standard error over rows."""
    found = call("evaluate", digits_run, "--rows", 1, "--samples", 5, "--json").json
    assert found["elbo_se"] is None
    assert math.isfinite(found["elbo"])
