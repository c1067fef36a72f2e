"""Typed reading of what a recipe's TOML holds; a wrong value is one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from typing import TypeVar, get_type_hints

from pipeline.model.errors import UsageError

T = TypeVar("T")
Table = Mapping[str, object]


def value_of(table: Table, key: str, wanted: type[T]) -> T:
    """Return the value of a key, an integer as a float where that is wanted, a name as its enumeration.

    Raises: UsageError, where it is missing or of another type.
    """
    value = table.get(key)
    if issubclass(wanted, StrEnum):
        return _member(key, value, wanted)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise UsageError(f"The recipe's '{key}' is missing or no {wanted.__name__}.", code="bad_recipe")
    return value


def names_of(table: Table, key: str) -> tuple[str, ...]:
    """Return a list of names, at least one. Raises: UsageError, where there is none."""
    names = optional_names(table, key)
    if not names:
        raise UsageError(f"The recipe's '{key}' is no list of names.", code="bad_recipe")
    return names


def optional_names(table: Table, key: str) -> tuple[str, ...]:
    """Return a list of names, empty where the key is missing. Raises: UsageError, where it is no list."""
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError(f"The recipe's '{key}' is no list of names.", code="bad_recipe")
    return tuple(value)


def record_of(cls: type[T], document: Table, key: str) -> T:
    """Return the record that a table holds; fields with a default may be left out.

    Raises: UsageError, where the table is missing, or holds too little, too much or another type.
    """
    table = document.get(key)
    if not isinstance(table, dict):
        raise UsageError(f"The recipe has no table [{key}].", code="bad_recipe")
    hints = get_type_hints(cls)
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise UsageError(f"The recipe's [{key}] has no use for '{unknown[0]}'.", code="bad_recipe")
    needed = [name for name, field in known.items() if name in table or field.default is MISSING]
    return cls(**{name: value_of(table, name, hints[name]) for name in needed})


def _member(key: str, value: object, wanted: type[T]) -> T:
    try:
        return wanted(value)  # type: ignore[call-arg]
    except ValueError as error:
        choices = ", ".join(str(member) for member in wanted)  # type: ignore[attr-defined]
        raise UsageError(
            f"'{value}' is not one of the recipe's choices for '{key}'; there are {choices}.",
            code="bad_recipe",
        ) from error
