"""Columns in their roles: features chosen and dropped, labels, context, weights; the encoding; lazy frames; items."""

import dataclasses
import datetime
import gzip
import os

import numpy as np
import polars as pl
import pyarrow as arrow
import pyarrow.parquet
import pytest
import torch
from support import GREY, REAL, RNG, refused
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from torch.utils.data import Dataset as Items

from vaelid import data
from vaelid.data import Covariates
from vaelid.data.covariates import REPEATS, TEXTS, WHOLE, Category, Number
from vaelid.errors import InputTypeError

ROWS = 12
COLUMNS = {
    "a": [float(row) for row in range(ROWS)],
    "kind": ["left", "right", "up"] * 4,
    "b": [row * 0.5 for row in range(ROWS)],
    "w": [1.0, 2.0, 0.0] * 4,
    "age": [20.25 + 3 * row for row in range(ROWS)],
    "level": [7, 3, 3] * 4,
    "on": [True, False, True] * 4,
    "c": list(range(ROWS)),
}


def frame(**changed):
    return pl.DataFrame(COLUMNS | changed)


def text(columns=COLUMNS):
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n"


def source(kind, folder):
    """The same table as a file or in memory."""
    if kind == "csv":
        (folder / "t.csv").write_text(text())
    elif kind == "csv.gz":
        (folder / "t.csv.gz").write_bytes(gzip.compress(text().encode()))
    elif kind == "parquet":
        arrow.parquet.write_table(arrow.table(COLUMNS), folder / "t.parquet")
    else:
        return {"pandas": lambda: frame().to_pandas(), "polars": frame, "lazy": lambda: frame().lazy()}[kind]()
    return folder / f"t.{kind}"


KINDS = ["csv", "csv.gz", "parquet", "pandas", "polars", "lazy"]


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("kind", KINDS)
def test_every_column_in_its_role(kind, tmp_path):
    given = source(kind, tmp_path)
    roles = {"label": "kind", "context": ["kind", "age"], "weight": "w"}
    dataset = data.load(given, drop=["on", "level"], **roles)
    assert (dataset.kind, dataset.columns, dataset.label_name) == ("table", ("a", "b", "c"), "kind")
    assert np.array_equal(dataset.x, np.column_stack([COLUMNS[name] for name in "abc"]).astype(np.float32))
    assert dataset.labels.tolist() == COLUMNS["kind"]
    assert (dataset.weight.tolist(), dataset.weight.dtype, dataset.weight_name) == (COLUMNS["w"], np.float32, "w")
    assert dataset.covariates.names == ("kind", "age")
    assert (dataset.context.shape, dataset.context.dtype) == ((ROWS, 4), np.float32)
    assert np.array_equal(dataset.context[:, :3], np.eye(3)[[0, 1, 2] * 4])
    assert np.allclose(dataset.context[:, 3].mean(), 0, atol=1e-6)
    assert np.allclose(dataset.context[:, 3].std(), 1, atol=1e-6)
    chosen = data.load(given, columns=["c", "a"], **roles)
    assert chosen.columns == ("c", "a")
    assert np.array_equal(chosen.x, dataset.x[:, [2, 0]])
    one = data.load(given, columns="b")
    assert (one.columns, one.context, one.weight, one.labels) == (("b",), None, None, None)
    assert data.load(given, columns=["a", "b", "on"], drop="on").columns == ("a", "b")


REFUSED = {
    "an unknown column": ({"columns": ["a", "bb"]}, "no column 'bb'; expected one of its names. Did you mean 'b'"),
    "an unknown column to drop": ({"drop": "knd"}, "no column 'knd'.*Did you mean 'kind'"),
    "an unknown context": ({"context": "knd"}, "no context 'knd'; expected one of its names. Did you mean 'kind'"),
    "an unknown weight": ({"weight": "zz"}, "no weight 'zz'; expected one of its names"),
    "a column twice": ({"columns": ["a", "b", "a"]}, "columns with 'a' twice"),
    "a context twice": ({"context": ["kind", "kind"]}, "context with 'kind' twice"),
    "data and context": ({"columns": ["a", "kind"], "context": "kind"}, "column 'kind' of .* as data and as context"),
    "data and weight": ({"columns": ["a", "w"], "weight": "w"}, "column 'w' of .* as data and as weight"),
    "data and label": ({"columns": ["a", "b"], "label": "b"}, "column 'b' of .* as data and as label"),
    "text as data": ({"columns": ["a", "kind"]}, "text in column 'kind'.*--label NAME.*--context NAME.*--drop NAME"),
    "text as weight": ({"columns": "a", "weight": "kind"}, "weight 'kind' of .* has text in rows 0"),
    "no column left": ({"columns": "a", "drop": "a"}, "no columns of data"),
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "pandas", "lazy"])
@pytest.mark.parametrize("case", REFUSED)
def test_roles_refused(case, kind, tmp_path):
    roles, match = REFUSED[case]
    refused(match, lambda: data.load(source(kind, tmp_path), **roles))


@pytest.mark.parametrize(
    ("changed", "roles", "match"),
    [
        (
            {"kind": ["left", None] * 6},
            {"context": "kind"},
            r"context 'kind' of the frame has no value in rows 1, 3, 5",
        ),
        ({"age": [None, 1.5] * 6}, {"context": "age"}, "context 'age' of the frame has no value in rows 0, 2"),
        ({"age": [float("inf"), 1.5] * 6}, {"context": "age"}, "context 'age' of the frame has inf in rows 0, 2"),
        ({"w": [1.0, -1.0] * 6}, {"weight": "w"}, "weight 'w' of the frame is below 0 in rows 1, 3"),
        ({"w": [0.0] * 12}, {"weight": "w"}, "weight 'w' of the frame is 0 in all rows"),
        ({"w": [None, 1.0] * 6}, {"weight": "w"}, "weight 'w' of the frame has 6 cells with NaN or infinity"),
    ],
)
def test_bad_cells_of_context_and_weight(changed, roles, match):
    refused(match, lambda: data.load(frame(**changed), columns=["a", "b"], **roles))


def test_dates_are_no_context(tmp_path):
    (tmp_path / "t.csv").write_text("a,day\n1.5,2020-01-01\n2.5,2020-01-02\n")
    days = pl.DataFrame({"a": [1.5], "day": [datetime.date(2020, 1, 1)]})
    for given in (tmp_path / "t.csv", days, days.lazy(), days.to_pandas()):
        refused("context 'day' of .* holds dates; expected text or numbers", lambda given=given: data.load(
            given, columns="a", context="day"
        ), InputTypeError)  # fmt: skip


def test_only_the_columns_that_are_needed_are_collected():
    def fail(value):
        raise AssertionError(value)

    lazy = frame().lazy().with_columns(pl.col("c").map_elements(fail, return_dtype=pl.Float64))
    dataset = data.load(lazy, columns=["b", "a"], context="kind", weight="w", label="level")
    assert (dataset.columns, dataset.labels.tolist()) == (("b", "a"), COLUMNS["level"])
    assert data.load(lazy, drop=["c", "kind"]).columns == ("a", "b", "w", "age", "level", "on")
    eager = data.load(frame(), columns=["b", "a"], context="kind", weight="w", label="level")
    assert dataset.fingerprint == eager.fingerprint
    refused(r"the frame cannot be collected \(AssertionError: \d+.*\)", lambda: data.load(lazy, columns=["c"]))
    refused(
        "cannot be collected", lambda: data.load(pl.scan_parquet("/nowhere/at/all.parquet"), columns="a")
    )  # the file is looked for when the query is


def test_parquet_reads_the_columns_that_are_needed(tmp_path):
    table = arrow.table({"a": [1.0, 2.0], "a.b": [3.0, 4.0], "nested": [[1], [2]], "t": ["u", "v"]})
    arrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert data.load(tmp_path / "t.parquet", columns=["a.b"]).x.tolist() == [[3.0], [4.0]]
    assert data.load(tmp_path / "t.parquet", columns=["a"]).x.tolist() == [[1.0], [2.0]]


# ---------------------------------------------------------------- arrays and images


def test_arrays_of_a_file_in_their_roles(tmp_path):
    size = np.arange(7.0) * 1000
    np.savez(tmp_path / "t.npz", x=REAL, y=np.array(list("uvuvuvu")), size=size[:, None], w=np.arange(7))
    dataset = data.load(tmp_path / "t.npz", context=["y", "size"], weight="w")
    assert dataset.label_name == "y"
    assert (dataset.covariates.columns[0], dataset.context.shape) == (Category("y", ("u", "v")), (7, 3))
    assert np.allclose(dataset.covariates.decode(dataset.context)["size"], size)
    assert dataset.weight.tolist() == list(range(7))
    refused("no named columns", lambda: data.load(tmp_path / "t.npz", columns=["x"]))
    refused("no context 'z'.*Known: size, w, x, y", lambda: data.load(tmp_path / "t.npz", context="z"))
    np.savez(tmp_path / "short.npz", x=REAL, age=np.arange(5.0))
    refused("context of short.npz has 5 rows; expected 7", lambda: data.load(tmp_path / "short.npz", context="age"))


def test_the_roles_of_arrays_with_a_test_set(tmp_path):
    arrays = {"x_train": GREY[:4], "x_test": GREY[4:], "y_train": np.arange(4), "y_test": np.arange(4, 6)}
    kinds = {"kind_train": np.array(["u", "v"] * 2), "kind_test": np.array(["v", "u"])}
    np.savez(tmp_path / "t.npz", w_train=np.ones(4), w_test=np.zeros(2), **arrays, **kinds)
    dataset = data.load(tmp_path / "t.npz", context="kind", weight="w")
    assert dataset.labels.tolist() == list(range(6))
    assert dataset.covariates.decode(dataset.context)["kind"].tolist() == list("uvuvvu")
    assert dataset.weight.tolist() == [1, 1, 1, 1, 0, 0]
    assert data.load(tmp_path / "t.npz", label="kind").labels.tolist() == list("uvuvvu")
    refused("no context 'z'.*Known: kind, w, y", lambda: data.load(tmp_path / "t.npz", context="z"))


def test_labels_of_images_as_context(tmp_path):
    digits = data.load("digits", context="digit")
    assert digits.covariates.columns == (Category("digit", tuple(range(10))),)
    assert np.array_equal(digits.context.argmax(1), digits.labels)
    assert digits.fingerprint != data.load("digits").fingerprint
    for place, image in enumerate(GREY):
        folder = tmp_path / "images" / ("dark" if place % 2 else "bright")
        folder.mkdir(parents=True, exist_ok=True)
        data.write_images(folder / f"{place}.png", np.repeat(image[None, None], 1, axis=0))
    images = data.load(tmp_path / "images", context="folder")
    assert images.covariates.columns == (Category("folder", ("bright", "dark")),)
    refused("digits has no context 'digt'; expected.*Did you mean 'digit'", lambda: data.load("digits", context="digt"))
    refused("x has no context to choose from, so no 'a'", lambda: data.load(REAL, name="x", context="a"))
    refused("x has no weights to choose from, so no 'w'", lambda: data.load(REAL, name="x", weight="w"))
    refused("columns chosen or dropped from digits; expected a table", lambda: data.load("digits", drop="digit"))
    refused("digits is a data set already", lambda: data.load(digits, context="digit"))


# ---------------------------------------------------------------- the encoding


def encoding(values):
    return Covariates.of({"v": values}).columns[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", "a", "b"], Category("v", ("a", "b"))),
        (np.array(["ü", " a ", "ü"]), Category("v", ("a", "ü"))),
        ([True, False, True], Category("v", (False, True))),
        (np.array([9, -1, 4] * 4), Category("v", (-1, 4, 9))),
        (np.array([2.0, 1.0] * 4), Category("v", (1, 2))),
        (np.array([0.5, 1.5] * 4), Number("v", 1.0, 0.5)),
        (np.array([1, 3]), Number("v", 2.0, 1.0)),  # each but once
        (np.full(8, 2.5), Number("v", 2.5, 1.0)),  # nothing to scale by
        (np.arange(WHOLE).repeat(REPEATS), Category("v", tuple(range(WHOLE)))),
        (torch.tensor([3, 5] * 4), Category("v", (3, 5))),
    ],
)
def test_which_encoding(values, expected):
    assert encoding(values) == expected
    assert type(encoding(values).categories[0]) is type(expected.categories[0]) if expected.size > 1 else True


def test_many_whole_numbers_are_numbers_and_many_texts_are_refused():
    many = np.arange(WHOLE + 1).repeat(REPEATS)
    assert encoding(many) == Number("v", many.mean(), many.std())
    words = [f"word {number}" for number in range(TEXTS + 1)]
    refused("1,001 different texts in 3,003 rows; expected at most 1,000", lambda: encoding(words * 3))
    refused("40 different texts in 40 rows; expected at most", lambda: encoding(words[:40]))
    assert encoding(words[:3]).size == 3


def mixed():
    rng = np.random.default_rng(5)
    return {
        "kind": np.array(["left", "right", "up"])[rng.integers(0, 3, 60)],
        "on": rng.integers(0, 2, 60).astype(bool),
        "level": rng.integers(-2, 3, 60),
        "age": rng.uniform(18, 90, 60).round(1),
        "tiny": rng.normal(3e-9, 1e-10, 60),
        "huge": rng.integers(1, 10**9, 60) * 1000,
    }


def test_encoding_and_back():
    values = mixed()
    covariates = Covariates.of(values)
    context = covariates.encode(values)
    assert (context.shape, context.dtype) == ((60, covariates.size), np.float32)
    assert covariates.size == 3 + 2 + 5 + 1 + 1 + 1
    back = covariates.decode(context)
    assert list(back) == list(values)
    for name in ("kind", "on", "level"):
        assert np.array_equal(back[name], values[name])
        assert back[name].dtype.kind == values[name].dtype.kind
    assert np.array_equal(back["age"], values["age"])  # rounding undoes float32
    for name in ("tiny", "huge"):
        # float32 keeps (v − loc) / scale, below 4 in size, to 4 · 2⁻²⁴; decoding rounds to steps of 1e-5 scales at most
        assert np.abs(back[name] - values[name]).max() <= (4 * 2**-24 + 0.5e-5) * covariates[name].scale
    again = Covariates.from_json(covariates.to_json())
    assert again == covariates
    assert np.array_equal(again.encode(values), context)
    assert [covariates.place(name) for name in ("kind", "on", "age")] == [slice(0, 3), slice(3, 5), slice(10, 11)]


def test_new_rows_are_encoded_as_the_old_ones():
    old = data.load(frame(), columns="a", context=["kind", "age", "level", "on"])
    rows = [4, 3, 10]
    changed = frame()[rows].with_columns(pl.col("level").cast(pl.Float64), pl.col("on").cast(pl.String))
    new = data.load(changed, columns="a", context=old.covariates)
    assert new.covariates == old.covariates
    assert np.array_equal(new.context, old.context[rows])
    ours = old.covariates.encode({name: [COLUMNS[name][4]] for name in old.covariates.names})
    assert np.array_equal(ours, old.context[4:5])
    strange = frame(kind=["left", "down", "up", "sideways"] * 3)
    refused(
        "context 'kind' of the frame has 'down' in rows 1, 3, 5, 7, 9 and 1 more; expected one of left, right, up",
        lambda: data.load(strange, columns="a", context=old.covariates),
    )
    words = frame(age=["old"] * 12)
    refused(
        "context 'age' of the frame has the text 'old'", lambda: data.load(words, columns="a", context=old.covariates)
    )
    refused(
        "the frame has no context 'level'",
        lambda: data.load(frame().drop("level"), columns="a", context=old.covariates),
    )


def test_encode_refused():
    covariates = Covariates.of({"digit": np.arange(3).repeat(4), "age": np.arange(12) + 0.5})
    for values, match in [
        ({"digit": [3], "age": [1.0]}, "context 'digit' has 3 in row 0; expected one of 0, 1, 2"),
        ({"digit": [1.5], "age": [1.0]}, "context 'digit' has 1.5 in row 0"),
        ({"digit": [1]}, "no values of context 'age'; expected every one of digit, age"),
        ({"digit": [1], "age": [1.0], "agee": [1]}, "no context column is called 'agee'.*Did you mean 'age'"),
        ({"digit": [1, 2], "age": [1.0]}, "columns of several lengths"),
        ({"digit": [1], "age": [np.nan]}, "context 'age' has no value in row 0"),
    ]:
        refused(match, lambda values=values: covariates.encode(values))
    assert covariates.encode({"digit": 2, "age": 6.0}).shape == (1, 4)
    assert covariates["digit"].parse("2") == 2
    assert covariates["age"].parse("2e1") == 20.0
    refused("digit=7; expected digit to be one of 0, 1, 2", lambda: covariates["digit"].parse("7"))
    refused("age=old; expected age to be a number", lambda: covariates["age"].parse("old"))
    assert Covariates.of({"on": [True, False]})["on"].parse("True") is True
    refused("scale of context 'a' is 0", lambda: Number("a", 1.0, 0.0))


def test_what_stands_for_many_rows():
    covariates = Covariates.of({"kind": ["u", "v", "v"], "age": [0.5, 1.5, 4.0]})
    typical = covariates.typical(covariates.encode({"kind": ["u", "v", "v"], "age": [0.5, 1.5, 4.0]}))
    assert covariates.decode(typical[None]) == {"kind": ["v"], "age": [2.0]}


# ---------------------------------------------------------------- fingerprints and storing


def test_fingerprints_cover_names_context_and_weight():
    base = {"columns": ["a", "b"]}
    different = [
        data.load(frame(), **base),
        data.load(frame().rename({"b": "bb"}), columns=["a", "bb"]),
        data.load(frame(), context="kind", **base),
        data.load(frame().rename({"kind": "sort"}), context="sort", **base),
        data.load(frame(kind=["left", "right", "down"] * 4), context="kind", **base),
        data.load(frame(kind=["right", "left", "up"] * 4), context="kind", **base),
        data.load(frame(), weight="w", **base),
        data.load(frame(w=[2.0, 2.0, 0.0] * 4), weight="w", **base),
        data.load(frame(), context="kind", weight="w", **base),
    ]
    assert len({dataset.fingerprint for dataset in different}) == len(different)
    assert data.load(frame(), context="kind", **base).fingerprint == different[2].fingerprint


def test_stored_context_and_weights_come_back(tmp_path):
    dataset = data.load(frame(), columns=["a", "b"], context=["kind", "age", "on"], weight="w", label="level")
    data.save_arrays(dataset, tmp_path / "data.npz")
    again = data.load_arrays(tmp_path / "data.npz")
    assert again.fingerprint == dataset.fingerprint
    for field in dataclasses.fields(dataset):
        value, back = getattr(dataset, field.name), getattr(again, field.name)
        assert (
            np.array_equal(value, back) if isinstance(value, np.ndarray) else (value, type(value)) == (back, type(back))
        )


def test_tables_and_images_with_context_beside_them(tmp_path):
    beside = {"x0": np.array(["u", "v"]), "kind": np.array([3, 4])}
    data.write_table(tmp_path / "t.csv", np.eye(2), np.arange(2), beside=beside)
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == '"id","x0","x1","x0_","kind"'
    data.write_table(tmp_path / "t.npz", np.eye(2), np.arange(2), beside={"x": beside["kind"]})
    with np.load(tmp_path / "t.npz") as arrays:
        assert set(arrays.files) == {"id", "x", "x_"}
        assert arrays["x_"].tolist() == [3, 4]
    images = GREY[:2, None]
    data.write_images(tmp_path / "out", images, beside={"kind": beside["kind"]})
    assert (tmp_path / "out" / "contexts.csv").read_text().split() == [
        '"file","kind"',
        '"00000.png",3',
        '"00001.png",4',
    ]
    assert data.load(tmp_path / "out").rows == 2
    data.write_images(tmp_path / "out.png", images, beside={"tile": beside["kind"]})
    assert (tmp_path / "out.contexts.csv").read_text().split() == ['"tile","tile_"', "0,3", "1,4"]
    assert sorted(os.listdir(tmp_path)) == ["out", "out.contexts.csv", "out.png", "t.csv", "t.npz"]


# ---------------------------------------------------------------- PyTorch data sets


class Own(Items):
    """Items of one's own."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_items_are_read_into_memory():
    x, y = torch.tensor(REAL), torch.arange(7) % 2
    plain = data.load(REAL)
    for given in (TensorDataset(x), Own(*x), Own(*REAL), Own(*REAL.tolist()), Subset(TensorDataset(x), range(7))):
        dataset = data.load(given)
        assert (dataset.source, dataset.fingerprint, dataset.labels) == ("memory", plain.fingerprint, None)
    rows = list(zip(REAL, y.tolist(), strict=True))
    for given, name in (
        (TensorDataset(x, y), "y"),
        (TensorDataset(x, y, x), "y"),
        (Own(*rows), "y"),
        (Own(*({"x": row, "y": label} for row, label in rows)), "y"),
        (Own(*({"image": row, "label": label} for row, label in rows)), "label"),
        (Own(*({"data": row, "label": np.array([label])} for row, label in rows)), "label"),
    ):
        dataset = data.load(given)
        assert (dataset.labels.tolist(), dataset.label_name) == (y.tolist(), name)
        assert np.array_equal(dataset.x, plain.x)
    given = data.load(Subset(TensorDataset(x, y), [5, 0, 1]), context="y", name="some rows")
    assert (given.name, given.labels.tolist(), given.context.tolist()) == (
        "some-rows", [1, 0, 1], data.load(TensorDataset(x[[5, 0, 1]], y[[5, 0, 1]]), context="y").context.tolist(),
    )  # fmt: skip


def test_items_keep_their_type_and_may_be_pictures():
    from PIL import Image

    pictures = Own(*((Image.fromarray(image), "even" if index % 2 == 0 else "odd") for index, image in enumerate(GREY)))
    dataset = data.load(pictures)
    assert (dataset.kind, dataset.x.dtype, dataset.x.shape) == ("image", np.uint8, (6, 1, 8, 5))
    assert np.array_equal(dataset.x[:, 0], GREY)
    assert dataset.labels.tolist() == ["even", "odd"] * 3
    assert data.load(Own(np.array([1, 2]), np.array([0.5, 2]))).x.tolist() == [[1, 2], [0.5, 2]]
    assert data.load(TensorDataset(torch.ones(3, 2, dtype=torch.bfloat16))).x.dtype == np.float32


class Failing(Own):
    def __getitem__(self, index):
        if index == 2:
            raise OSError("no such picture\nat all")
        return super().__getitem__(index)


class Endless(IterableDataset):
    def __iter__(self):
        return iter(REAL)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (Own(), "the Dataset has no items"),
        (Failing(*REAL), r"item 2 of the Dataset cannot be read \(OSError: no such picture\)"),
        (
            Own(REAL[0], REAL[1, :2]),
            r"item 1 of .* is a row of shape \(2,\) without a label; expected a row of shape \(3,\)",
        ),
        (Own([1.0, 2.0], [[1.0], 2.0]), "item 1 of the Dataset is ragged"),
        (Own((REAL[0], 1), REAL[1]), "item 1 of .* without a label; expected .* with a label 'y', as item 0 is"),
        (Own({"x": REAL[0], "y": 1}, {"x": REAL[0], "label": 1}), "item 1 of .* with a label 'label'; expected"),
        (Own({"pixels": REAL[0]}), "item 0 of .* is a dict with the keys pixels; expected x, image or data in it"),
        (Own(()), r"item 0 of .* is an empty tuple"),
        (Own((REAL[0], 1), (REAL[1], REAL[1])), r"item 1 of .* has a label of shape \(3,\); expected one number"),
        (Own((REAL[0], None)), "item 0 of .* has a NoneType as its label"),
        (Own("text", "more"), "item 0 of .* is a str that holds no numbers"),
        (Own(None), "item 0 of .* is a NoneType that holds no numbers"),
        (Own(REAL[0], REAL[1] * np.nan), "the Dataset has 3 cells with NaN or infinity, in row 1"),
        (TensorDataset(torch.ones(4)), "the Dataset has one dimension of 4 values"),
        (Endless(), "the Dataset is a Endless without a length or items by number; expected a map-style Dataset"),
        (DataLoader(TensorDataset(torch.ones(4, 2))), "a DataLoader.*vd.fit, which takes a DataLoader directly"),
    ],
)
def test_items_refused(given, match):
    refused(match, lambda: data.load(given))
    if isinstance(given, DataLoader | Endless):
        refused(match, lambda: data.load(given), InputTypeError)


def test_items_have_no_columns():
    rows = TensorDataset(torch.tensor(RNG.normal(size=(5, 2))))
    refused("no named columns", lambda: data.load(rows, columns=["a"]))
    refused("no context to choose from, so no 'y'", lambda: data.load(rows, context="y"))
