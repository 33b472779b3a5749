"""Rows of a map-style PyTorch ``Dataset``, read once into memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as Items

from vaelid import checks
from vaelid.data.dataset import Dataset, from_array
from vaelid.errors import InputError, InputTypeError

DATA_KEYS = ("x", "image", "data")
LABEL_KEYS = ("y", "label")


def refuse_loader(source: Any) -> None:
    """Refuse a ``DataLoader``, whose rows are not held in memory.

    Raises:
        InputTypeError: ``source`` is one.
    """
    if isinstance(source, DataLoader):
        raise InputTypeError(
            "a DataLoader, whose rows come one batch after another",
            "rows to hold in memory",
            "hand it to vd.fit, which takes a DataLoader directly; or load its .dataset",
        )


def read_items(source: Items[Any], name: str, given: str) -> Dataset:
    """Items that are x, a tuple (x, y, …) or a dict with x, image or data, and y or label: y is the label of x.

    Raises:
        InputTypeError: no items that can be counted and asked for by number. InputError: an item cannot be read, or is
            unlike the first; its number is named.
    """
    if isinstance(source, IterableDataset) or not hasattr(source, "__len__"):
        raise InputTypeError(
            f"{given} is a {type(source).__name__} without a length or items by number",
            "a map-style Dataset, with __len__ and __getitem__",
            "collect its rows into an array first",
        )
    rows = len(source)
    if rows == 0:
        raise InputError(f"{given} has no items", "at least one")
    first, label, key = _item(source, 0, given)
    x = np.empty((rows, *first.shape), first.dtype)
    labels = [label]
    x[0] = first
    for index in range(1, rows):
        value, label, own = _item(source, index, given)
        if value.shape != first.shape or own != key:
            raise InputError(
                f"item {index} of {given} is {_described(value, own)}", f"{_described(first, key)}, as item 0 is"
            )
        if value.dtype != x.dtype:
            x = x.astype(np.result_type(x, value), copy=False)
        x[index] = value
        labels.append(label)
    found = None if key is None else checks.labels(labels, rows, f"{key} of {given}")
    return from_array(checks.array(x, given), name=name, source="memory", labels=found, label_name=key)


def _described(x: np.ndarray, key: str | None) -> str:
    return f"a row of shape {x.shape} " + ("without a label" if key is None else f"with a label {key!r}")


def _item(source: Items[Any], index: int, given: str) -> tuple[np.ndarray, Any, str | None]:
    """x and y of an item, and what y is called there."""
    where = f"item {index} of {given}"
    try:
        item = source[index]
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"{where} cannot be read ({type(error).__name__}: {reason})", "an item") from error
    if isinstance(item, Mapping):
        names = [name for name in DATA_KEYS if name in item]
        if not names:
            raise InputError(f"{where} is a dict with the keys {', '.join(map(str, item))}", "x, image or data in it")
        x, key = item[names[0]], next((name for name in LABEL_KEYS if name in item), None)
        return _row(x, where), None if key is None else _label(item[key], where), key
    if not isinstance(item, tuple):
        return _row(item, where), None, None
    if not item:
        raise InputError(f"{where} is an empty tuple", "x, or (x, y)")
    return (_row(item[0], where), _label(item[1], where), "y") if len(item) > 1 else (_row(item[0], where), None, None)


def _row(x: Any, where: str) -> np.ndarray:
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = x.float() if x.is_floating_point() and x.dtype not in (torch.float32, torch.float64) else x
    try:
        values = np.asarray(x)
    except ValueError:
        raise InputError(f"{where} is ragged", "an array of numbers of one shape") from None
    if values.dtype.kind not in "biuf":
        raise InputTypeError(f"{where} is a {type(x).__name__} that holds no numbers", "an array of numbers")
    return values


def _label(y: Any, where: str) -> Any:
    y = y.detach().cpu().numpy() if isinstance(y, Tensor) else y
    if isinstance(y, np.ndarray | np.generic):
        if y.size != 1:
            raise InputError(f"{where} has a label of shape {y.shape}", "one number or text")
        return y.item()
    if not isinstance(y, str | int | float):
        raise InputError(f"{where} has a {type(y).__name__} as its label", "one number or text")
    return y
