"""The scans of a chaos run: small, no two alike, and each says how many cells belong into its result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from db.states import Priority
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.synth.tiff_writer import write_pyramid
from tests.support.drawn import drawn_cells

SIZE_PX0 = Size(288, 96)
PLACES_PX0 = ((48, 48), (120, 48), (192, 48))
SCALE = Mpp(0.25)
POISON = (255, 0, 255)
"""a colour that nothing else comes near"""
NEAR = 40
"""grey levels by which JPEG may miss it"""
_INK = (220, 220, 230)
_EVERY_STAT = 10


@dataclass(frozen=True, slots=True)
class DroppedScan:
    """A scan as it was uploaded, and what must come of it."""

    key: str
    body: bytes
    cells: int
    poisoned: bool
    priority: Priority

    @property
    def digest(self) -> str:
        """The hex sha256 of the file."""
        return hashlib.sha256(self.body).hexdigest()


def is_poisoned(pixels: np.ndarray) -> bool:
    """Return whether uint8 (…, 3) shows the poison."""
    return bool((np.abs(pixels.astype(np.int16) - POISON) < NEAR).all(axis=-1).any())


def drawn_scans(count: int, poisoned: frozenset[int], folder: Path) -> Iterator[DroppedScan]:
    """Yield `count` scans; those whose numbers are `poisoned` kill the worker that analyses them."""
    path = folder / "scan.tif"
    for number in range(count):
        cells = 1 + number % len(PLACES_PX0)
        picture = drawn_cells(SIZE_PX0, PLACES_PX0[:cells])
        cv2.putText(picture, str(number), (0, 8), cv2.FONT_HERSHEY_PLAIN, 0.6, _INK)
        if number in poisoned:
            picture[64:, 256:] = POISON

        def read(rect: Rect, pixels: np.ndarray = picture) -> np.ndarray:
            return pixels[rect.y : rect.bottom, rect.x : rect.right]

        write_pyramid(path, SIZE_PX0, read, SCALE)
        yield DroppedScan(
            key=f"CHAOS-{number % 97}/S-{number}/scan.tif",
            body=path.read_bytes(),
            cells=cells,
            poisoned=number in poisoned,
            priority=Priority.STAT if number % _EVERY_STAT == 0 else Priority.ROUTINE,
        )
