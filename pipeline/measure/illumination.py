"""Corrects the illumination of a scan if it differs much from that of the training data.

Half of a colour cast is removed too; removing all of it would change the stain. Measured on laboratories
excluded from training: docs/accuracy.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.ports import Segmenter

GLASS = 235.0
"""brightness of the glass after correction, mean of the channels"""
BRIGHTEST = 8
"""the brightest 1/8 of a sample counts as glass"""
COARSE_PX0 = 4
"""side of the squares whose means are used, so that single pixels have no effect"""
DARKEST_GLASS = 40.0
"""lower limit for glass: a gain of 6 or more would amplify noise only"""

USUAL_GAINS = (0.8, 1.25)
"""Scans within this range are not corrected: training covers it (`AugmentSpec.gain`)."""


@dataclass(frozen=True, slots=True)
class Illumination:
    """The factors of the channels red, green and blue."""

    gains: tuple[float, float, float]


UNCORRECTED = Illumination((1.0, 1.0, 1.0))


def illumination_of(sample: Rgb) -> Illumination:
    """Return the gains that bring the glass of a sample, uint8 (H, W, 3), to `GLASS`; 1 if it needs no
    correction.
    """
    height, width = sample.shape[:2]
    size = (max(1, width // COARSE_PX0), max(1, height // COARSE_PX0))
    coarse = cv2.resize(sample, size, interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float64)
    count = max(1, len(coarse) // BRIGHTEST)
    glass = np.partition(coarse, len(coarse) - count, axis=0)[-count:].mean(axis=0)
    full = GLASS / np.maximum(glass, DARKEST_GLASS)
    if USUAL_GAINS[0] <= full.min() and full.max() <= USUAL_GAINS[1]:
        return UNCORRECTED
    red, green, blue = (float(gain) for gain in np.sqrt(full * full.mean()))
    return Illumination((red, green, blue))


def illumination_corrected(segmenter: Segmenter, illumination: Illumination) -> Segmenter:
    """Return the segmenter with a correction for that illumination."""
    return (
        segmenter if illumination == UNCORRECTED else IlluminationCorrectedSegmenter(segmenter, illumination)
    )


class IlluminationCorrectedSegmenter:
    """A `ports.Segmenter` that corrects the illumination of its input."""

    def __init__(self, segmenter: Segmenter, illumination: Illumination) -> None:
        self._segmenter = segmenter
        self._table = _table(illumination)

    @property
    def stride_px(self) -> int:
        return self._segmenter.stride_px

    def segment(self, batch: Rgb) -> Probabilities:
        """Return float32 (N, 3, H, W): see `ports.Segmenter`."""
        corrected = np.stack([np.asarray(cv2.LUT(picture, self._table), np.uint8) for picture in batch])
        return self._segmenter.segment(corrected)


def _table(illumination: Illumination) -> NDArray[np.uint8]:
    """Return the lookup table, uint8 (1, 256, 3)."""
    values = np.arange(256, dtype=np.float64)[:, None] * np.array(illumination.gains)
    table: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)[None]
    return table
