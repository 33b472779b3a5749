"""`vaelid.checks`: what passes keeps its values, what does not is refused in one line that says where and what."""

import numpy as np
import pytest
import torch
from support import refused

from vaelid import checks
from vaelid.errors import InputError, InputTypeError
from vaelid.types import Support


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.arange(6, dtype=np.uint8).reshape(2, 3), np.uint8),
        (np.array([[True, False]]), np.bool_),
        (np.ones((2, 2), np.float16), np.float32),
        (np.ones((2, 2), np.longdouble), np.float64),
        (np.ones((2, 2), ">f8"), np.dtype("<f8")),
        ([[1, 2], [3, 4]], np.int64),
        ([[1.5, 2], [3, 4]], np.float64),
        ([[1, True], [3, 4]], np.int64),
        (np.array([[1, 2.5], [3, 4]], object), np.float64),
        (np.array([[1, 2], [3, 4]], object), np.int64),
        (torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True), np.float32),
        (torch.eye(3).to_sparse(), np.float32),
        ([torch.ones(3), torch.zeros(3)], np.float32),
        (np.ma.masked_array([[1.0, 2.0]], mask=False), np.float64),
    ],
)
def test_array_keeps_values_and_small_dtypes(given, dtype):
    values = checks.array(given)
    assert values.dtype == dtype
    assert values.flags.c_contiguous
    assert values.flags.writeable
    plain = [row.tolist() for row in given] if isinstance(given, list) and torch.is_tensor(given[0]) else given
    if torch.is_tensor(given):
        plain = given.detach().to_dense().float().numpy() if given.is_sparse else given.detach().float().numpy()
    assert np.array_equal(values, np.asarray(plain, dtype=np.float64))


def test_array_reorders_but_does_not_touch_the_given_array():
    given = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    given.flags.writeable = False
    values = checks.array(given)
    values[0, 0] = 9
    assert given[0, 0] == 0


@pytest.mark.parametrize(
    ("given", "match", "error"),
    [
        (np.arange(3.0), r"one dimension of 3 values; expected rows × columns.*reshape\(-1, 1\)", InputError),
        (np.empty((0, 3)), r"empty, shape \(0, 3\); expected at least 1 row", InputError),
        (np.empty((3, 0)), r"empty, shape \(3, 0\)", InputError),
        ([], "one dimension of 0 values", InputError),
        ([[1, 2], [3, 4, 5], [6, 7], [8]], r"row 0 has 2 cells, rows 1, 3 differ \(row 1 has 3\)", InputError),
        ([[1, 2], [3]], r"row 0 has 2 cells, row 1 differs \(row 1 has 1\)", InputError),
        ([[[1, 2], [3]], [[4, 5], [6]]], "cells differ in shape", InputError),
        ([[1, 2], [3, "four"]], r"text in row 1 \(first: 'four' in row 1, column 1\)", InputTypeError),
        (np.array([["1", "x"], ["2", "y"]]), r"text in rows 0, 1 \(first: 'x' in row 0, column 1\)", InputTypeError),
        (np.array([["1", "2"]]), r"numbers written as text.*astype\(float\)", InputTypeError),
        (np.array([[b"ab"]]), r"text in row 0 \(first: 'ab'", InputTypeError),
        ([[1, {}], [2, 3]], r"objects of type dict in row 0", InputTypeError),
        ([[1 + 2j]], "complex numbers; expected real", InputTypeError),
        (np.array([["2020-01-01"]], "datetime64[D]"), "type datetime64", InputTypeError),
        (np.zeros((2, 2), dtype=[("a", "f4")]), "values of type", InputTypeError),
        ("text", "x is a str; expected a NumPy array", InputTypeError),
        (None, "x is a NoneType", InputTypeError),
        ({"a": [1]}, "x is a dict", InputTypeError),
        (3.0, "single number", InputTypeError),
        (np.ma.masked_array([[1.0], [2.0]], mask=[[False], [True]]), "masked cells in row 1", InputError),
        ([[1.0, None], [2.0, 3.0]], "1 cell with NaN or infinity, in row 0", InputError),
    ],
)
def test_array_refuses(given, match, error):
    refused(match, lambda: checks.array(given), error)


def test_array_names_cells_that_are_not_finite():
    x = np.zeros((30, 2, 2), np.float32)
    x[[4, 7, 8, 20, 21, 22], 1, 0] = np.nan
    x[7, 0, 1] = np.inf
    line = refused("7 cells with NaN or infinity", lambda: checks.array(x, "train.npy"))
    assert line.startswith("train.npy has")
    assert "rows 4, 7, 8, 20, 21 and 1 more (first: nan in row 4, cell (1, 0))" in line
    refused("first: -inf in row 0, column 0", lambda: checks.array(torch.tensor([[-torch.inf]])))


def test_array_counts_rows():
    refused("x has 1 row; expected at least 2", lambda: checks.array([[1, 2]], min_rows=2))
    assert checks.array([[1, 2]]).shape == (1, 2)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_become_arrays(library):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]})
    assert checks.is_frame(frame)
    assert np.array_equal(checks.array(frame), [[1, 0.5, 1], [2, 1.5, 0]])
    assert checks.array(frame[["a"]]).dtype == np.int64
    refused("one dimension of 2 values", lambda: checks.array(frame["a"]))
    gaps = frames.DataFrame({"a": [1, None, 3], "b": [None, None, 0.5], "c": [1, 2, 3]})
    refused("3 missing cells: column 'a' in row 1; column 'b' in rows 0, 1;", lambda: checks.array(gaps))
    text = frames.DataFrame({"a": [1, 2], "city": ["Ulm", None], "n": ["1", "?"]})
    refused(r"text in columns 'city' \(row 0: 'Ulm'\), 'n' \(row 1: '\?'\).*--label", lambda: checks.array(text))
    refused("no columns", lambda: checks.array(frames.DataFrame()))
    assert checks.labels(frames.Series(["b", "a"]), 2).tolist() == ["b", "a"]
    refused("no value in row 1;", lambda: checks.labels(frames.Series(["b", None]), 2))


def test_frames_of_several_pandas_types():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"n": pd.array([1, 2], "Int64"), "o": pd.Series([1, 2.5], dtype=object)})
    assert np.array_equal(checks.array(frame), [[1, 1], [2, 2.5]])
    holes = pd.DataFrame({"n": pd.array([1, None], "Int64")})
    refused("1 missing cell: column 'n' in row 1", lambda: checks.array(holes))
    dates = pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])})
    refused(r"text in column 't' \(row 0: 2020-01-01", lambda: checks.array(dates), InputTypeError)
    assert checks.labels(pd.Series(["u", "v"], dtype="category"), 2).tolist() == ["u", "v"]


def test_lazy_polars_frames_are_refused_with_the_remedy():
    pl = pytest.importorskip("polars")
    refused(r"LazyFrame.*\.collect\(\)", lambda: checks.array(pl.LazyFrame({"a": [1]})), InputTypeError)


@pytest.mark.parametrize("wrap", [np.asarray, torch.tensor])
def test_support_accepts_what_lies_inside(wrap):
    for values, support in [
        ([[0, 1], [1, 0]], Support(0, 1, integer=True)),
        ([[0.0, 1.0]], Support(0, 1, integer=True)),
        ([[True, False]], Support(0, 1, integer=True)),
        ([[0.25, 1.0]], Support(0, 1)),
        ([[-3.5, 1e9]], Support()),
        ([[0, 7]], Support(0, integer=True)),
        ([[1e-30, 7.0]], Support(0, strict=True)),
        ([[0.1, 0.1 + 0.1 * 15]], Support.grid(0.1, 1.6, 0.1)),
        ([[-1, 1]], Support.grid(-1, 1, 0.5)),
        ([[0, 255]], Support.grid(0, 255, 1)),
    ]:
        assert checks.support(wrap(values), support, "some") is None


@pytest.mark.parametrize("wrap", [np.asarray, torch.tensor])
@pytest.mark.parametrize(
    ("values", "support", "match"),
    [
        ([[0, 1], [2, 255]], Support(0, 1, integer=True), r"in row 1 \(first: 2 in row 1, column 0\).*--binarise"),
        (
            [[0, 0.5]],
            Support(0, 1, integer=True),
            "first: 0.5 in row 0, column 1.*whole numbers from 0 to 1.*--binarise",
        ),
        ([[0, 3], [-1, 4], [2, -7]], Support(0, integer=True), r"rows 1, 2 \(first: -1.*whole numbers ≥ 0.*gaussian"),
        ([[0, 1.5]], Support(0, integer=True), "first: 1.5.*[Rr]ound them"),
        ([[0, 17]], Support(0, 16, integer=True), "first: 17.*whole numbers from 0 to 16"),
        ([[0.0, 255.0]], Support(0, 1), "first: 255.*numbers from 0 to 1.*Divide"),
        ([[0.0, float("nan")]], Support(0, 1), "first: nan.*Drop those rows"),
        ([[1.0, 0.0]], Support(0, strict=True), "first: 0 in row 0, column 1.*numbers > 0.*student-t"),
        ([[1.0], [-2.0]], Support(0, strict=True), "in row 1 .first: -2.*numbers > 0.*student-t"),
        (
            [[0.5, 0.6]],
            Support.grid(0, 1, 0.25),
            "first: 0.6 in row 0, column 1.*from 0 to 1 in steps of 0.25.*[Rr]ound the data to those levels",
        ),
        ([[1.25]], Support.grid(0, 1, 0.25), "first: 1.25.*in steps of 0.25"),
        ([[float("nan")]], Support.grid(0, 1, 0.25), "first: nan.*Drop those rows"),
    ],
)
def test_support_names_rows_value_and_remedy(wrap, values, support, match):
    refused(match, lambda: checks.support(wrap(values), support, "chosen", "counts.npy"))


def test_support_names_the_likelihood_and_the_source():
    line = refused("", lambda: checks.support(np.array([[-1]]), Support(0, integer=True), "binomial", "counts.npy"))
    assert line.startswith("counts.npy has values that the binomial likelihood cannot give, in row 0")


@pytest.mark.parametrize(
    ("support", "inside"),
    [
        (Support(), 0),
        (Support(0, 1), 0),
        (Support(3, 9), 3),
        (Support(-9, -3), -3),
        (Support(0, strict=True), 1),
        (Support.grid(-0.75, 0.75, 0.5), -0.75),
        (Support.grid(0, 255, 1), 0),
    ],
)
def test_hidden_cells_are_given_a_value_of_the_support(support, inside):
    assert support.inside == inside
    values, seen = checks.observed([[float("nan"), 2.0]], [[False, True]], support)
    assert values.tolist() == [[inside, 2.0]]
    assert seen.tolist() == [[False, True]]
    checks.support(np.array([[float(inside)]]), support, "some")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([3, 1], [3, 1]),
        (np.array([3, 1], np.uint8), [3, 1]),
        (torch.tensor([3, 1]), [3, 1]),
        ([" a", "b "], ["a", "b"]),
        (np.array([b"a", b"b"]), ["a", "b"]),
        (np.array(["a", 1], object), ["a", "1"]),
        (np.array([2, 1], object), [2, 1]),
        ([0.5, 1.0], [0.5, 1.0]),
    ],
)
def test_labels(given, expected):
    labels = checks.labels(given, 2)
    assert labels.tolist() == expected
    assert labels.dtype != object


def test_labels_refused():
    refused(r"shape \(3,\); expected one label per row, shape \(2,\)", lambda: checks.labels([1, 2, 3], 2))
    refused(r"y has shape \(2, 1\)", lambda: checks.labels([[1], [2]], 2, "y"))
    refused("no value in rows 0, 2", lambda: checks.labels([None, "a", None], 3))
    refused("no value in row 1", lambda: checks.labels(np.array([1.0, np.nan]), 2))


def test_same_event():
    checks.same_event(np.zeros((5, 1, 8, 8)), (1, 8, 8))
    refused(
        r"each row of x has shape \(1, 28, 28\); expected \(1, 8, 8\), the shape that the model was trained on",
        lambda: checks.same_event(torch.zeros(5, 1, 28, 28), torch.Size((1, 8, 8))),
    )


def test_positive_int():
    assert checks.positive_int(np.int64(3), "epochs") == 3
    assert type(checks.positive_int(np.int64(3), "epochs")) is int
    assert checks.positive_int(0, "epochs", minimum=0) == 0
    refused("latent size is 0; expected a whole number of at least 1", lambda: checks.positive_int(0, "latent size"))
    for wrong in (2.0, "2", True, None):
        refused("expected a whole number", lambda wrong=wrong: checks.positive_int(wrong, "samples"), InputTypeError)


def test_real_numbers():
    assert checks.positive(np.float32(0.5), "rate") == 0.5
    assert checks.non_negative(0, "β") == 0.0
    refused("rate is 0; expected a number above 0", lambda: checks.positive(0, "rate"))
    refused("β is -1; expected a number of at least 0", lambda: checks.non_negative(-1, "β"))
    for check in (checks.positive, checks.non_negative):
        for value in (float("nan"), float("inf")):
            refused("expected a number", lambda check=check, value=value: check(value, "rate"))
        for value in ("1", None, True):
            refused("expected", lambda check=check, value=value: check(value, "rate"), InputTypeError)
