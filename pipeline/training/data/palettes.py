"""Pictures in the colours of other laboratories: each may borrow what another data set's pictures look like.

Random colours (`augment.restained`) do not know which stains and cameras there are, and a class that only one
laboratory shows is learnt by that laboratory's colours. Source: Reinhard et al. 2001, Color transfer between
images (IEEE CGA 21(5):34), in CIELAB instead of lαβ; measured in docs/adr/palettes.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb

_CONTRAST_RANGE = (0.4, 2.5)
"""of a channel's new deviation over its own: more would be noise made visible"""
_LEAST_DEVIATION = 1.0


@dataclass(frozen=True, slots=True)
class Palette:
    """How one picture looks: float32 (3,) each, over its pixels in 8-bit CIELAB."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]


class Palettes:
    """The palettes of the train pictures, by data set."""

    def __init__(self, pictures: Iterable[tuple[str, Rgb]], probability: float) -> None:
        """`pictures`: data set and uint8 (H, W, 3); so many of them borrow another's palette."""
        self._probability = probability
        by_folder: dict[str, list[Palette]] = {}
        for folder, picture in pictures if probability > 0.0 else ():
            by_folder.setdefault(folder, []).append(palette_of(middle_of(picture)))
        self._by_folder = tuple(tuple(palettes) for palettes in by_folder.values())

    def lent(self, rng: np.random.Generator, picture: Rgb) -> Rgb:
        """Return the picture as it is, or some part of the way to the palette of another one.

        Every data set is as likely, however large it is.
        """
        if not self._by_folder or rng.random() >= self._probability:
            return picture
        palettes = self._by_folder[int(rng.integers(len(self._by_folder)))]
        other = palettes[int(rng.integers(len(palettes)))]
        return repainted(picture, palette_of(middle_of(picture)), other, float(rng.random()))


def palette_of(picture: Rgb) -> Palette:
    """Return the palette of uint8 (H, W, 3)."""
    mean, deviation = cv2.meanStdDev(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB))
    return Palette(
        mean.ravel().astype(np.float32), np.maximum(deviation.ravel(), _LEAST_DEVIATION).astype(np.float32)
    )


def repainted(picture: Rgb, own: Palette, other: Palette, part: float) -> Rgb:
    """Return uint8 (H, W, 3): the picture a `part` (0 to 1) of the way from its own palette to the other."""
    mean = own.mean + part * (other.mean - own.mean)
    contrast = np.clip(other.deviation / own.deviation, *_CONTRAST_RANGE) ** part
    levels = np.arange(256, dtype=np.float32)[:, None]
    table = np.clip(np.rint((levels - own.mean) * contrast + mean), 0, 255).astype(np.uint8)
    lab = cv2.LUT(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB), table.reshape(1, 256, 3))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def middle_of(picture: Rgb) -> Rgb:
    """Return the middle three quarters of each side: of a crop, the cell with little beside it."""
    top, left = picture.shape[0] // 8, picture.shape[1] // 8
    return np.ascontiguousarray(picture[top : picture.shape[0] - top, left : picture.shape[1] - left])
