"""Interprets the samples of a TIFF and converts them to RGB."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb
from pipeline.runtime.readers import colour
from pipeline.runtime.readers.refusals import refuse_format

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
"""TIFF PhotometricInterpretation"""
_COLOUR_SAMPLES = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, PALETTE: 1, SEPARATED: 4, YCBCR: 3}
_PREMULTIPLIED, _STRAIGHT = 1, 2
"""TIFF ExtraSamples that are alpha; others are ignored"""
_BITS = (1, 2, 4, 8, 16)
_MAX_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """The layout of unsigned samples: `count` per pixel, `bits` each; `extra` ones follow the colour."""

    photometric: int
    bits: int
    count: int
    extra: tuple[int, ...]
    palette: NDArray[np.uint8] | None
    """(2 ** bits, 3)"""

    def __post_init__(self) -> None:
        """Raises: InputError `unsupported_format`, where they cannot be converted to RGB."""
        if self.photometric not in _COLOUR_SAMPLES:
            raise refuse_format("a TIFF with a colour space of its own")
        if self.bits not in _BITS:
            raise refuse_format("a TIFF with samples other than 1 to 16 bits")
        if not _COLOUR_SAMPLES[self.photometric] + len(self.extra) <= self.count <= _MAX_SAMPLES:
            raise refuse_format("a TIFF with an unusual number of channels")
        if (self.photometric == PALETTE) != (self.palette is not None):
            raise refuse_format("a TIFF with a palette missing or misplaced")

    def to_rgb(self, samples: colour.Samples) -> Rgb:
        """Return uint8 RGB (H, W, 3) of decoded samples (H, W, count)."""
        if self.palette is not None:
            return self.palette[samples[..., 0]]
        eight = colour.to_8_bit(samples, self.bits)
        shown = _COLOUR_SAMPLES[self.photometric]
        rgb = self._colours(eight[..., :shown])
        if self.extra[:1] == (_STRAIGHT,):
            return colour.on_white(rgb, eight[..., shown : shown + 1])
        if self.extra[:1] == (_PREMULTIPLIED,):
            return colour.premultiplied_on_white(rgb, eight[..., shown : shown + 1])
        return np.ascontiguousarray(rgb)

    def _colours(self, eight: Rgb) -> Rgb:
        if self.photometric == MIN_IS_WHITE:
            return colour.grey_to_rgb(255 - eight)
        if self.photometric == MIN_IS_BLACK:
            return colour.grey_to_rgb(eight)
        if self.photometric == SEPARATED:
            return colour.cmyk_to_rgb(eight)
        return eight
