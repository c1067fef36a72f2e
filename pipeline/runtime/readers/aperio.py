"""Parses the ImageDescription of an Aperio SVS."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.model.geometry import Mpp
from pipeline.runtime.readers import resolution

_PREFIX = "Aperio"


@dataclass(frozen=True, slots=True)
class Microscope:
    """The optics of a scan, as stated by its file."""

    mpp: Mpp | None
    objective: float | None
    scanner: str | None


def printable(text: str) -> str:
    """Return the text with unprintable characters as single spaces; tags may contain NUL, which databases
    reject.
    """
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def is_aperio(description: str) -> bool:
    """Return whether the description is that of an SVS."""
    return description.startswith(_PREFIX)


def microscope_of(description: str) -> Microscope:
    """Return the optics from the `KEY = VALUE` fields, which are separated by bars."""
    pairs = (field.split("=", 1) for field in description.split("|")[1:] if "=" in field)
    fields = {key.strip(): value.strip() for key, value in pairs}
    um_per_px, objective = _number(fields.get("MPP")), _number(fields.get("AppMag"))
    return Microscope(
        mpp=None if um_per_px is None else resolution.plausible_mpp(um_per_px, um_per_px),
        objective=objective if objective is not None and 0 < objective < 1000 else None,
        scanner=printable(" ".join([_PREFIX, fields.get("ScanScope ID", "")]))[:64],
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
