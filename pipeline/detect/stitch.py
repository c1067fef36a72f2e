"""Merges the detections of all tiles, without duplicates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.model.domain import CellInstance
from pipeline.model.geometry import Rect

SAME_CELL_IOU = 0.3
"""Outlines of the same cell from two tiles overlap far more; touching cells share no area."""


@dataclass(frozen=True, slots=True)
class TileDetection:
    """A cell detected in one tile, and the depth of its centroid in the core of that tile (negative:

    outside).
    """

    instance: CellInstance
    depth_px0: float


def depth_px0(instance: CellInstance, core_px0: Rect) -> float:
    """Return the distance of the centroid from the nearest edge of the core; negative if it lies outside."""
    x, y = instance.centroid_px0
    return min(x - core_px0.x, core_px0.right - x, y - core_px0.y, core_px0.bottom - y)


def stitched(detections: Iterable[TileDetection]) -> tuple[CellInstance, ...]:
    """Return each cell once, in reading order (centroid top to bottom, then left to right).

    Of several detections of a cell, the one deepest inside its core is kept, since it has the most context.
    The order of the detections does not matter.
    """
    ranked = sorted(
        detections, key=lambda d: (-d.depth_px0, d.instance.centroid_px0[1], d.instance.centroid_px0[0])
    )
    kept = _without_repeats([detection.instance for detection in ranked])
    return tuple(sorted(kept, key=reading_order))


def reading_order(instance: CellInstance) -> tuple[float, float, int, int]:
    """Return the sort key of the cells of a scan."""
    x, y = instance.centroid_px0
    return (y, x, instance.bbox_px0.y, instance.bbox_px0.x)


def _without_repeats(ranked: Sequence[CellInstance]) -> Iterator[CellInstance]:
    side = max((max(c.bbox_px0.width, c.bbox_px0.height) for c in ranked), default=1)
    kept_at: dict[tuple[int, int], list[CellInstance]] = defaultdict(list)
    for instance in ranked:
        box = instance.bbox_px0
        column, row = box.x // side, box.y // side
        near = (other for dy in (-1, 0, 1) for dx in (-1, 0, 1) for other in kept_at[(column + dx, row + dy)])
        if any(outline_iou(instance, other) > SAME_CELL_IOU for other in near):
            continue
        kept_at[(column, row)].append(instance)
        yield instance


def outline_iou(one: CellInstance, other: CellInstance) -> float:
    """Return the intersection over union of two outlines' areas, 0 to 1."""
    if one.bbox_px0.intersection(other.bbox_px0).area == 0:
        return 0.0
    both = one.bbox_px0.around(other.bbox_px0)
    first, second = _filled(one, both), _filled(other, both)
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 0.0


def _filled(instance: CellInstance, frame_px0: Rect) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    mask = np.zeros((frame_px0.height, frame_px0.width), np.uint8)
    points = np.rint(instance.contour_px0 - np.array([frame_px0.x, frame_px0.y], np.float32))
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return mask
