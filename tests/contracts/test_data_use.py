"""`vaelid.data`: the choice of a likelihood, the recorded steps, the split, the writers, real files."""

import dataclasses
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import COLOUR, GREY, REAL, refused

from vaelid import data, files, recipes
from vaelid.data import schema
from vaelid.errors import RunError
from vaelid.random import Key


def save(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


# ---------------------------------------------------------------- choice of a likelihood


@pytest.mark.parametrize(
    ("x", "likelihood", "arguments"),
    [
        (np.eye(3), "bernoulli", {}),
        (np.eye(3, dtype=bool), "bernoulli", {}),
        (GREY, "discretized-logistic", {"low": 0, "high": 255, "step": 1}),
        (GREY.reshape(6, -1), "negative-binomial", {}),
        ([[0, 1], [2, 30]], "negative-binomial", {}),
        ([[0.0, 1.0], [2.0, 30.0]], "negative-binomial", {}),
        ([[0.0, 0.5], [1.0, 0.1]], "continuous-bernoulli", {}),
        ([[0.0, 0.5], [1.1, 0.1]], "gaussian", {}),
        ([[0, -1], [1, 2]], "gaussian", {}),
    ],
)
def test_default_likelihoods(x, likelihood, arguments):
    choice = data.choose(data.load(x))
    assert (choice.likelihood, choice.arguments) == (likelihood, arguments)
    assert choice.line().startswith(f"likelihood: {likelihood}")
    assert choice.line().endswith(f"({choice.reason})")


def test_digits_choice():
    choice = data.choose(data.load("digits"))
    assert choice.arguments == {"trials": 16}
    assert choice.line() == (
        "likelihood: binomial, 16 trials (built-in digits: each pixel counts 0–16 dark dots of a 4×4 block)"
    )


@pytest.mark.parametrize(
    ("x", "likelihood", "arguments"),
    [
        ([[0, 1], [2, 30]], "binomial", {"trials": 30}),
        ([[0, 0]], "binomial", {"trials": 1}),
        ([[0, 1], [2, 4]], "categorical", {"classes": 5}),
        ([[0, 0]], "categorical", {"classes": 2}),
        ([[-0.5, 0.0], [0.25, 1.0]], "discretized-logistic", {"low": -0.5, "high": 1.0, "step": 0.25}),
        ([[3, 9], [5, 5]], "discretized-logistic", {"low": 3, "high": 9, "step": 2}),
        (GREY, "gaussian-fixed", {}),
        (GREY, "gaussian-shared", {}),
        (GREY, "gaussian-predicted", {}),
        (GREY, "negative-binomial", {}),
        ([[0.25, 1.0]], "continuous-bernoulli", {}),
        ([[0, 1]], "bernoulli", {}),
        ([[3, 9], [5, 5]], "discretized-logistic-mixture", {"low": 3, "high": 9, "step": 2}),
        (GREY, "discretized-logistic-mixture", {"low": 0, "high": 255, "step": 1}),
        ([[0, 1], [2, 4]], "ordinal", {"levels": 5}),
        ([[0, 0]], "ordinal", {"levels": 2}),
        (REAL, "laplace", {}),
        (REAL, "student-t", {}),
        (np.exp(REAL), "log-normal", {}),
        (GREY, "poisson", {}),
        (GREY, "zero-inflated-negative-binomial", {}),
    ],
)
def test_likelihoods_by_name(x, likelihood, arguments):
    choice = data.choose(data.load(x), likelihood)
    assert (choice.likelihood, choice.reason) == (likelihood, "chosen by you")
    assert choice.arguments == arguments


def test_steps_of_a_grid_are_found_through_rounding():
    choice = data.choose(data.load(np.arange(30).reshape(10, 3) * 0.1 + 4), "discretized-logistic")
    assert choice.arguments["step"] == pytest.approx(0.1, rel=1e-6)  # float32 holds the ends to 7 digits
    assert choice.arguments["low"] == 4.0


@pytest.mark.parametrize("likelihood", data.LIKELIHOODS)
def test_every_name_builds_a_model_that_takes_its_data(likelihood):
    """What the name promises, the recipe builds: heads, arguments and support fit together."""
    small = {"continuous-bernoulli": [[0.25, 1.0], [0.0, 0.5]], "bernoulli": [[0, 1], [1, 1]]}
    x = small.get(likelihood, [[1, 2], [3, 2]])
    dataset = data.load(x)
    model = recipes.vae(dataset, likelihood=likelihood, latent=1, hidden=(4,))
    assert model.likelihood.support == schema._support(likelihood, data.choose(dataset, likelihood).arguments)
    assert model.sample(3, Key(0)).shape == (3, 2)
    assert model.reconstruct(dataset.x).isfinite().all()


@pytest.mark.parametrize(
    ("x", "likelihood", "match"),
    [
        (GREY, "bernouli", "no likelihood is called 'bernouli'.*[Dd]id you mean 'bernoulli'"),
        (GREY, "bernoulli", "memory has values that the bernoulli likelihood cannot give, in rows 0, 1, 2.*--binarise"),
        (GREY, "continuous-bernoulli", "expected numbers from 0 to 1"),
        ([[0, -2]], "negative-binomial", "first: -2 in row 0, column 1"),
        ([[0, -2]], "binomial", "first: -2 in row 0, column 1"),
        ([[0, 1.5]], "categorical", "first: 1.5 in row 0"),
        ([[0, 5000]], "categorical", "values up to 5000 for the categorical"),
        ([[2, 2]], "discretized-logistic", "all values of memory are 2"),
        ([[0.0, 1.0], [0.3, 0.45]], "discretized-logistic", "off a grid of equal steps"),
        ([[0.0, 1.0], [0.3, 0.45]], "discretized-logistic-mixture", "steps for the discretized-logistic-mixture"),
        ([[1.0, 0.0]], "log-normal", "first: 0 in row 0, column 1.*expected numbers > 0"),
        ([[0, 1.5]], "poisson", "first: 1.5 in row 0"),
        ([[0, -1]], "zero-inflated-negative-binomial", "first: -1 in row 0"),
        ([[0, 1.5]], "ordinal", "first: 1.5 in row 0"),
        ([[0, 5000]], "ordinal", "values up to 5000 for the ordinal"),
    ],
)
def test_likelihoods_refused(x, likelihood, match):
    dataset = data.load(x)
    refused(match, lambda: data.choose(dataset, likelihood))


@pytest.mark.parametrize(
    ("x", "scale"),
    [(GREY, 255), (GREY.reshape(6, -1), 255), ([[0.0, 0.5]], 1), (np.eye(3, dtype=np.uint8), 1), (np.eye(2) > 0, 1)],
)
def test_grey_scale(x, scale):
    assert data.grey_scale(data.load(x)) == scale


# ---------------------------------------------------------------- split


@pytest.mark.parametrize("rows", [3, 4, 10, 1797])
@pytest.mark.parametrize("own_test", [False, True])
def test_split_is_disjoint_complete_and_repeatable(rows, own_test):
    test_rows = np.array([1]) if own_test else None
    parts = data.split(rows, Key(3).fold("split"), test_rows=test_rows)
    pieces = [parts.train, parts.validation, parts.test]
    assert np.array_equal(np.sort(np.concatenate(pieces)), np.arange(rows))
    for piece in pieces:
        assert len(piece) >= 1
        assert piece.dtype == np.int64
        assert np.all(np.diff(piece) > 0)
    again = data.split(rows, Key(3).fold("split"), test_rows=test_rows)
    assert np.array_equal(parts.train, again.train)
    if own_test:
        assert parts.test.tolist() == [1]
    if rows == 1797:
        assert not np.array_equal(parts.train, data.split(rows, Key(4), test_rows=test_rows).train)
        assert len(parts.validation) == (200 if own_test else 180)  # 1796 · 0.1 / 0.9 and 1797 · 0.1


def test_split_fractions():
    parts = data.split(1000, Key(0), (0.5, 0.2, 0.3))
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [500, 200, 300]


@pytest.mark.parametrize(
    ("rows", "arguments", "match"),
    [
        (1, {}, "1 row of data; expected at least 3"),
        (2, {}, "2 rows of data; expected at least 3"),
        (9, {"fractions": (0.8, 0.1, 0.2)}, "add up to 1"),
        (9, {"fractions": (1.0, 0.0, 0.0)}, "three positive numbers"),
        (9, {"test_rows": [0, 9]}, "test rows among the data"),
        (9, {"test_rows": []}, "0 test rows among 9 rows"),
        (9, {"test_rows": range(8)}, "at least 2 rows beside them"),
    ],
)
def test_split_refused(rows, arguments, match):
    refused(match, lambda: data.split(rows, Key(0), **arguments))


# ---------------------------------------------------------------- writers


def stored() -> list[data.Dataset]:
    table = data.load(REAL)
    return [
        table,
        data.load("digits"),
        dataclasses.replace(
            table, columns=("a", "ß", "c"), kind="table", labels=np.array(list("uvuvuvü")), label_name="k"
        ),
        dataclasses.replace(table, test_rows=np.array([5, 6]), labels=np.arange(7.0), name="other"),
    ]


@pytest.mark.parametrize("dataset", stored(), ids=["plain", "digits", "table", "test rows"])
def test_stored_arrays_come_back(tmp_path, dataset):
    data.save_arrays(dataset, tmp_path / "data.npz")
    again = data.load_arrays(tmp_path / "data.npz")
    assert again.fingerprint == dataset.fingerprint
    for field in dataclasses.fields(dataset):
        value, back = getattr(dataset, field.name), getattr(again, field.name)
        if isinstance(value, np.ndarray):
            assert back.dtype == value.dtype
            assert np.array_equal(back, value)
        else:
            assert (back, type(back)) == (value, type(value))
    assert os.listdir(tmp_path) == ["data.npz"]


def test_stored_arrays_refused(tmp_path):
    refused(
        "nothing.npz cannot be read .No such file.*Check that it exists",
        lambda: data.load_arrays(tmp_path / "nothing.npz"),
    )
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04 half")
    refused("half.npz cannot be read", lambda: data.load_arrays(tmp_path / "half.npz"))
    refused("lacks kind, name, row_id, source", lambda: data.load_arrays(save(tmp_path / "x.npz", x=REAL)))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_tables_written(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    ids = np.array([4, 2, 9])
    data.write_table(path, np.arange(6, dtype=np.float32).reshape(3, 1, 2) / 3, ids, array="z")
    back = data.load(path)
    assert back.columns == ("id", "z0", "z1")
    assert np.array_equal(back.x[:, 0], ids)
    assert np.array_equal(back.x[:, 1:], np.arange(6, dtype=np.float32).reshape(3, 2) / 3)
    data.write_table(path, {"id": np.array([1, 2, 3]), "name": np.array(["a", "b, c", "d"])}, ids)
    back = data.load(path, label="name")
    assert back.columns == ("row_id", "id")
    assert back.labels.tolist() == ["a", "b, c", "d"]
    data.write_table(path, np.eye(3), ids, names=("u", "v", "w"))
    assert data.load(path).columns == ("id", "u", "v", "w")


def test_arrays_written(tmp_path):
    values, ids = REAL.reshape(7, 3, 1), np.arange(7) + 10
    data.write_table(tmp_path / "out.npy", values, ids)
    assert np.array_equal(np.load(tmp_path / "out.npy"), values)
    data.write_table(tmp_path / "out.npz", values, ids, array="z")
    with np.load(tmp_path / "out.npz") as back:
        assert np.array_equal(back["z"], values)
        assert np.array_equal(back["id"], ids)
    data.write_table(tmp_path / "out.npy", {"a": REAL[:, 0], "b": REAL[:, 1]}, ids)
    assert np.array_equal(np.load(tmp_path / "out.npy"), REAL[:, :2])
    assert sorted(os.listdir(tmp_path)) == ["out.npy", "out.npz"]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("out.txt", "has the ending '.txt'; expected one of .csv, .parquet, .npy, .npz"),
        ("out", "has no ending"),
        ("absent/out.csv", "output folder .*absent does not exist.*[Mm]kdir"),
        ("file/out.csv", "does not exist"),
        ("folder.csv", "folder.csv is a folder"),
    ],
)
def test_table_paths_refused(tmp_path, name, match):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.csv").mkdir()
    for call in (data.check_table_path, lambda path: data.write_table(path, REAL, np.arange(7))):
        refused(match, lambda call=call: call(tmp_path / name))


def test_unwritable_folders_and_full_disks(tmp_path, monkeypatch):
    def fails(number):
        def atomic(path):
            raise OSError(number, os.strerror(number))

        return atomic

    target = tmp_path / "out.csv"
    monkeypatch.setattr(files, "atomic", fails(errno.EACCES))
    refused(
        "cannot be written .Permission denied.; expected a writable folder",
        lambda: data.write_table(target, REAL, REAL[:, 0]),
    )
    monkeypatch.setattr(files, "atomic", fails(errno.ENOSPC))
    refused("No space left on device.*Make room", lambda: data.write_table(target, REAL, REAL[:, 0]), RunError)
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused("is not writable", lambda: data.check_table_path(target))
    refused("is not writable", lambda: data.check_images_path(tmp_path / "images"))


@pytest.mark.parametrize("x", [GREY[:, None], COLOUR.transpose(0, 3, 1, 2)])
def test_image_folder_written(tmp_path, x):
    data.write_images(tmp_path / "out", x / 255.0, scale=1.0)
    assert sorted(os.listdir(tmp_path / "out")) == [f"{i:05d}.png" for i in range(6)]
    assert np.array_equal(data.load(tmp_path / "out").x, x)
    assert os.listdir(tmp_path) == ["out"]
    refused("out is not empty", lambda: data.write_images(tmp_path / "out", x))


def test_image_grid_written(tmp_path):
    x = np.zeros((5, 1, 8, 8))
    x[3] = 16
    data.write_images(tmp_path / "grid.png", x, scale=16)
    picture = np.asarray(Image.open(tmp_path / "grid.png"))
    assert picture.shape == (2 * 34 + 2, 3 * 34 + 2)  # 8 × 8 magnified to 32 × 32, gaps of 2
    assert np.all(picture[36:68, 2:34] == 255)
    assert (picture == 255).sum() == 32 * 32
    assert (picture == 0).sum() == 4 * 32 * 32


def test_images_refused_by_the_writer(tmp_path):
    refused(r"shape \(7, 3\); expected images", lambda: data.write_images(tmp_path / "a.png", REAL))
    refused("ending '.jpg'; expected a folder", lambda: data.write_images(tmp_path / "a.jpg", GREY[:, None]))
    (tmp_path / "taken").write_text("x")
    refused("taken is a file", lambda: data.write_images(tmp_path / "taken", GREY[:, None]))


# ---------------------------------------------------------------- real files


def real(name: str) -> Path:
    folder = os.environ.get("VAELID_DATA")
    if folder is None or not (Path(folder) / name).exists():
        pytest.skip(f"{name} needs VAELID_DATA, the folder of real data")
    return Path(folder) / name


def test_real_mnist():
    mnist = data.load(real("mnist.npz"))
    assert mnist.x.shape == (70000, 1, 28, 28)
    assert len(mnist.test_rows) == 10000
    assert data.choose(mnist).likelihood == "discretized-logistic"
    assert data.choose(mnist, binarise=True).likelihood == "bernoulli"


def test_real_counts():
    counts = data.load(real("pbmc68k_counts.npz"), label="cell_type")
    assert counts.x.shape == (700, 765)
    assert len(set(counts.labels)) > 3
    assert data.choose(counts).likelihood == "negative-binomial"


def test_real_table():
    table = data.load(real("uci/yacht.csv.gz"))
    assert table.x.shape == (308, 7)
    assert table.columns[0] == "column_0"
    assert data.choose(table).likelihood == "gaussian"
    text = real("tables/adult-train.csv.gz")
    refused(r"text in columns 'column_1' \(row 0: ' State-gov'\)", lambda: data.load(text))
    gaps = real("tables/horse-colic.csv.gz")
    refused("1605 missing cells", lambda: data.load(gaps))
