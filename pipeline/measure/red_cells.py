"""Measures free red cells: the reference for scans without a scale, and the evidence of a monolayer."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, pi, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb
from pipeline.model.geometry import Mpp, Size
from pipeline.sampling.crops import resized

RED_CELL_UM = 7.5
"""Source: Bain, Blood Cells, 6th ed., ch. 2: red cells on a dried smear are 6.7 to 7.7 µm across."""

MIN_RED_CELLS = 8
"""With fewer, all of them may be specks; they are then combined with other evidence."""
LONGEST_SIDE_PX = 1200
"""The picture is reduced to this size first; a red cell of a 0.5 µm/px slide keeps 9 px."""

PLAUSIBLE_DIAMETER_UM = (4.5, 10.5)
"""Microcytes to macrocytes, measured at the stain threshold."""


def free_red_cells_px0(sample: Rgb) -> tuple[float, ...]:
    """Return the diameters, in pixels of the sample, of its free round red cells.

    They are stained, round, filled outlines without a nucleus that do not touch the border; round platelets
    and specks are included.
    """
    reduction = max(1.0, max(sample.shape[:2]) / LONGEST_SIDE_PX)
    height, width = sample.shape[:2]
    small = resized(sample, Size(max(1, round(width / reduction)), max(1, round(height / reduction))))
    found = (_round_diameter_px(outline, small) for outline in _outlines(small))
    return tuple(diameter * reduction for diameter in found if diameter is not None)


def per_mm2(diameters_px0: Sequence[float], sample_px0: Size, mpp: Mpp) -> float:
    """Return the number of plausible red cells per mm² of the sample."""
    low, high = PLAUSIBLE_DIAMETER_UM
    count = sum(low <= mpp.to_um(diameter) <= high for diameter in diameters_px0)
    return count / (mpp.to_um2(sample_px0.area) * 1e-6)


def mode_px0(diameters: Sequence[float]) -> float | None:
    """Return the median diameter in the most populated band of ±18 %, or None if it has too few."""
    if len(diameters) < MIN_RED_CELLS:
        return None
    logs = np.log(np.sort(diameters))
    # Weighted by area, so that many platelets and specks do not outweigh the red cells.
    weights = np.exp(2 * logs)
    fills = [float(weights[np.abs(logs - centre) < 0.18].sum()) for centre in logs]
    band = logs[np.abs(logs - logs[int(np.argmax(fills))]) < 0.18]
    return exp(float(np.median(band))) if len(band) >= MIN_RED_CELLS else None


def _outlines(picture: Rgb) -> list[NDArray[np.int32]]:
    green = cv2.GaussianBlur(picture[..., 1], (0, 0), 1.0)
    _, stained = cv2.threshold(green, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(stained, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(contour, np.int32) for contour in contours if len(contour) >= 20]


def _round_diameter_px(outline: NDArray[np.int32], picture: Rgb) -> float | None:
    x, y, width, height = cv2.boundingRect(outline)
    if x <= 1 or y <= 1 or x + width >= picture.shape[1] - 1 or y + height >= picture.shape[0] - 1:
        return None
    area, around = cv2.contourArea(outline), cv2.arcLength(outline, closed=True)
    hull = cv2.contourArea(cv2.convexHull(outline))
    if area < 60 or 4 * pi * area / around**2 < 0.72 or area / hull < 0.93 or not 0.7 < width / height < 1.43:
        return None
    mask = np.zeros((height, width), np.uint8)
    cv2.drawContours(mask, [outline - np.array([x, y])], -1, 1, cv2.FILLED)
    own = picture[y : y + height, x : x + width][mask > 0].astype(np.int16)
    # A nucleus is blue: red and green are both low. In a red cell red is well above green, or green is high.
    violet = (own[:, 2] - own[:, 1] > 35) & (own[:, 1] < 140)
    if violet.mean() > 0.12:
        return None
    return 2 * sqrt(area / pi)
