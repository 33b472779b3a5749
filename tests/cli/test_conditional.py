"""Conditional models from the command line: trained, scored and sampled with context; columns in their roles."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

import vaelid as vd
from vaelid.runs import Run

QUICK = ("--epochs", 2, "--quiet", "--set", "evaluation.samples=5", "--set", "evaluation.evidence=0")


def table():
    """A text with two features, a kind that moves them, an age, a weight, and notes that are no data."""
    rng = np.random.default_rng(2)
    kinds = np.array(["left", "right"])[np.arange(60) % 2]
    x = rng.normal(size=(60, 2)).round(3) + np.where(kinds == "left", -4, 4)[:, None]
    ages, weights = rng.uniform(20, 60, 60).round(1), rng.integers(1, 4, 60)
    rows = zip(*x.T.round(3), kinds, ages, weights, strict=True)
    lines = [",".join(map(str, row)) + f",note {number}" for number, row in enumerate(rows)]
    return "\n".join(["a,b,kind,age,w,note", *lines]) + "\n"


def read(path):
    """A table that a command wrote, by column."""
    return pyarrow.csv.read_csv(path).to_pydict()


@pytest.fixture(scope="session")
def given_run(tmp_path_factory, call):
    """A run on digits, given the digit; not to be changed."""
    path = tmp_path_factory.mktemp("given") / "digits"
    answer = call("train", "digits", "--context", "digit", "--out", path, *QUICK)
    assert answer.code == 0, answer.err
    return path


@pytest.fixture(scope="session")
def mixed_run(tmp_path_factory, call):
    """A run on a table, given kind and age, rows weighted, and the table's file; not to be changed."""
    folder = tmp_path_factory.mktemp("mixed")
    source = folder / "t.csv"
    source.write_text(table())
    words = ("--context", "kind", "--context", "age", "--weight", "w", "--drop", "note", "--label", "kind")
    answer = call("train", source, *words, "--out", folder / "run", *QUICK)
    assert answer.code == 0, answer.err
    return folder / "run", source


# ---------------------------------------------------------------- digits


def test_what_a_conditional_run_records(call, here, given_run):
    data = Run.open(given_run).config.data
    assert (data.context, data.kind, data.label, data.columns, data.weight) == (["digit"], "image", "digit", None, None)
    assert data.encoding() == vd.data.load("digits", context="digit").covariates
    facts = call("info", given_run, "--json").json
    assert facts["context"] == "digit"
    report = (given_run / "report.html").read_text()
    assert "Each row is given one digit, beside it; each column has the same z." in report
    assert "by digit, which the model is given" in report
    assert re.search(r"the others at its mean, given digit = \d", report)
    said = call("train", "digits", "--context", "digit", "--dry-run")
    assert "context: digit, one of 10" in said.err


def test_evaluate_and_encode_take_the_context_from_the_rows(call, here, given_run):
    digits = vd.data.load("digits", context="digit")
    model, run = vd.load(given_run), Run.open(given_run)
    rows = run.split().test
    answer = call("evaluate", given_run, "--samples", 3, "--json")
    batch = model.batch(digits.x[rows], context=digits.context[rows], row_id=rows)
    expected = vd.evaluate(model, batch, samples=3, key=vd.runs.SCORING.fold("evaluate"))
    assert answer.json["elbo"] == expected.elbo.value
    for command, value in (
        ("encode", model.encode(digits.x, context=digits.context)),
        ("reconstruct", model.reconstruct(digits.x, context=digits.context)),
    ):
        assert call(command, given_run, "digits", "--out", "out.npy").code == 0
        np.testing.assert_array_equal(np.load("out.npy"), value.numpy())
    np.savez(here / "some.npz", x=digits.x[:30], digit=digits.labels[:30])
    assert call("encode", given_run, "some.npz", "--out", "out.npy").code == 0
    np.testing.assert_allclose(np.load("out.npy"), model.encode(digits.x[:30], context=digits.context[:30]), rtol=1e-5)
    assert call("evaluate", given_run, "some.npz", "--samples", 2).code == 0


def test_samples_given_a_digit(call, here, given_run):
    assert call("sample", given_run, "-n", 4, "--where", "digit=3", "--out", "x.npz", "--seed", 1).code == 0
    covariates = Run.open(given_run).config.data.encoding()
    expected = vd.load(given_run).sample(4, vd.Key(1).fold("sample"), covariates.encode({"digit": [3] * 4}))
    with np.load("x.npz") as arrays:
        np.testing.assert_array_equal(arrays["x"], expected.numpy())
        assert arrays["digit"].tolist() == [3] * 4
    answer = call("sample", given_run, "-n", 3, "--where", "digit=3", "--json")
    assert answer.json == {"rows": 3, "out": "samples", "contexts": "samples/contexts.csv"}
    assert read(here / "samples" / "contexts.csv") == {"file": [f"0000{i}.png" for i in range(3)], "digit": [3] * 3}
    assert call("sample", given_run, "-n", 40, "--out", "all.png").code == 0
    tiles = read(here / "all.contexts.csv")
    assert tiles["tile"] == list(range(40))
    assert len(set(tiles["digit"])) > 5
    shutil.copytree(given_run, here / "run")
    config = here / "run" / "config.toml"
    config.write_text(config.read_text().replace('source = "digits"', 'source = "gone.npz"'))
    assert call("sample", "run", "-n", 2, "--where", "digit=0", "--out", "y.png").code == 0
    answer = call("sample", "run", "-n", 2, "--out", "z.png")
    assert answer.code == 2
    assert "--where digit=VALUE" in answer.err


# ---------------------------------------------------------------- a table


def test_what_a_run_on_chosen_columns_records(call, mixed_run):
    run = Run.open(mixed_run[0])
    data = run.config.data
    assert (data.columns, data.context, data.weight, data.kind) == (["a", "b"], ["kind", "age"], "w", "table")
    assert data.drop == ["note"]
    dataset = run.dataset()
    assert dataset.weight.tolist() == [float(row.split(",")[4]) for row in table().splitlines()[1:]]
    assert call("evaluate", mixed_run[0], "--samples", 3).code == 0
    own = call("evaluate", *mixed_run, "--samples", 3)
    assert "of these rows were trained on" in own.err
    assert call("report", mixed_run[0], "--quiet").code == 0


def test_new_rows_in_other_columns_with_other_weights(call, here, mixed_run):
    run, source = mixed_run
    assert call("encode", run, source, "--out", "old.npy").code == 0
    lines = [line.split(",") for line in source.read_text().splitlines()]
    (here / "new.csv").write_text("\n".join(",".join(line[place] for place in (3, 1, 0, 2)) for line in lines) + "\n")
    assert call("encode", run, "new.csv", "--out", "new.npy").code == 0
    np.testing.assert_array_equal(np.load("new.npy"), np.load("old.npy"))
    assert call("reconstruct", run, "new.csv", "--out", "new.csv.csv").code == 0
    assert list(read(here / "new.csv.csv")) == ["id", "a", "b"]


def test_samples_of_a_table_name_their_context(call, here, mixed_run):
    run, source = mixed_run
    assert call("sample", run, "-n", 30).code == 0
    drawn = read(here / "samples.csv")
    assert list(drawn) == ["id", "a", "b", "kind", "age"]
    known = {(line.split(",")[2], float(line.split(",")[3])) for line in source.read_text().splitlines()[1:]}
    assert set(zip(drawn["kind"], drawn["age"], strict=True)) <= known
    assert set(drawn["kind"]) == {"left", "right"}
    assert call("sample", run, "-n", 30, "--where", "kind=left", "--out", "left.csv").code == 0
    left = read(here / "left.csv")
    assert set(left["kind"]) == {"left"}
    assert len(set(left["age"])) > 5
    assert call("sample", run, "-n", 5, "--where", "kind=left", "--where", "age=33.5", "--out", "one.parquet").code == 0
    one = pyarrow.parquet.read_table("one.parquet").to_pydict()
    assert (one["kind"], one["age"]) == (["left"] * 5, [33.5] * 5)
    assert call("sample", run, "-n", 5, "--out", "x.npy").code == 0
    assert np.load("x.npy").shape == (5, 2)


def test_names_of_columns_outlive_the_data(call, here, mixed_run):
    run, source = mixed_run
    shutil.copytree(run, here / "run")
    config = here / "run" / "config.toml"
    config.write_text(config.read_text().replace(str(source), str(here / "gone.csv")))
    answer = call("sample", "run", "-n", 2, "--where", "kind=left", "--where", "age=30")
    assert (answer.code, answer.err) == (0, "")
    assert list(read(here / "samples.csv")) == ["id", "a", "b", "kind", "age"]


def test_resumed_with_context(call, here, mixed_run):
    run, source = mixed_run
    shutil.copytree(run, here / "parts")
    assert call("train", "--resume", "parts", "--epochs", 4, "--quiet").code == 0
    words = ("--context", "kind", "--context", "age", "--weight", "w", "--drop", "note", "--label", "kind")
    assert call("train", source, *words, "--epochs", 4, "--out", "whole", *QUICK[2:]).code == 0
    parts, whole = (vd.load(here / name).state_dict() for name in ("parts", "whole"))
    assert all(np.array_equal(value, whole[name]) for name, value in parts.items())


def test_settings_and_flags_say_the_same(call, here, mixed_run):
    _, source = mixed_run
    asked = 'data.columns=b,a --set data.context=["kind"] --set data.weight=w --set data.drop=note'
    flags = call(
        "train", source, "--columns", "b,a", "--context", "kind", "--weight", "w", "--drop", "note", "--dry-run"
    )
    settings = call("train", source, "--set", *asked.split(), "--dry-run")
    assert (flags.code, settings.code) == (0, 0), settings.err
    assert flags.out == settings.out
    assert call("train", source, "--drop", "note,w", "--drop", "age,kind", "--out", "run", *QUICK).code == 0
    data = Run.open(here / "run").config.data
    assert (data.columns, data.drop) == (["a", "b"], ["note", "w", "age", "kind"])
    assert call("train", "--config", "run/config.toml", "--out", "again", *QUICK).code == 0
    one, other = (vd.load(here / name).state_dict() for name in ("run", "again"))
    assert all(np.array_equal(value, other[name]) for name, value in one.items())


def test_compare_says_that_contexts_differ(call, here, given_run, digits_run):
    answer = call("compare", given_run, digits_run)
    assert "these runs differ in context (log p(x|c) is not log p(x))." in answer.out


# ---------------------------------------------------------------- bad input

CASES = {
    "unknown context": ("train {}/t.csv --context knd", "no context 'knd'", "Did you mean 'kind'?"),
    "unknown context of digits": ("train digits --context digt", "no context 'digt'", "Did you mean 'digit'?"),
    "context of bare rows": ("train {}/x.npy --context a", "no context to choose from", "leave --context out"),
    "unknown column": ("train {}/t.csv --columns a,bb", "no column 'bb'", "Did you mean 'b'?"),
    "unknown column to drop": ("train {}/t.csv --drop nte", "no column 'nte'", "Did you mean 'note'?"),
    "columns of images": ("train digits --columns a", "columns chosen or dropped from digits", "a table"),
    "unknown weight": ("train {}/t.csv --weight v", "no weight 'v'", "Known: a, age, b"),
    "weight of images": ("train digits --weight w", "no weight 'w'", "digit"),
    "text as data": ("train {}/t.csv --context kind", "text in column 'note'", "--drop"),
    "text as weight": ("train {}/t.csv --columns a,b --weight kind", "weight 'kind' of t.csv has text", "numbers"),
    "data and context": ("train {}/t.csv --columns a,kind --context kind", "as data and as context", "one of the two"),
    "context twice": ("train {}/t.csv --columns a --context kind --context kind", "'kind' twice", "once"),
    "no data left": ("train {}/t.csv --columns a --drop a", "no columns of data", "numbers"),
    "notes as context": ("train {}/t.csv --columns a --context note", "60 different texts in 60 rows", "leave"),
    "gaps in context": ("train {}/gaps.csv --columns a,b --context kind", "no value in row 1", "value for every row"),
    "negative weights": ("train {}/gaps.csv --columns a,b --weight w", "below 0 in row 2", "weights of 0 or more"),
    "resume and context": ("train --resume {}/digits --context digit", "--context", "only --epochs or --device"),
    "a setting that is no name": ("train digits --set data.context=3", "data.context = 3", "list"),
    "a column like the flag": ("train digits --contxt digit", "--contxt", "Did you mean --context?"),
    "where of a plain run": ("sample {}/plain --where digit=3", "no context columns", "leave --where out"),
    "where of an unknown column": ("sample {}/digits --where digt=3", "--where digt=", "Did you mean 'digit'?"),
    "where of an unknown value": ("sample {}/digits --where digit=11", "digit=11", "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
    "where without a value": ("sample {}/digits --where digit", "--where digit", "COLUMN=VALUE"),
    "where twice": ("sample {}/digits --where digit=1 --where digit=2", "twice", "once"),
    "where of text": ("sample {}/mixed --where kind=up", "kind=up", "one of left, right"),
    "where of no number": ("sample {}/mixed --where age=old", "age=old", "a number"),
    "where that no row has": ("sample {}/mixed --where age=1", "no training row has age=1", "name the others as well"),
    "rows without context": ("encode {}/digits {}/images.npy", "no context 'digit'", "trained with. Give a table"),
    "rows without a context column": ("encode {}/mixed {}/bare.csv", "no context 'kind'", "Known: a, age, b"),
    "rows with an unknown category": ("encode {}/mixed {}/strange.csv", "has 'up' in row 0", "one of left, right"),
    "rows without a column": ("evaluate {}/mixed {}/narrow.csv", "no column 'b'", "its names"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bad(tmp_path_factory, given_run, mixed_run, digits_run):
    folder = tmp_path_factory.mktemp("bad")
    for name, run in (("digits", given_run), ("mixed", mixed_run[0]), ("plain", digits_run)):
        (folder / name).symlink_to(run)
    (folder / "t.csv").write_text(table())
    (folder / "gaps.csv").write_text("a,b,kind,w\n1,2,u,1\n2,3,,1\n3,5,u,-1\n4,4,v,2\n")
    (folder / "bare.csv").write_text("a,b,age\n1,2,30\n")
    (folder / "narrow.csv").write_text("a,kind,age\n1,left,30\n")
    (folder / "strange.csv").write_text("a,b,kind,age\n1,2,up,30\n")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(20, 3)))
    np.save(folder / "images.npy", np.zeros((5, 1, 8, 8), np.uint8))
    return folder


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_nothing_written(case, call, here, bad):
    typed, *fragments = CASES[case]
    answer = call(*typed.replace("{}", str(bad)).split())
    assert answer.code == 2, answer
    assert re.fullmatch(r"vaelid: [^\n]+\n", answer.err), answer.err
    for fragment in fragments:
        assert fragment.lower() in answer.err.lower()
    assert list(here.iterdir()) == []
