"""What single values of a manifest may be; pydantic checks it where a manifest is parsed."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field


def _in_own_folder(value: str) -> str:
    if not value or "/" in value or "\\" in value or value.startswith("."):
        raise ValueError("names a file outside its own folder")
    return value


FileName: TypeAlias = Annotated[str, AfterValidator(_in_own_folder)]
"""of a file in the bundle's own folder"""
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
"""0 to 1"""
