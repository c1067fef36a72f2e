"""Colour transfer between data sets: a picture may take the colours of a picture from another laboratory.

Colour jitter (`augment.colour_jittered`) does not reproduce real stains and cameras, and a class from a
single laboratory could be recognised by that laboratory's colours. Measured in docs/adr/palettes.md.
Source: Reinhard et al. 2001, Color transfer between images (IEEE CGA 21(5):34), in CIELAB instead of lαβ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb

_CONTRAST_RANGE = (0.4, 2.5)
"""of a channel's new standard deviation over its own: more would amplify noise"""
_MIN_DEVIATION = 1.0


@dataclass(frozen=True, slots=True)
class Palette:
    """Mean and standard deviation of a picture's pixels in 8-bit CIELAB: float32 (3,) each."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]


class Palettes:
    """The palettes of the train pictures, by data set."""

    def __init__(self, pictures: Iterable[tuple[str, Rgb]], probability: float) -> None:
        """`pictures`: data set and uint8 (H, W, 3); `probability` of a colour transfer."""
        self._probability = probability
        by_folder: dict[str, list[Palette]] = {}
        for folder, picture in pictures if probability > 0.0 else ():
            by_folder.setdefault(folder, []).append(palette_of(centre_of(picture)))
        self._by_folder = tuple(tuple(palettes) for palettes in by_folder.values())

    def transferred(self, rng: np.random.Generator, picture: Rgb) -> Rgb:
        """Return the picture unchanged, or with a random share of another picture's palette.

        All data sets are equally likely.
        """
        if not self._by_folder or rng.random() >= self._probability:
            return picture
        palettes = self._by_folder[int(rng.integers(len(self._by_folder)))]
        other = palettes[int(rng.integers(len(palettes)))]
        return colour_transferred(picture, palette_of(centre_of(picture)), other, float(rng.random()))


def palette_of(picture: Rgb) -> Palette:
    """Return the palette of uint8 (H, W, 3)."""
    mean, deviation = cv2.meanStdDev(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB))
    return Palette(
        mean.ravel().astype(np.float32), np.maximum(deviation.ravel(), _MIN_DEVIATION).astype(np.float32)
    )


def colour_transferred(picture: Rgb, own: Palette, other: Palette, share: float) -> Rgb:
    """Return uint8 (H, W, 3): the picture with its palette moved by `share` (0 to 1) towards the other."""
    mean = own.mean + share * (other.mean - own.mean)
    contrast = np.clip(other.deviation / own.deviation, *_CONTRAST_RANGE) ** share
    levels = np.arange(256, dtype=np.float32)[:, None]
    table = np.clip(np.rint((levels - own.mean) * contrast + mean), 0, 255).astype(np.uint8)
    lab = cv2.LUT(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB), table.reshape(1, 256, 3))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def centre_of(picture: Rgb) -> Rgb:
    """Return the central three quarters of each side: of a crop, mostly the cell."""
    top, left = picture.shape[0] // 8, picture.shape[1] // 8
    return np.ascontiguousarray(picture[top : picture.shape[0] - top, left : picture.shape[1] - left])
