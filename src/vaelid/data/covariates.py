"""`Covariates`: how the columns that a conditional model is given become numbers, the same for every row ever read."""

from __future__ import annotations

import abc
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, final

import numpy as np

from vaelid import checks
from vaelid.errors import InputError, InputTypeError, nearest, some

WHOLE = 32  # distinct whole numbers, at most, that are taken as categories
REPEATS = 4  # rows per distinct whole number, at least, for that
TEXTS = 1000  # distinct texts, at most
_SHOWN = 12


class Covariate(abc.ABC):
    """One context column and its encoding."""

    name: str

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many numbers a value becomes."""

    @abc.abstractmethod
    def encode(self, values: np.ndarray, given: str) -> np.ndarray:
        """Values (rows,) as float32, (rows, size); ``given`` names them in errors."""

    @abc.abstractmethod
    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """The values (rows,) whose encoding is (rows, size)."""

    @abc.abstractmethod
    def parse(self, word: str) -> Any:
        """The value that a word typed by a user means."""

    @abc.abstractmethod
    def typical(self, encoded: np.ndarray) -> np.ndarray:
        """The encoding (size,) of a value that stands for rows encoded as (rows, size)."""


@final
@dataclass(frozen=True)
class Category(Covariate):
    """One of some values, in sorted order: 1 in the place of the value and 0 in all others (one-hot)."""

    name: str
    categories: tuple[bool | int | str, ...]

    @property
    def size(self) -> int:
        """How many categories there are."""
        return len(self.categories)

    def __str__(self) -> str:
        return f"{self.name}, one of {self.size}"

    def encode(self, values: np.ndarray, given: str) -> np.ndarray:
        """One-hot, (rows, categories).

        Raises:
            InputError: a value is none of the categories.
        """
        places = {_word(category): place for place, category in enumerate(self.categories)}
        found, inverse = np.unique(values, return_inverse=True)
        codes = np.array([places.get(_word(value), -1) for value in found.tolist()])[inverse.reshape(-1)]
        if (unseen := np.flatnonzero(codes < 0)).size:
            value = values[unseen[0]].item()
            raise InputError(f"{given} has {value!r} in {some(unseen)}", f"one of {self._known()}")
        encoded = np.zeros((len(codes), self.size), np.float32)
        encoded[np.arange(len(codes)), codes] = 1
        return encoded

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """The category of each row."""
        values: np.ndarray = np.array(self.categories)[encoded.argmax(axis=1)]
        return values

    def parse(self, word: str) -> Any:
        """The category of that name.

        Raises:
            InputError: there is none.
        """
        for category in self.categories:
            if _word(category) == _word(word):
                return category
        raise InputError(f"{self.name}={word}", f"{self.name} to be one of {self._known()}")

    def typical(self, encoded: np.ndarray) -> np.ndarray:
        """The most frequent category."""
        frequent: np.ndarray = np.eye(self.size, dtype=np.float32)[encoded.sum(axis=0).argmax()]
        return frequent

    def _known(self) -> str:
        shown = ", ".join(str(category) for category in self.categories[:_SHOWN])
        return shown + (f" and {self.size - _SHOWN} more" if self.size > _SHOWN else "")


@final
@dataclass(frozen=True)
class Number(Covariate):
    """A number, encoded as (value − loc) / scale."""

    name: str
    loc: float
    scale: float

    def __post_init__(self) -> None:
        checks.positive(self.scale, f"the scale of context {self.name!r}")

    @property
    def size(self) -> int:
        """One number."""
        return 1

    def __str__(self) -> str:
        return f"{self.name}, a number"

    def encode(self, values: np.ndarray, given: str) -> np.ndarray:
        """Centred and scaled, (rows, 1).

        Raises:
            InputTypeError: text. InputError: values that are not finite.
        """
        if values.dtype.kind not in "biuf":
            raise InputTypeError(f"{given} has the text {values[0].item()!r} in row 0", "numbers")
        numbers = values.astype(np.float64)
        if (bad := np.flatnonzero(~np.isfinite(numbers))).size:
            raise InputError(f"{given} has {numbers[bad[0]]:g} in {some(bad)}", "finite numbers", "drop those rows")
        return ((numbers - self.loc) / self.scale).astype(np.float32)[:, None]

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Numbers, rounded to what float32 keeps of them."""
        numbers = encoded[:, 0].astype(np.float64) * self.scale + self.loc
        return np.round(numbers, 5 - math.floor(math.log10(self.scale)))

    def parse(self, word: str) -> float:
        """The number that a word spells.

        Raises:
            InputError: it spells none.
        """
        try:
            return float(word)
        except ValueError:
            raise InputError(f"{self.name}={word}", f"{self.name} to be a number") from None

    def typical(self, encoded: np.ndarray) -> np.ndarray:
        """The mean."""
        mean: np.ndarray = encoded.mean(axis=0)
        return mean


@final
@dataclass(frozen=True)
class Covariates:
    """The context columns of a data set, side by side; made by `vaelid.data.load`.

        data = vd.data.load("digits", context="digit")
        model.sample(2, key, data.covariates.encode({"digit": [3, 8]}))

    Attributes:
        columns: one encoding per column, in the order of the context.
    """

    columns: tuple[Category | Number, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any], given: str = "") -> Self:
        """Encodings that suit columns of values, (rows,) each.

        Text, bool and whole numbers become categories, the latter where there are at most `WHOLE` distinct ones, each
        `REPEATS` times on average; all others are numbers, with mean and standard deviation of these rows.

        Raises:
            InputError: missing values, or almost as many texts as rows.
        """
        return cls(tuple(_suited(name, column, _place(name, given)) for name, column in values.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def size(self) -> int:
        """c, how many numbers stand for a row."""
        return sum(column.size for column in self.columns)

    def __str__(self) -> str:
        return "; ".join(map(str, self.columns))

    def encode(self, values: Mapping[str, Any], given: str = "") -> np.ndarray:
        """Columns of values (rows,) as context, (rows, c), float32; ``given`` names their source in errors.

        Raises:
            InputError: a column is absent or unknown, a value is missing or none of the known categories.
        """
        for name in values:
            self[name]
        if absent := [name for name in self.names if name not in values]:
            raise InputError(f"no values of context {absent[0]!r}", "every one of " + ", ".join(self.names))
        found = {name: _values(values[name], _place(name, given)) for name in self.names}
        if len({len(column) for column in found.values()}) > 1:
            raise InputError("context columns of several lengths", "one value per row in each")
        parts = [column.encode(found[column.name], _place(column.name, given)) for column in self.columns]
        return np.concatenate(parts, axis=1)

    def decode(self, context: np.ndarray) -> dict[str, np.ndarray]:
        """The values (rows,) of each column, for context (rows, c)."""
        return {column.name: column.decode(context[:, self.place(column.name)]) for column in self.columns}

    def typical(self, context: np.ndarray) -> np.ndarray:
        """A context (c,) that stands for rows (rows, c): the most frequent categories and the mean numbers."""
        return np.concatenate([column.typical(context[:, self.place(column.name)]) for column in self.columns])

    def place(self, name: str) -> slice:
        """Which of the c numbers encode a column."""
        start = sum(column.size for column in self.columns[: self.names.index(name)])
        return slice(start, start + self[name].size)

    def __getitem__(self, name: str) -> Category | Number:
        for column in self.columns:
            if column.name == name:
                return column
        raise InputError(f"no context column is called {name!r}", "one that there is", nearest(name, self.names))

    def to_json(self) -> str:
        """The encodings as text."""
        return json.dumps([asdict(column) for column in self.columns])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The encodings that `to_json` wrote."""
        tables = json.loads(text)
        return cls(
            tuple(
                Category(table["name"], tuple(table["categories"])) if "categories" in table else Number(**table)
                for table in tables
            )
        )


def _suited(name: str, column: Any, given: str) -> Category | Number:
    values = _values(column, given)
    if values.dtype.kind == "b":
        return Category(name, tuple(np.unique(values).tolist()))
    if values.dtype.kind in "iuf":
        numbers = values.astype(np.float64)
        if not np.isfinite(numbers).all():
            Number(name, 0.0, 1.0).encode(values, given)  # says where
        distinct = np.unique(numbers)
        whole = bool((np.floor(distinct) == distinct).all()) and np.abs(distinct).max() < 2**53
        if whole and len(distinct) <= min(WHOLE, len(values) / REPEATS):
            return Category(name, tuple(distinct.astype(np.int64).tolist()))
        return Number(name, float(numbers.mean()), float(numbers.std()) or 1.0)
    texts = np.unique(values).tolist()
    if len(texts) > min(TEXTS, max(WHOLE, len(values) / 2)):
        raise InputError(
            f"{given} has {len(texts):,} different texts in {len(values):,} rows",
            f"at most {TEXTS:,} categories that come again",
            "leave that column out",
        )
    return Category(name, tuple(texts))


def _values(column: Any, given: str) -> np.ndarray:
    """A column as numbers or text, (rows,)."""
    dtype = getattr(column.values if isinstance(column, checks.Column) else column, "dtype", None)
    if getattr(dtype, "kind", None) in ("M", "m"):
        raise InputTypeError(f"{given} holds dates", "text or numbers", "count the days since a first one, for example")
    if isinstance(column, checks.Column):
        return checks.labels(column, len(column.values), given, "value")
    if np.ndim(column) == 0:
        column = [column]
    if isinstance(column, np.ndarray) and column.shape[1:] == (1,):
        column = column[:, 0]
    if isinstance(column, range):
        column = list(column)
    return checks.labels(column, len(column), given, "value")


def _place(name: str, given: str) -> str:
    return f"context {name!r} of {given}" if given else f"context {name!r}"


def _word(value: Any) -> str:
    """A value as text, so that 3, 3.0 and "3" are one, and so are True and "true"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    return text.lower() if text.lower() in ("true", "false") else text
