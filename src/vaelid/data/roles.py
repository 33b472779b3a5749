"""`Roles`: which columns of a source are data, and which are labels, context or weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, final

from vaelid import checks
from vaelid.data.covariates import Covariates
from vaelid.errors import InputError, nearest


@final
@dataclass(frozen=True)
class Roles:
    """What the columns of a table, or the arrays of a file, are for.

    Attributes:
        label: the labels.
        columns: the columns that are data, in this order; None for all that have no other role.
        drop: columns that are no data.
        context: what a conditional model is given; names, or the encoding of an earlier data set.
        weight: the weights of the rows.
        lenient: label and weight may be absent, and ``columns`` are passed over where there are no named columns: so
            that new rows can be read for a model that is trained.
    """

    label: str | None = None
    columns: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    context: tuple[str, ...] | Covariates = ()
    weight: str | None = None
    lenient: bool = False

    @classmethod
    def of(
        cls,
        label: str | None = None,
        columns: str | Sequence[str] | None = None,
        drop: str | Sequence[str] | None = None,
        context: str | Sequence[str] | Covariates | None = None,
        weight: str | None = None,
    ) -> Self:
        """Roles as `vaelid.data.load` takes them: one name, several, or none.

        Raises:
            InputError: a name stands twice among the columns or in the context.
        """
        known = context if isinstance(context, Covariates) else _names(context or (), "context")
        return cls(
            label, None if columns is None else _names(columns, "columns"), _names(drop or (), "drop"), known, weight
        )

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the context."""
        return self.context.names if isinstance(self.context, Covariates) else self.context

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that have to be read, once `among` has named the features."""
        others = (self.label, *self.given, self.weight)
        return tuple(dict.fromkeys([*(self.columns or ()), *(name for name in others if name is not None)]))

    def among(self, names: Sequence[str], source: str) -> Roles:
        """The same for a table with columns of these names, its features listed.

        Raises:
            InputError: a column is named that there is not, or one that has another role.
        """
        roles = self._checked(names, source)
        for name in (*(self.columns or ()), *self.drop):
            if name not in names:
                raise InputError(f"{source} has no column {name!r}", "one of its names", nearest(name, names))
        others = {roles.label: "label", roles.weight: "weight"} | dict.fromkeys(self.given, "context")
        if taken := [name for name in self.columns or () if name in others]:
            raise InputError(
                f"column {taken[0]!r} of {source} as data and as {others[taken[0]]}", "one of the two", "name it once"
            )
        kept = [name for name in names if name not in others] if self.columns is None else self.columns
        return replace(roles, columns=tuple(name for name in kept if name not in self.drop), drop=())

    def among_arrays(self, names: Sequence[str], source: str) -> Roles:
        """The same for a source of arrays of these names, which have no columns.

        Raises:
            InputError: columns are chosen or dropped, or an array is named that there is not.
        """
        if not self.lenient and (self.columns is not None or self.drop):
            raise InputError(f"columns chosen or dropped from {source}", "a table", "it has no named columns")
        return replace(self._checked(names, source), columns=None, drop=())

    def extras(self, found: Mapping[str, Any], rows: int, source: str) -> dict[str, Any]:
        """The fields of a `vaelid.data.Dataset` that come from columns beside the data, for ``rows`` rows.

        Raises:
            InputError: values that are missing or of another number, negative weights, an unknown category.
        """
        fields: dict[str, Any] = {}
        if self.given:
            values = {name: found[name] for name in self.given}
            covariates = self.context if isinstance(self.context, Covariates) else Covariates.of(values, source)
            context = covariates.encode(values, source)
            if len(context) != rows:
                raise InputError(f"the context of {source} has {len(context)} rows", f"{rows}, as the data have")
            fields |= {"context": context, "covariates": covariates}
        if self.weight is not None:
            name = f"weight {self.weight!r} of {source}"
            fields |= {"weight": checks.weights(found[self.weight], rows, name), "weight_name": self.weight}
        return fields

    def _checked(self, names: Sequence[str], source: str) -> Roles:
        """The same, without a label or weight that is absent and may be."""
        for role, given in (("label", (self.label,)), ("context", self.given), ("weight", (self.weight,))):
            absent = [name for name in given if name is not None and name not in names]
            if absent and self.lenient and role == "context":
                remedy = nearest(absent[0], names) if names else "give a table or a .npz that holds it"
                raise InputError(f"{source} has no context {absent[0]!r}", "what the model was trained with", remedy)
            if absent and not self.lenient:
                raise unknown(role, absent[0], names, source)
        label, weight = (name if name in names else None for name in (self.label, self.weight))
        return replace(self, label=label, weight=weight)


def unknown(role: str, name: str, names: Sequence[str], source: str) -> InputError:
    """The error for a label, context or weight that a source does not have."""
    if not names:
        plural = {"label": "labels", "weight": "weights"}.get(role, role)
        return InputError(
            f"{source} has no {plural} to choose from, so no {name!r}", f"no {role}", f"leave --{role} out"
        )
    return InputError(f"{source} has no {role} {name!r}", "one of its names", nearest(name, names))


def _names(given: str | Sequence[str], what: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{what} with {twice[0]!r} twice", "every name once")
    return names
