"""The light of a scan, corrected before the segmenter sees it where it is far from what networks learn from.

Half of a colour cast is taken away with it: wholly balanced glass also changes the stain. Measured on
laboratories left out of training: docs/targets.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.ports import Segmenter

GLASS = 235.0
"""what the glass of a scan becomes, in the mean of its channels"""
BRIGHTEST = 8
"""one part in so many of a sample is taken for glass"""
COARSE_PX0 = 4
"""light is measured on means over squares of this side: single pixels decide nothing"""
DARKEST_GLASS = 40.0
"""darker than this is no glass: a gain of 6 and more would be made of noise"""

USUAL_GAINS = (0.8, 1.25)
"""Scans within are left as they are: networks learn under lamps that differ so much (`AugmentSpec.gain`)."""


@dataclass(frozen=True, slots=True)
class Illumination:
    """By how much each channel, red, green and blue, is multiplied."""

    gains: tuple[float, float, float]


USUAL = Illumination((1.0, 1.0, 1.0))


def illumination_of(sample: Rgb) -> Illumination:
    """Return the gains that bring the glass of a sample, uint8 (H, W, 3), to `GLASS`; 1 where it is usual."""
    height, width = sample.shape[:2]
    size = (max(1, width // COARSE_PX0), max(1, height // COARSE_PX0))
    coarse = cv2.resize(sample, size, interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float64)
    count = max(1, len(coarse) // BRIGHTEST)
    glass = np.partition(coarse, len(coarse) - count, axis=0)[-count:].mean(axis=0)
    full = GLASS / np.maximum(glass, DARKEST_GLASS)
    if USUAL_GAINS[0] <= full.min() and full.max() <= USUAL_GAINS[1]:
        return USUAL
    red, green, blue = (float(gain) for gain in np.sqrt(full * full.mean()))
    return Illumination((red, green, blue))


def illumination_corrected(segmenter: Segmenter, light: Illumination) -> Segmenter:
    """Return the segmenter as it sees the pictures of a scan in that light."""
    return segmenter if light == USUAL else IlluminationCorrectedSegmenter(segmenter, light)


class IlluminationCorrectedSegmenter:
    """A `ports.Segmenter` that sees every picture of a scan in the scan's own light."""

    def __init__(self, segmenter: Segmenter, light: Illumination) -> None:
        self._segmenter = segmenter
        self._table = _table(light)

    @property
    def stride_px(self) -> int:
        return self._segmenter.stride_px

    def segment(self, batch: Rgb) -> Probabilities:
        """Return float32 (N, 3, H, W): see `ports.Segmenter`."""
        corrected = np.stack([np.asarray(cv2.LUT(picture, self._table), np.uint8) for picture in batch])
        return self._segmenter.segment(corrected)


def _table(light: Illumination) -> NDArray[np.uint8]:
    """Return uint8 (1, 256, 3): what each value of each channel becomes."""
    values = np.arange(256, dtype=np.float64)[:, None] * np.array(light.gains)
    table: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)[None]
    return table
