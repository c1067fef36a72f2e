"""Typed values out of the JSON of a manifest, or a sentence about what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from pipeline.model.errors import DeploymentError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class Fields:
    """One JSON object. Every method raises DeploymentError, where the value is missing or of another type."""

    def __init__(self, name: str, value: Json) -> None:
        if not isinstance(value, dict):
            raise broken(f"has no object as {name}")
        self._name = name
        self._values: Mapping[str, Json] = value

    def _get(self, key: str) -> Json:
        if key not in self._values:
            raise broken(f"has no {key} in {self._name}")
        return self._values[key]

    def text(self, key: str) -> str:
        return as_text(self._get(key))

    def whole(self, key: str) -> int:
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise broken(f"has no whole number as {key}")
        return value

    def number(self, key: str) -> float:
        value = self._get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise broken(f"has no number as {key}")
        return float(value)

    def items(self, key: str) -> list[Json]:
        value = self._get(key)
        if not isinstance(value, list):
            raise broken(f"has no list as {key}")
        return value

    def share(self, key: str) -> float:
        value = self.number(key)
        if not 0 <= value <= 1:
            raise broken(f"has no number from 0 to 1 as {key}")
        return value

    def has(self, key: str) -> bool:
        return self._get(key) is not None

    def fields(self, key: str) -> Fields:
        return Fields(key, self._get(key))

    def fields_if_any(self, key: str) -> Fields | None:
        """Return the object; None where it is null, or where a manifest older than `key` lacks it."""
        value = self._values.get(key)
        return None if value is None else Fields(key, value)

    def entries(self, key: str) -> list[Fields]:
        return [Fields(key, item) for item in self.items(key)]


def as_text(value: Json) -> str:
    """Return the text. Raises: DeploymentError, where the value is none."""
    if not isinstance(value, str):
        raise broken("has no text where one belongs")
    return value


def as_file_name(value: str) -> str:
    """Return the name of a file in the bundle's own folder. Raises: DeploymentError, where it is none."""
    if not value or "/" in value or "\\" in value or value.startswith("."):
        raise broken("names a file outside its own folder")
    return value


def broken(what: str) -> DeploymentError:
    """Return the error that says what is wrong with the manifest."""
    return DeploymentError(f"The manifest of the model bundle {what}.", code="bundle_manifest")
