"""The register of named parts: what lets a saved model be built again without its user's code.

A part is a module whose constructor stores every argument under its own name. `describe` reads those back into
plain values (numbers, text, lists, tables: what TOML holds) and `build` calls the constructors again.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import numpy as np
from torch import nn

from vaelid.errors import InputError, nearest

PartType = TypeVar("PartType", bound=type[nn.Module])

_PARTS: dict[str, type[nn.Module]] = {}


def part(name: str) -> Any:
    """Register a module class under ``name``, e.g. ``@part("likelihoods.Bernoulli")``."""

    def register(cls: PartType) -> PartType:
        _PARTS[name] = cls
        return cls

    return register


def describe(module: nn.Module) -> dict[str, Any]:
    """``{"part": name, argument: value, …}`` with nested parts as nested tables; defaults that are None are left out.

    A module that is not registered becomes ``{"own": "package.Class"}``: such a model is loaded by handing an
    equal model to `vaelid.load`.

    Raises:
        InputError: a part does not store one of its arguments.
    """
    names = {cls: name for name, cls in _PARTS.items()}
    cls = type(module)
    if cls not in names:
        return {"own": f"{cls.__module__}.{cls.__qualname__}"}
    table: dict[str, Any] = {"part": names[cls]}
    for argument in inspect.signature(cls.__init__).parameters:
        if argument == "self":
            continue
        try:
            value = getattr(module, argument)
        except AttributeError:
            raise InputError(
                f"the part {table['part']!r} does not store its argument {argument!r}",
                f"self.{argument} to hold it, so that the model can be built again",
            ) from None
        if value is not None:
            table[argument] = describe(value) if isinstance(value, nn.Module) else _plain(value)
    return table


def build(table: dict[str, Any]) -> nn.Module:
    """The module that `describe` described, freshly initialised.

    Raises:
        InputError: a part is unknown, has other arguments, or is one of the user's own.
    """
    if "own" in table:
        raise InputError(
            f"the model holds a network of your own, {table['own']}",
            "parts that vaelid knows by name",
            "build the same model in Python and pass it: vaelid.load(path, model=model)",
        )
    name = table.get("part")
    if name not in _PARTS:
        raise InputError(f"the model names an unknown part, {name!r}", "a registered part", nearest(str(name), _PARTS))
    arguments = {
        key: build(value) if isinstance(value, dict) else _shape(value) for key, value in table.items() if key != "part"
    }
    try:
        inspect.signature(_PARTS[name]).bind(**arguments)
    except TypeError as error:
        raise InputError(
            f"the model's part {name!r} cannot be built: {error}", "the arguments that this version of vaelid knows"
        ) from error
    return _PARTS[name](**arguments)


def is_named(table: dict[str, Any]) -> bool:
    """Whether every part of the description can be built from its name."""
    if "own" in table:
        return False
    return all(is_named(value) for value in table.values() if isinstance(value, dict))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _shape(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
