"""`vaelid.data`: every reader and every refusal; fingerprints."""

import dataclasses
import errno
import gzip
import io
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import COLOUR, GREY, REAL, RNG, refused

from vaelid import data
from vaelid.errors import InputTypeError


def png(image: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    content = io.BytesIO()
    picture = Image.fromarray(image)
    (picture.convert(mode) if mode else picture).save(content, format=kind)
    return content.getvalue()


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def save(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def lines(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# ---------------------------------------------------------------- sources


def test_digits():
    digits = data.load("digits")
    assert (digits.name, digits.source, digits.kind, digits.trials) == ("digits", "digits", "image", 16)
    assert digits.x.shape == (1797, 1, 8, 8)
    assert digits.x.dtype == np.uint8
    assert (digits.x.min(), digits.x.max()) == (0, 16)
    assert digits.labels.tolist()[:4] == [0, 1, 2, 3]
    assert np.array_equal(digits.row_id, np.arange(1797))
    assert digits.event_shape == (1, 8, 8)
    assert data.load(digits) is digits
    assert data.load("digits", label="digit", name="my digits").name == "my-digits"


@pytest.mark.parametrize(
    ("shape", "dtype", "expected", "kind"),
    [
        ((6, 8, 5), np.uint8, (6, 1, 8, 5), "image"),
        ((6, 8, 5), np.float32, (6, 1, 8, 5), "image"),
        ((6, 8, 5, 3), np.uint8, (6, 3, 8, 5), "image"),
        ((6, 8, 5, 1), bool, (6, 1, 8, 5), "image"),
        ((6, 3, 8, 5), np.uint8, (6, 3, 8, 5), "image"),
        ((6, 8, 3), np.uint8, (6, 8, 3), "array"),
        ((6, 8, 8, 7), np.uint8, (6, 8, 8, 7), "array"),
        ((6, 8), np.uint8, (6, 8), "array"),
    ],
)
def test_shapes_of_arrays(shape, dtype, expected, kind):
    given = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    dataset = data.load(given)
    assert (dataset.x.shape, dataset.kind, dataset.x.dtype) == (expected, kind, dtype)
    assert dataset.x.flags.c_contiguous
    if shape == (6, 8, 5, 3):
        assert np.array_equal(dataset.x[4, 2], given[4, :, :, 2])
    else:
        assert np.array_equal(dataset.x.ravel(), given.ravel())


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ("uint8", "uint8"),
        ("bool", "bool"),
        ("int16", "int16"),
        ("int64", "int64"),
        ("uint16", "int32"),
        ("uint32", "int64"),
        ("uint64", "int64"),
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float32"),
    ],
)
def test_dtypes_are_those_that_tensors_compute_with(given, held):
    dataset = data.load(np.eye(3, dtype=given))
    assert dataset.x.dtype == held
    assert torch.from_numpy(dataset.x)[torch.tensor([0, 2])].max() == 1


def test_memory():
    for given in (REAL, REAL.tolist(), torch.tensor(REAL)):
        dataset = data.load(given)
        assert (dataset.name, dataset.source, dataset.labels) == ("memory", "memory", None)
        assert np.array_equal(dataset.x, REAL.astype(np.float32))
    refused("no labels to choose from, so no 'y'", lambda: data.load(REAL, label="y"))
    refused("x has 1 cell with NaN", lambda: data.load([[1.0, np.nan]]))
    refused("x is a dict", lambda: data.load({"x": REAL}), InputTypeError)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(library):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5], "kind": ["u", "v", "u"]})
    dataset = data.load(frame, label="kind")
    assert (dataset.kind, dataset.columns, dataset.label_name) == ("table", ("a", "b"), "kind")
    assert dataset.x.dtype == np.float32
    assert np.array_equal(dataset.x, [[1, 0.5], [2, 1.5], [3, 2.5]])
    assert dataset.labels.tolist() == ["u", "v", "u"]
    assert data.load(frame[["a"]]).x.dtype == np.int64
    refused(r"text in column 'kind' \(row 0: 'u'\).*--label NAME", lambda: data.load(frame), InputTypeError)
    refused("no label 'knd'; expected one of its names. Did you mean 'kind'", lambda: data.load(frame, label="knd"))
    holes = frames.DataFrame({"a": [1.0, None, 3.0], "y": ["u", None, "v"]})
    refused("1 missing cell: column 'a' in row 1", lambda: data.load(holes, label="y"))
    unlabelled = frames.DataFrame({"a": [1.0, 2.0, 3.0], "y": ["u", None, "v"]})
    refused("label 'y' of the frame has no value in row 1", lambda: data.load(unlabelled, label="y"))
    refused("no columns of data", lambda: data.load(frame[["kind"]], label="kind"))


def test_frame_libraries_stay_unimported():
    code = "import sys, vaelid.data as d; d.load([[1, 2], [3, 4]]); print(sorted(sys.modules))"
    where = str(Path(data.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": where},
    )
    assert "'pandas'" not in run.stdout
    assert "'polars'" not in run.stdout
    assert "'numpy'" in run.stdout


def test_float32_limits_are_told():
    refused("values of size 1e\\+300 in column 1", lambda: data.load([[1.0, 1e300], [2.0, 3.0]]))
    times = 1.7e9 + np.arange(5.0)[:, None]
    refused("1700000000 to 1700000004 in column 0.*Subtract a constant", lambda: data.load(times))
    nearly_constant = np.full((3, 1), 0.1) + np.array([[0.0], [2e-17], [4e-17]])
    assert data.load(nearly_constant).x.dtype == np.float32


# ---------------------------------------------------------------- NumPy files


def test_npy(tmp_path):
    np.save(tmp_path / "grey.npy", GREY)
    dataset = data.load(tmp_path / "grey.npy")
    assert (dataset.name, dataset.kind, dataset.source) == ("grey", "image", str(tmp_path / "grey.npy"))
    assert np.array_equal(dataset.x[:, 0], GREY)


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    np.save(tmp_path / "a b.npy", REAL)
    monkeypatch.chdir(tmp_path)
    dataset = data.load("a b.npy")
    assert dataset.source == str(tmp_path / "a b.npy")
    assert dataset.name == "a-b"


@pytest.mark.parametrize(
    ("arrays", "label", "label_name"),
    [
        ({"anything": REAL}, None, None),
        ({"anything": REAL, "y": np.arange(7)}, None, "y"),
        ({"X": REAL, "label": np.arange(7), "other": np.ones(2)}, None, "label"),
        ({"counts": REAL, "cell": np.arange(7), "gene": np.array(["a", "b", "c"])}, "cell", "cell"),
        ({"data": REAL, "y": np.zeros(7), "cell": np.arange(7)}, "cell", "cell"),
    ],
)
def test_npz(tmp_path, arrays, label, label_name):
    path = save(tmp_path / "set.npz", **arrays)
    dataset = data.load(path, label=label)
    assert np.array_equal(dataset.x, REAL.astype(np.float32))
    assert dataset.label_name == label_name
    if label_name is not None:
        assert dataset.labels.tolist() == list(range(7))
        assert data.load(path, label=dataset.label_name).fingerprint == dataset.fingerprint


@pytest.mark.parametrize("labelled", [True, False])
def test_npz_with_its_own_test_set(tmp_path, labelled):
    labels = {"y_train": np.arange(4), "y_test": np.arange(4, 6)} if labelled else {}
    path = save(tmp_path / "set.npz", x_test=GREY[4:], x_train=GREY[:4], **labels)
    dataset = data.load(path)
    assert np.array_equal(dataset.x[:, 0], GREY)
    assert dataset.test_rows.tolist() == [4, 5]
    assert (dataset.labels.tolist() if labelled else dataset.labels) == (list(range(6)) if labelled else None)
    assert dataset.label_name == ("y" if labelled else None)
    if labelled:
        assert data.load(path, label="y").fingerprint == dataset.fingerprint
    refused("no label 'z'|no labels to choose from", lambda: data.load(path, label="z"))


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        (
            {"a": REAL, "b": REAL},
            r"set.npz holds the arrays a, b; expected one array, or data named x, X, data, counts",
        ),
        ({"x": REAL, "X": REAL}, "holds the arrays x, X"),
        ({}, "holds no arrays"),
        ({"x": REAL, "y": np.arange(3)}, r"y of set.npz has shape \(3,\); expected one label per row, shape \(7,\)"),
        ({"x": np.array([[1, "a"]], object)}, "array 'x' of .*set.npz holds pickled objects"),
        ({"x_train": GREY, "x_test": COLOUR}, r"x_test of set.npz has shape \(8, 5, 3\); expected \(8, 5\)"),
        ({"x": np.array([[1.0], [np.nan]])}, "x of set.npz has 1 cell with NaN or infinity, in row 1"),
        ({"x": np.array([["a"]])}, "x of set.npz has text in row 0"),
    ],
)
def test_npz_refused(tmp_path, arrays, match):
    path = save(tmp_path / "set.npz", **arrays)
    refused(match, lambda: data.load(path))


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("text", "columns", "x"),
    [
        ("a,b\n1,2\n3,4\n", ("a", "b"), [[1, 2], [3, 4]]),
        ("1,2\n3,4\n", ("column_0", "column_1"), [[1, 2], [3, 4]]),
        ("0,1\n5,6\n", ("0", "1"), [[5, 6]]),
        (",0,1\n0,5,6\n1,7,8\n", ("0", "1"), [[5, 6], [7, 8]]),
        (",a,b\n0,5,6\n1,7,8\n", ("a", "b"), [[5, 6], [7, 8]]),
        (",a,b\n3,5,6\n1,7,8\n", ("column_0", "a", "b"), [[3, 5, 6], [1, 7, 8]]),
        ("a;b\r\n1;2.5\r\n", ("a", "b"), [[1, 2.5]]),
        ("a\tb\n1\t2\n", ("a", "b"), [[1, 2]]),
        ("\ufeff\n\na, b\n\n1, 2\n\n 3,4", ("a", "b"), [[1, 2], [3, 4]]),
        ('"a","b, c"\n"1",2\n', ("a", "b, c"), [[1, 2]]),
        ("only\n1\n2\n", ("only",), [[1], [2]]),
        ("a,b\ntrue,1e-3\nfalse,2\n", ("a", "b"), [[1, 0.001], [0, 2]]),
    ],
)
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_csv(tmp_path, text, columns, x, ending):
    dataset = data.load(lines(tmp_path / f"table.v1{ending}", text))
    assert (dataset.name, dataset.kind, dataset.columns) == ("table.v1", "table", columns)
    assert np.array_equal(dataset.x, np.asarray(x, dataset.x.dtype))
    whole = all(float(cell).is_integer() for row in x for cell in row)
    assert dataset.x.dtype == (np.int64 if whole else np.float32)


def test_csv_labels(tmp_path):
    path = lines(tmp_path / "iris.csv", "5.1,3.5, setosa\n4.9,3.0, virginica\n")
    dataset = data.load(path, label="column_2")
    assert dataset.columns == ("column_0", "column_1")
    assert dataset.labels.tolist() == ["setosa", "virginica"]
    refused(
        "no label 'colum_2'; expected one of its names. Did you mean 'column_2'",
        lambda: data.load(path, label="colum_2"),
    )
    refused(r"iris.csv has text in column 'column_2' \(row 0: ' setosa'\)", lambda: data.load(path), InputTypeError)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "a,b,c\n1,2,3\n4,5\n6,7,8\n\n9,1,2,3\n",
            r"t.csv has ragged rows: rows 1, 3 \(row 1 has 2 cells\); expected 3",
        ),
        ("1,2,3\n4,5\n6,7,8\n", r"rows? 1 \(row 1 has 2 cells\)"),
        ("\n\na,b\n1,2\n3\n", r"row 1 \(row 1 has 1 cell\)"),
        ("a,b\n1,2\n,3\n4,?\nNA,5\n", "3 missing cells: column 'a' in rows 1, 3; column 'b' in row 2;"),
        ("a,b\n1,2\n3,x\n", r"t.csv has text in column 'b' \(row 1: 'x'\).*--context NAME.*--drop NAME.*encode"),
        ("a,b\n1,2\n3,inf\n", "1 cell with NaN or infinity, in row 1"),
        ("day,b\n2020-01-01,2\n", "text in column 'day'"),
        ("a,a\n1,2\n", "several columns named 'a'"),
        ("a,b\n", "t.csv has column names but no rows"),
        ("\n\n\n", "is empty; expected rows of numbers"),
        ("\x00\x01\x02PK", "text in column|cannot be read"),
    ],
)
def test_csv_refused(tmp_path, text, match):
    path = lines(tmp_path / "t.csv", text)
    refused(match, lambda: data.load(path))


def test_csv_in_another_encoding(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("größe,ort\n1,Köln\n2,Ulm\n".encode("latin-1"))
    assert data.load(path, label="ort").x.tolist() == [[1], [2]]
    path.write_bytes("größe,ort\n1,2\n2,Köln,3\n".encode("latin-1"))
    refused(r"ragged rows: row 1 \(row 1 has 3 cells\)", lambda: data.load(path))


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = arrow.table(
        {
            "n": arrow.array([1, 2, 3], arrow.int32()),
            "price": arrow.array([1, 2, 3], arrow.int64()).cast(arrow.decimal128(21, 2)),
            "kind": arrow.array(["u", "v", "u"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    dataset = data.load(tmp_path / "t.parquet", label="kind")
    assert (dataset.columns, dataset.labels.tolist()) == (("n", "price"), ["u", "v", "u"])
    assert np.array_equal(dataset.x, [[1, 1], [2, 2], [3, 3]])
    refused("text in column 'kind'", lambda: data.load(tmp_path / "t.parquet"), InputTypeError)
    parquet.write_table(arrow.table({"a": [1, None], "b": [None, None]}), tmp_path / "h.parquet")
    refused("3 missing cells: column 'a' in row 1; column 'b' in rows 0, 1", lambda: data.load(tmp_path / "h.parquet"))
    parquet.write_table(arrow.table({"a": [[1], [2]]}), tmp_path / "nested.parquet")
    refused("text in column 'a'", lambda: data.load(tmp_path / "nested.parquet"))


def test_parquet_of_pandas_leaves_the_index_out(tmp_path):
    pd = pytest.importorskip("pandas")
    pd.DataFrame({"a": [1, 2]}, index=[7, 9]).to_parquet(tmp_path / "t.parquet")
    assert data.load(tmp_path / "t.parquet").columns == ("a",)


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("where", ["folder", "zip"])
@pytest.mark.parametrize(
    ("make", "channels", "expected"),
    [
        (lambda i: png(GREY[i]), 1, GREY[:, None]),
        (lambda i: png(COLOUR[i]), 3, COLOUR.transpose(0, 3, 1, 2)),
        (lambda i: png(COLOUR[i], mode="RGBA"), 3, COLOUR.transpose(0, 3, 1, 2)),
        (lambda i: png(GREY[i], mode="LA"), 1, GREY[:, None]),
        (lambda i: png(GREY[i] > 127), 1, GREY[:, None] > 127),
        (lambda i: png(np.repeat(GREY[i, :, :, None] & 0xF0, 3, 2), mode="P"), 3, None),
    ],
)
def test_images(tmp_path, where, make, channels, expected):
    contents = {f"b/{i}.png" if i % 2 else f"a/{i}.PNG": make(i) for i in range(6)}
    contents |= {"a/.hidden.png": b"", "__MACOSX/a/0.png": b"", "notes.txt": b"hello"}
    source = write(tmp_path / "set", contents) if where == "folder" else pack(tmp_path / "set.zip", contents)
    dataset = data.load(source)
    order = [0, 2, 4, 1, 3, 5]
    assert (dataset.name, dataset.kind, dataset.source) == ("set", "image", str(source))
    assert dataset.x.shape == (6, channels, 8, 5)
    assert dataset.labels.tolist() == ["a", "a", "a", "b", "b", "b"]
    assert dataset.label_name == "folder"
    assert data.load(source, label="folder").fingerprint == dataset.fingerprint
    if expected is not None:
        assert dataset.x.dtype == expected.dtype
        assert np.array_equal(dataset.x, expected[order])


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "GIF", "WEBP", "TIFF"])
def test_image_formats(tmp_path, kind):
    flat = np.full((8, 8), 128, np.uint8)
    ending = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
    dataset = data.load(write(tmp_path / "set", {f"{i}.{ending}": png(flat, kind) for i in range(2)}))
    assert dataset.x.shape[0] == 2
    assert np.abs(dataset.x.astype(int) - 128).max() <= 1  # lossy formats round a flat grey by at most one level
    assert dataset.labels is None


def test_image_folders_train_and_test(tmp_path):
    names = ["train/cat/0", "train/dog/1", "test/cat/2", "test/dog/3"]
    contents = {f"pets/{name}.png": png(GREY[int(name[-1])]) for name in names}
    dataset = data.load(pack(tmp_path / "pets.zip", contents))
    assert dataset.labels.tolist() == ["cat", "dog", "cat", "dog"]
    assert dataset.test_rows.tolist() == [0, 1]
    assert np.array_equal(dataset.x[0, 0], GREY[2])
    flat = write(tmp_path / "flat", {"train/0.png": png(GREY[0]), "test/1.png": png(GREY[1])})
    assert data.load(flat).labels is None
    assert data.load(flat).test_rows.tolist() == [0]
    mixed = write(tmp_path / "mixed", {"0.png": png(GREY[0]), "a/1.png": png(GREY[1])})
    assert data.load(mixed).labels is None


@pytest.mark.parametrize(
    ("contents", "match"),
    [
        ({"0.png": png(GREY[0]), "1.png": png(GREY[0][:4])}, "1.png is 5×4 grey, but 0.png is 5×8 grey"),
        ({"0.png": png(GREY[0]), "a/1.png": png(COLOUR[0])}, "a/1.png is 5×8 RGB, but 0.png is 5×8 grey"),
        ({"0.png": png(GREY[0]), "1.png": png(GREY[0])[:60]}, "image 1.png cannot be read"),
        ({"0.png": b"no image at all"}, "image 0.png cannot be read"),
        ({"0.png": png(GREY[0].astype(np.uint16))}, r"image 0.png has more than 8 bits per channel \(mode I;16"),
        ({"notes.txt": b"hello"}, "set.* holds no images; expected files ending in .png"),
    ],
)
@pytest.mark.parametrize("where", ["folder", "zip"])
def test_images_refused(tmp_path, contents, match, where):
    source = write(tmp_path / "set", contents) if where == "folder" else pack(tmp_path / "set.zip", contents)
    refused(match, lambda: data.load(source))
    refused("no label", lambda: data.load(write(tmp_path / "good", {"0.png": png(GREY[0])}), label="kind"))


# ---------------------------------------------------------------- files that are not what they should be


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("digit", "no built-in data set is called 'digit' and there is no such file.*[Dd]id you mean 'digits'"),
        ("cifar", "no built-in data set is called 'cifar'.*[Kk]nown: digits"),
        ("nowhere/x.npy", "no such file or folder: nowhere/x.npy"),
        (Path("x.csv"), "no such file or folder: x.csv"),
    ],
)
def test_absent_sources(tmp_path, monkeypatch, source, match):
    monkeypatch.chdir(tmp_path)
    refused(match, lambda: data.load(source))


@pytest.mark.parametrize("ending", data.ENDINGS)
def test_damaged_files(tmp_path, ending):
    path = tmp_path / f"broken{ending}"
    path.write_bytes(b"")
    refused(f"broken{ending} is an empty file \\(0 bytes\\)", lambda: data.load(path))
    if ending != ".csv":
        path.write_bytes(b"\x93 this is not what the ending says \x00\xff" * 20)
        refused(f"broken{ending} cannot be read.*damaged", lambda: data.load(path))
    path.unlink()
    path.mkdir()
    refused("holds no images", lambda: data.load(path))


@pytest.mark.parametrize("ending", [".npy", ".npz", ".parquet", ".csv.gz", ".zip"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files(tmp_path, ending, share):
    whole = tmp_path / f"whole{ending}"
    if ending == ".zip":
        pack(whole, {f"{i}.png": png(GREY[i]) for i in range(6)})
    elif ending == ".csv.gz":
        lines(whole, "a,b\n" + "".join(f"{x},{y}\n" for x, y in RNG.normal(size=(500, 2))))
    else:
        data.write_table(whole, RNG.normal(size=(50, 3)), np.arange(50))
    content = whole.read_bytes()
    cut = tmp_path / f"cut{ending}"
    cut.write_bytes(content[: int(share * len(content))])
    refused(f"cut{ending} cannot be read.*damaged or cut short", lambda: data.load(cut))


def test_unknown_endings_and_odd_paths(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"pickled")
    refused(r"x.pkl has an unknown ending; expected one of .npy, .npz", lambda: data.load(tmp_path / "x.pkl"))
    refused("neither a file nor a folder", lambda: data.load("/dev/null"))
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    refused("objects.npy cannot be read", lambda: data.load(tmp_path / "objects.npy"))


def test_unreadable_files(tmp_path, monkeypatch):
    path = lines(tmp_path / "t.csv", "a,b\n1,2\n")
    monkeypatch.setattr("builtins.open", _denied)
    refused("t.csv cannot be read.*Permission denied", lambda: data.load(path))


def _denied(*args, **kwargs):
    raise PermissionError(errno.EACCES, "Permission denied")


# ---------------------------------------------------------------- fingerprint


def test_fingerprint_tells_data_apart():
    values = np.arange(12).reshape(4, 3)
    fingerprint = data.load(values).fingerprint
    assert re.fullmatch("[0-9a-f]{64}", fingerprint)
    assert data.load(values.copy(), name="other").fingerprint == fingerprint
    changed = values.copy()
    changed[2, 1] += 1
    others = [changed, values.reshape(2, 6), values.astype(np.int32)]
    labelled = [dataclasses.replace(data.load(values), labels=np.array(list(labels))) for labels in ("abcd", "abce")]
    prints = {fingerprint, *(data.load(other).fingerprint for other in others), *(one.fingerprint for one in labelled)}
    assert len(prints) == 6
