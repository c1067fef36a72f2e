"""Splits leukocytes that touch, by the necks of their common outline and by their nuclei."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Field = NDArray[np.float32]
Labels = NDArray[np.int32]

NECK_DEPTH = 0.12
"""Two cells are split if the outline narrows between them by this share of the smaller radius. Two discs that
overlap by a tenth of their diameter narrow by a quarter; the outline of one leukocyte does not."""


def split_touching(cell: Mask, nucleus: Mask, min_nucleus_px: float) -> Labels:
    """Return labels 1..n of the cells in one connected region; 0 outside. Every pixel of the region has one.

    Parts are watershed basins of the distance to the outline; a part without a nucleus of at least
    `min_nucleus_px` joins its neighbour. A lobed nucleus within one convex outline stays one cell.
    """
    padded = np.pad(cell, 1)
    distance = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5), np.float32)[1:-1, 1:-1]
    seeds = _peaks(distance)
    count = int(seeds.max())
    if count > 1:
        basins = _grow_seeds(seeds, cell)
        seeds = _with_nucleus(seeds, basins, nucleus, min_nucleus_px)
        count = int(seeds.max())
    if count <= 1:
        return cell.astype(np.int32)
    return _grow_seeds(seeds, cell)


def _peaks(distance: Field) -> Labels:
    """Return the labelled h-maxima of the distance, with a height of `NECK_DEPTH` above their
    surroundings.
    """
    lowered = np.asarray(
        np.clip(np.minimum(distance - 1.0, distance * (1 - NECK_DEPTH)), 0, None), np.float32
    )
    kernel = np.ones((3, 3), np.uint8)
    for _ in range(max(distance.shape)):
        raised = np.minimum(cv2.dilate(lowered, kernel), distance)
        if np.array_equal(raised, lowered):
            break
        lowered = raised
    maxima, labels = cv2.connectedComponents((distance > lowered + 1e-4).astype(np.uint8), connectivity=8)
    return _true_peaks(np.asarray(labels, np.int32), maxima, lowered)


def _true_peaks(labels: Labels, count: int, lowered: Field) -> Labels:
    """Return only the maxima whose surroundings are not higher; others lie on the slope of a larger
    maximum.
    """
    peaks = np.zeros_like(labels)
    around = np.ones((5, 5), np.uint8)
    number = 0
    for label in range(1, count):
        own = labels == label
        ring = cv2.dilate(own.astype(np.uint8), around) > 0
        if float(lowered[ring].max()) <= float(lowered[own].max()) + 0.05:
            number += 1
            peaks[own] = number
    return peaks


def _with_nucleus(seeds: Labels, basins: Labels, nucleus: Mask, min_nucleus_px: float) -> Labels:
    areas = np.bincount(basins[nucleus > 0], minlength=int(seeds.max()) + 1)
    kept = np.flatnonzero(areas >= min_nucleus_px)
    kept = kept[kept > 0]
    renumbered = np.zeros(int(seeds.max()) + 1, np.int32)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    return np.asarray(renumbered[seeds], np.int32)


def _grow_seeds(seeds: Labels, cell: Mask) -> Labels:
    """Return the pixels of the region, each labelled by the nearest seed within the region."""
    labels = seeds.copy()
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    region = cell > 0
    open_pixels = region & (labels == 0)
    while open_pixels.any():
        wave = cv2.dilate(labels.astype(np.float32), cross).astype(np.int32)
        reached = open_pixels & (wave > 0)
        if not reached.any():
            break
        labels[reached] = wave[reached]
        open_pixels &= ~reached
    labels[~region] = 0
    return labels
