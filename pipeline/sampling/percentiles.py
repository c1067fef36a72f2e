"""Percentiles of bytes, by counting them: sorting four million of them takes ten times as long."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_VALUES = 256


def percentile(values: NDArray[np.uint8], percent: float) -> float:
    """Return the percentile, 0 to 100, of uint8 (H, W), not empty; between two values, linearly."""
    counts = cv2.calcHist([np.ascontiguousarray(values)], [0], None, [_VALUES], [0, _VALUES])
    up_to = np.cumsum(counts.ravel().astype(np.int64))
    place = percent / 100 * (values.size - 1)
    below, above = np.searchsorted(up_to, [int(place), min(int(place) + 1, values.size - 1)], side="right")
    return float(below + (above - below) * (place - int(place)))
