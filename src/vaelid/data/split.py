"""Rows for training, for early stopping, and for the numbers that are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from vaelid.errors import InputError
from vaelid.random import Key


@final
@dataclass(frozen=True, eq=False)
class Split:
    """Three disjoint sets of row numbers, each sorted, int64, that together are all rows."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split(
    rows: int,
    key: Key,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    test_rows: Sequence[int] | np.ndarray | None = None,
) -> Split:
    """``range(rows)`` dealt at random, the same for the same key, into train, validation and test.

    Each part has at least one row. Where ``test_rows`` are given they are the test part, and the others are dealt
    into train and validation in the ratio of the first two fractions.

    Raises:
        InputError: too few rows for three parts, fractions that are not positive or do not add up to 1.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise InputError(f"split fractions {fractions}", "three positive numbers that add up to 1")
    if rows < 3:
        raise InputError(
            f"{rows} row{'s' if rows != 1 else ''} of data",
            "at least 3, one each for training, validation and test",
            "give more rows",
        )
    if test_rows is None:
        order = key.permutation(rows).numpy()
        share = fractions[1]
        test, rest = np.split(order, [_part(fractions[2], rows, rows - 2)])
    else:
        test = np.unique(np.asarray(test_rows, np.int64))
        if not len(test) or test[0] < 0 or test[-1] >= rows or rows - len(test) < 2:
            raise InputError(
                f"{len(test)} test rows among {rows} rows", "test rows among the data and at least 2 rows beside them"
            )
        others = np.setdiff1d(np.arange(rows), test)
        rest = others[key.permutation(len(others)).numpy()]
        share = fractions[1] / (fractions[0] + fractions[1]) * len(rest) / rows
    validation, train = np.split(rest, [_part(share, rows, len(rest) - 1)])
    return Split(np.sort(train), np.sort(validation), np.sort(test))


def standard_split(rows: int, test_rows: Sequence[int] | np.ndarray | None = None) -> Split:
    """The split of a data set unless one is given: the same for every seed, so that runs on the same rows compare."""
    return split(rows, Key(0).fold("split"), test_rows=test_rows)


def _part(share: float, rows: int, largest: int) -> int:
    return min(max(1, round(share * rows)), largest)
