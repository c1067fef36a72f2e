"""What is wrong with a manifest, as a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from pipeline.model.errors import DeploymentError

_KINDS: Mapping[str, str] = {
    "int_type": "whole number",
    "float_type": "number",
    "string_type": "text",
    "tuple_type": "list",
    "dataclass_type": "object",
    "greater_than_equal": "number from 0 to 1",
    "less_than_equal": "number from 0 to 1",
    "greater_than": "number above 0",
}
"""what belongs there, by pydantic's name of the error"""


def broken(what: str) -> DeploymentError:
    """Return the error that says what is wrong with the manifest."""
    return DeploymentError(f"The manifest of the model bundle {what}.", code="bundle_manifest")


def first_complaint(error: ValidationError) -> str:
    """Return what the first of the errors says, such as `has no whole number as opset`."""
    first = error.errors()[0]
    kind, keys = first["type"], [part for part in first["loc"] if isinstance(part, str)]
    *_, within, key = "manifest", "manifest", *keys
    if kind == "json_invalid":
        return "is not JSON"
    if kind == "missing":
        return f"has no {key} in {within}"
    if kind == "unexpected_keyword_argument":
        return f"has an unknown {key} in {within}"
    if kind == "value_error":
        return str(first["ctx"]["error"])
    if kind in _KINDS:
        return f"has no {_KINDS[kind]} as {key}"
    return f"has a {key} that does not fit: {first['msg']}"
