"""Extracts cells from probability maps:

splits touching cells, keeps lobed nuclei together, draws outlines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.detect.lobes import lobes_joined
from pipeline.detect.touching_cells import Field, Labels, Mask, split_touching
from pipeline.model.domain import CellInstance, Contour, Probabilities, TileSpec
from pipeline.model.geometry import EIGHTHS, Mpp, Rect, Size, WorkingFrame
from pipeline.model.spec import PipelineSpec

_JUST_CELL = 1.001
"""times the threshold"""

SEAM_MARGIN_PX = 8
"""A tile also reports cells with a centroid up to this far outside its core: two tiles may place the centroid
a little differently, and neither would report the cell. `stitch` removes the duplicates."""


@dataclass(frozen=True, slots=True)
class SlideFrame:
    """The size, scale and working frame of a scan."""

    size_px0: Size
    mpp: Mpp
    working: WorkingFrame

    @property
    def um_per_px(self) -> float:
        return self.mpp.to_um(self.working.scale)


def find_instances(
    probabilities: Probabilities, tile: TileSpec, frame: SlideFrame, spec: PipelineSpec
) -> Iterator[CellInstance]:
    """Yield the cells of one tile whose centroid lies in its core or within `SEAM_MARGIN_PX` of it.

    `probabilities`: float32 (3, H, W) of the tile with its halo: background, cytoplasm, nucleus.
    """
    cell_p, nucleus_p = _inside_scan(probabilities, tile.halo_px, frame.working.size_px)
    labels, boxes = labelled_cells(cell_p, nucleus_p, frame.um_per_px, spec)
    # The area between the lobes of one nucleus belongs to the cell, whatever its probability.
    np.maximum(cell_p, _JUST_CELL * spec.cell_threshold, out=cell_p, where=labels > 0)
    reported_px = tile.core_px.grown(SEAM_MARGIN_PX)
    for label, box in boxes:
        window = _aligned(box, labels.shape)
        inside = labels[window.y : window.bottom, window.x : window.right] == label
        if not _centroid_in(inside, window, tile.halo_px, reported_px):
            continue
        offset_px = Rect(window.x + tile.halo_px.x, window.y + tile.halo_px.y, window.width, window.height)
        views = _CellView(_cut(cell_p, window), _cut(nucleus_p, window), inside, offset_px)
        instance = _instance(views, frame, spec)
        if instance is not None:
            yield instance


@dataclass(frozen=True, slots=True)
class _CellView:
    """One cell's window: probabilities, its own pixels, and the window in the working frame."""

    cell_p: Field
    nucleus_p: Field
    inside: NDArray[np.bool_]
    window_px: Rect


def _inside_scan(probabilities: Probabilities, halo_px: Rect, size_px: Size) -> tuple[Field, Field]:
    nucleus = np.ascontiguousarray(probabilities[2])
    cell = probabilities[1] + nucleus
    scan = halo_px.intersection(Rect(0, 0, size_px.width, size_px.height))
    rows = slice(scan.y - halo_px.y, scan.bottom - halo_px.y)
    columns = slice(scan.x - halo_px.x, scan.right - halo_px.x)
    cell_p, nucleus_p = np.zeros_like(cell), np.zeros_like(nucleus)
    cell_p[rows, columns] = cell[rows, columns]
    nucleus_p[rows, columns] = nucleus[rows, columns]
    return cell_p, nucleus_p


def labelled_cells(
    cell_p: Field, nucleus_p: Field, um_per_px: float, spec: PipelineSpec
) -> tuple[Labels, list[tuple[int, Rect]]]:
    """Return a label image of cells and (label, box) of each, boxes in pixels of the tile."""
    cells = (cell_p > spec.cell_threshold).astype(np.uint8)
    nuclei = (nucleus_p > spec.nucleus_threshold).astype(np.uint8)
    count, components, stats, _ = cv2.connectedComponentsWithStats(cells, connectivity=4)
    labels = components.astype(np.int32)
    min_nucleus_px = spec.min_nucleus_um2 / um_per_px**2
    found: list[tuple[int, Rect]] = []
    next_label = count
    for label in range(1, count):
        box = _box(stats[label])
        window = labels[box.y : box.bottom, box.x : box.right]
        inside = window == label
        nucleus = nuclei[box.y : box.bottom, box.x : box.right] & inside
        if np.count_nonzero(nucleus) < min_nucleus_px:
            continue
        parts = split_touching(inside.astype(np.uint8), nucleus, min_nucleus_px)
        for part in range(1, int(parts.max()) + 1):
            own = parts == part
            window[own] = next_label
            found.append((next_label, _bounding(own, box)))
            next_label += 1
    return labels, lobes_joined(labels, found, nuclei, um_per_px)


def _instance(view: _CellView, frame: SlideFrame, spec: PipelineSpec) -> CellInstance | None:
    """Return the cell, or None if it is smaller than `spec.min_cell_um2` or its nucleus too small."""
    rect_px0 = frame.working.rect_to_px0(view.window_px)
    size = (rect_px0.width, rect_px0.height)
    # One ring of neighbours is included, so that interpolation places the outline between pixels.
    near = cv2.dilate(view.inside.astype(np.uint8), np.ones((3, 3), np.uint8))
    own = cv2.resize(view.inside.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.25
    cell_p = cv2.resize(view.cell_p * near, size, interpolation=cv2.INTER_LINEAR)
    nucleus_p = cv2.resize(view.nucleus_p * near, size, interpolation=cv2.INTER_LINEAR)
    within = _within_scan(rect_px0, frame.size_px0)
    cell = _largest(((cell_p > spec.cell_threshold) & own & within).astype(np.uint8))
    nucleus = ((nucleus_p > spec.nucleus_threshold) & (cell > 0)).astype(np.uint8)
    cell_area_px0, nucleus_area_px0 = int(np.count_nonzero(cell)), int(np.count_nonzero(nucleus))
    if (
        frame.mpp.to_um2(cell_area_px0) < spec.min_cell_um2
        or frame.mpp.to_um2(nucleus_area_px0) < spec.min_nucleus_um2
    ):
        return None
    return outlined(cell, nucleus, rect_px0, frame, score=float(cell_p[cell > 0].mean()))


def outlined(cell: Mask, nucleus: Mask, rect_px0: Rect, frame: SlideFrame, *, score: float) -> CellInstance:
    """Return the cell of two level-0 masks (H, W) over `rect_px0`; `cell` has at least one pixel."""
    bbox_px0 = _bounding(cell > 0, rect_px0)
    rows, columns = np.nonzero(cell)
    area_px0, nucleus_area_px0 = len(rows), int(np.count_nonzero(nucleus))
    return CellInstance(
        bbox_px0=bbox_px0,
        centroid_px0=(float(columns.mean()) + rect_px0.x, float(rows.mean()) + rect_px0.y),
        contour_px0=next(iter(_contours(cell, rect_px0)), _corners(bbox_px0)),
        nucleus_contours_px0=_contours(nucleus, rect_px0),
        area_px0=float(area_px0),
        nucleus_area_px0=float(nucleus_area_px0),
        area_um2=frame.mpp.to_um2(area_px0),
        nucleus_area_um2=frame.mpp.to_um2(nucleus_area_px0),
        score=score,
        touches_edge=_touches_edge(bbox_px0, frame),
    )


def _touches_edge(bbox_px0: Rect, frame: SlideFrame) -> bool:
    near = max(1.0, frame.working.scale)
    return (
        min(bbox_px0.x, bbox_px0.y) < near
        or bbox_px0.right > frame.size_px0.width - near
        or bbox_px0.bottom > frame.size_px0.height - near
    )


def _contours(mask: Mask, rect_px0: Rect) -> tuple[Contour, ...]:
    """Return the outer contours, largest first, through the centres of the outermost pixels of the mask.

    A part too thin to enclose an area has no contour, but its pixels count in the area.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    enclosing = [contour for contour in contours if cv2.contourArea(contour) > 0]
    ranked = sorted(enclosing, key=lambda c: (-cv2.contourArea(c), tuple(c[0, 0])))
    offset = np.array([rect_px0.x, rect_px0.y], np.float32)
    return tuple(contour[:, 0, :].astype(np.float32) + offset for contour in ranked)


def _corners(box_px0: Rect) -> Contour:
    """Return the box as a polygon, for a cell a pixel wide."""
    x, y, right, bottom = box_px0.x, box_px0.y, box_px0.right, box_px0.bottom
    return np.array([(x, y), (right, y), (right, bottom), (x, bottom)], np.float32)


def _within_scan(rect_px0: Rect, size_px0: Size) -> NDArray[np.bool_]:
    """Return which pixels lie in the scan: the last pixel of the working frame may extend beyond it."""
    inside = np.zeros((rect_px0.height, rect_px0.width), bool)
    scan = rect_px0.intersection(Rect(0, 0, size_px0.width, size_px0.height))
    inside[scan.y - rect_px0.y : scan.bottom - rect_px0.y, scan.x - rect_px0.x : scan.right - rect_px0.x] = (
        True
    )
    return inside


def _largest(mask: Mask) -> Mask:
    count, components, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count <= 2:
        return mask
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return np.asarray(components == largest, np.uint8)


def _centroid_in(inside: NDArray[np.bool_], window: Rect, halo_px: Rect, reported_px: Rect) -> bool:
    rows, columns = np.nonzero(inside)
    x = float(columns.mean()) + window.x + halo_px.x
    y = float(rows.mean()) + window.y + halo_px.y
    return reported_px.contains(x, y)


def _aligned(box: Rect, shape: tuple[int, ...]) -> Rect:
    """Return the box grown to multiples of 8, with at least 4 pixels around the cell, within the tile."""
    x = max(0, (box.x - 4) // EIGHTHS * EIGHTHS)
    y = max(0, (box.y - 4) // EIGHTHS * EIGHTHS)
    right = min(shape[1], -(-(box.right + 4) // EIGHTHS) * EIGHTHS)
    bottom = min(shape[0], -(-(box.bottom + 4) // EIGHTHS) * EIGHTHS)
    return Rect(x, y, right - x, bottom - y)


def _cut(field: Field, window: Rect) -> Field:
    return field[window.y : window.bottom, window.x : window.right]


def _box(stats: NDArray[np.int32]) -> Rect:
    return Rect(
        int(stats[cv2.CC_STAT_LEFT]),
        int(stats[cv2.CC_STAT_TOP]),
        int(stats[cv2.CC_STAT_WIDTH]),
        int(stats[cv2.CC_STAT_HEIGHT]),
    )


def _bounding(inside: NDArray[np.bool_], offset: Rect) -> Rect:
    rows = np.flatnonzero(inside.any(axis=1))
    columns = np.flatnonzero(inside.any(axis=0))
    return Rect(
        offset.x + int(columns[0]),
        offset.y + int(rows[0]),
        int(columns[-1] - columns[0]) + 1,
        int(rows[-1] - rows[0]) + 1,
    )
