"""What the ImageDescription of an Aperio SVS says."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.model.geometry import Mpp
from pipeline.runtime.readers import resolution

_PREFIX = "Aperio"


@dataclass(frozen=True, slots=True)
class Microscope:
    """The optics of a scan, as far as its file names them."""

    mpp: Mpp | None
    objective: float | None
    scanner: str | None


def printable(text: str) -> str:
    """Return the text with everything unprintable as single spaces: tags hold NULs, databases do not."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def is_aperio(description: str) -> bool:
    """Return whether this is the description of an SVS."""
    return description.startswith(_PREFIX)


def microscope_of(description: str) -> Microscope:
    """Return the optics named by `KEY = VALUE` fields between bars."""
    pairs = (field.split("=", 1) for field in description.split("|")[1:] if "=" in field)
    fields = {key.strip(): value.strip() for key, value in pairs}
    um_per_px, objective = _number(fields.get("MPP")), _number(fields.get("AppMag"))
    return Microscope(
        mpp=None if um_per_px is None else resolution.believed(um_per_px, um_per_px),
        objective=objective if objective is not None and 0 < objective < 1000 else None,
        scanner=printable(" ".join([_PREFIX, fields.get("ScanScope ID", "")]))[:64],
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
