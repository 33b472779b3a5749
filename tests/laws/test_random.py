"""Keys and noise: a function of its arguments, and of nothing else, with the distribution it should have."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from vaelid.random import Key, _unit

KEY = Key(2024)
DTYPES = [torch.float32, torch.float64]
IDS = torch.tensor([5, 0, 17, 123_456_789_012, 3])


# -- keys --------------------------------------------------------------------------------------------------------------


def test_folding_is_the_same_everywhere() -> None:
    """Fixed values: they name the noise of every run and score there is."""
    assert Key(0).fold("train", 1).value == 0x61AF79A33B8E49B
    assert KEY.fold("train", 3) == KEY.fold("train", 3)
    code = "from vaelid.random import Key; print(Key(2024).fold('train', 3).value)"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert int(other.stdout) == KEY.fold("train", 3).value


def test_folding_tells_words_numbers_and_order_apart() -> None:
    folds = [
        (),
        ("a",),
        ("b",),
        (1,),
        ("1",),
        (1, 2),
        (2, 1),
        (12,),
        ("a", 1),
        (1, "a"),
        ("a1",),
        ("a", "1"),
        (-1,),
        ("",),
    ]
    values = [KEY.fold(*fold).value for fold in folds] + [KEY.value, KEY.fold("a").fold(1).value]
    assert len(set(values)) == len(values)
    steps = {Key(seed).fold("train", step).value for seed in range(50) for step in range(200)}
    assert len(steps) == 50 * 200


@pytest.mark.parametrize("number", [np.int64(3), np.uint8(3), torch.tensor(3)], ids=["int64", "uint8", "tensor"])
def test_numbers_of_any_kind_fold_alike(number: int) -> None:
    assert KEY.fold("row", number) == KEY.fold("row", 3)


def test_values_have_64_bits() -> None:
    assert Key(-1).value == 2**64 - 1
    assert Key(2**64 + 5) == Key(5)


@pytest.mark.parametrize("other", [1, 2, 3, 2**32, 2**63, 2**64 - 1])
def test_neighbouring_keys_draw_different_noise(other: int) -> None:
    a, b = Key(0), Key(other)
    assert not torch.equal(a.normal((10,)), b.normal((10,)))
    assert not torch.equal(a.uniform((10,)), b.uniform((10,)))
    assert not torch.equal(a.permutation(50), b.permutation(50))
    assert not torch.equal(a.normal_rows(IDS, 2, 3), b.normal_rows(IDS, 2, 3))


def test_drawing_leaves_no_trace() -> None:
    """A key is a value, and the global generator is left alone."""
    before = torch.get_rng_state()
    first = KEY.normal((3,)), KEY.uniform((3,)), KEY.permutation(9), KEY.normal_rows(IDS, 2, 3)
    second = KEY.normal((3,)), KEY.uniform((3,)), KEY.permutation(9), KEY.normal_rows(IDS, 2, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(KEY.permutation(9).tolist()) == list(range(9))


# -- noise per row -----------------------------------------------------------------------------------------------------


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to the last bits, in which vectorised functions may differ between shapes."""
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=8 * torch.finfo(a.dtype).eps)


Draw = Callable[..., Tensor]
DRAWS: dict[str, Draw] = {
    "normal": lambda ids, samples, size, **more: KEY.normal_rows(ids, samples, size, **more),
    "uniform": lambda ids, samples, size, **more: KEY.uniform_rows(ids, samples, size, **more),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
class TestCounterBased:
    """A function of (key, row, sample, dimension)."""

    def test_shape(self, draw: Draw, dtype: torch.dtype) -> None:
        for size in (1, 2, 5):
            found = draw(IDS, 4, size, dtype=dtype)
            assert found.shape == (4, len(IDS), size)
            assert found.dtype == dtype
        assert draw(IDS[:0], 4, 3, dtype=dtype).shape == (4, 0, 3)

    def test_rows(self, draw: Draw, dtype: torch.dtype) -> None:
        """Neither order nor company of rows matters."""
        whole = draw(IDS, 4, 5, dtype=dtype)
        order = torch.tensor([3, 1, 4, 0])
        assert same(draw(IDS[order], 4, 5, dtype=dtype), whole[:, order])
        for row in range(len(IDS)):
            assert same(draw(IDS[row : row + 1], 4, 5, dtype=dtype), whole[:, row : row + 1])
        repeated = draw(torch.tensor([7, 7]), 4, 5, dtype=dtype)
        assert same(repeated[:, 0], repeated[:, 1])

    def test_samples(self, draw: Draw, dtype: torch.dtype) -> None:
        """Nor where a pass over samples starts, and how long it is."""
        whole = draw(IDS, 10, 5, dtype=dtype)
        for cut in (1, 3, 9):
            first, rest = draw(IDS, cut, 5, dtype=dtype), draw(IDS, 10 - cut, 5, start=cut, dtype=dtype)
            assert same(torch.cat((first, rest)), whole)

    def test_dimensions(self, draw: Draw, dtype: torch.dtype) -> None:
        """Nor how many dimensions there are."""
        whole = draw(IDS, 4, 9, dtype=dtype)
        for size in (1, 2, 5, 8):
            assert same(draw(IDS, 4, size, dtype=dtype), whole[..., :size])

    def test_blocks(self, draw: Draw, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor the size of the blocks in which it is computed."""
        whole = draw(IDS, 10, 5, dtype=dtype)
        for block in (1, 3, 7, 10, 31):
            monkeypatch.setattr("vaelid.random._BLOCK", block)
            assert same(draw(IDS, 10, 5, dtype=dtype), whole)


def test_precisions_draw_the_same_numbers() -> None:
    single, double = (KEY.normal_rows(IDS, 100, 6, dtype=dtype).double() for dtype in DTYPES)
    # near radius 0 the logarithm of a number close to 1 magnifies its rounding: √(2 · 2⁻²⁴) at most
    assert (single - double).abs().max() < math.sqrt(2 * 2**-24)
    assert (single - double).abs().median() < 1e-6


@pytest.mark.parametrize("word", [0, 1, 2**31, 2**32 - 1])
def test_words_become_numbers_inside_the_interval(word: int) -> None:
    for dtype in DTYPES:
        value = _unit(torch.tensor([word]), dtype)
        assert 0 < value <= 1
        assert math.sqrt(-2 * math.log(value)) < 6.8


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_stays_inside(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strictly inside (0, 1), also at the ends of the range of words, so that every quantile is finite."""
    found = KEY.uniform_rows(torch.arange(1000), 100, 10, dtype=dtype)
    assert found.min() > 0
    assert found.max() < 1
    for extreme in (0, -1):
        monkeypatch.setattr("vaelid.random._mix", lambda x, extreme=extreme: torch.full_like(x, extreme))
        ends = KEY.uniform_rows(IDS, 2, 3, dtype=dtype)
        assert ((ends > 0) & (ends < 1)).all()
        assert torch.special.ndtri(ends).isfinite().all()
        assert KEY.normal_rows(IDS, 2, 3, dtype=dtype).isfinite().all()


# -- distributions -----------------------------------------------------------------------------------------------------

N = 200_000
SHAPES = {  # rows, samples, size: each axis long in one of them
    "rows": (N // 2, 1, 2),
    "samples": (1, N // 2, 2),
    "dimensions": (1, 1, N),
    "all": (200, 100, 10),
}


def noise(kind: str, shape: str, dtype: torch.dtype) -> np.ndarray:
    rows, samples, size = SHAPES[shape]
    draw = KEY.normal_rows if kind == "normal" else KEY.uniform_rows
    return draw(torch.arange(rows), samples, size, dtype=dtype).double().numpy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
class TestDistribution:
    """Every comparison at level 1e-4, at fixed seeds."""

    def test_normal(self, shape: str, dtype: torch.dtype) -> None:
        x = noise("normal", shape, dtype).ravel()
        assert stats.kstest(x, "norm").pvalue > 1e-4
        z = stats.norm.isf(0.5e-4)
        assert abs(x.mean()) < z / math.sqrt(x.size)
        assert abs((x**2).mean() - 1) < z * math.sqrt(2 / x.size)
        assert abs((x**3).mean()) < z * math.sqrt(15 / x.size)
        assert abs((x**4).mean() - 3) < z * math.sqrt(96 / x.size)
        beyond = (np.abs(x) > 3.5).sum()  # the tail, where Kolmogorov and Smirnov see nothing
        assert stats.binomtest(int(beyond), x.size, 2 * stats.norm.sf(3.5)).pvalue > 1e-4

    def test_uniform(self, shape: str, dtype: torch.dtype) -> None:
        x = noise("uniform", shape, dtype).ravel()
        assert stats.kstest(x, "uniform").pvalue > 1e-4
        z = stats.norm.isf(0.5e-4)
        assert abs(x.mean() - 1 / 2) < z / math.sqrt(12 * x.size)
        assert abs(((x - 1 / 2) ** 2).mean() - 1 / 12) < z / math.sqrt(180 * x.size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2], ids=["samples", "rows", "dimensions"])
@pytest.mark.parametrize("power", [1, 2])
def test_neighbours_are_uncorrelated(axis: int, power: int, dtype: torch.dtype) -> None:
    """Along each axis, at distances 1 to 8, in values and in squares: within 4 standard errors."""
    x = noise("normal", "all", dtype) ** power
    x = (x - x.mean()) / x.std()
    length = x.shape[axis]
    for lag in range(1, 9):
        products = np.take(x, range(lag, length), axis) * np.take(x, range(length - lag), axis)
        assert abs(products.mean()) < 4 / math.sqrt(products.size), lag


def test_rows_and_keys_are_uncorrelated() -> None:
    """40 streams (keys × far-apart rows), every pair: the largest of 780 correlations within its bound at 1e-4."""
    rows = torch.tensor([0, 1, 2, 3, 2**20, 2**40, -1, 2**62])
    streams = torch.cat(
        [KEY.fold(i).normal_rows(rows, 2000, 2, dtype=torch.float64).movedim(1, 0).flatten(1) for i in range(5)]
    )
    correlation = torch.corrcoef(streams) - torch.eye(40, dtype=torch.float64)
    assert correlation.abs().max() < stats.norm.isf(0.5e-4 / 780) / math.sqrt(4000)


def test_consecutive_seeds_used_as_they_are() -> None:
    """Key(0), Key(1), …: averages over keys are as narrow as independence makes them."""
    x = torch.stack([Key(seed).normal_rows(torch.arange(4), 5, 2) for seed in range(2000)]).double()
    assert x.mean(0).abs().max() < 4.5 / math.sqrt(2000)
    bulk = torch.stack([Key(seed).normal((40,)) for seed in range(2000)]).double()
    assert bulk.mean(0).abs().max() < 4.5 / math.sqrt(2000)
