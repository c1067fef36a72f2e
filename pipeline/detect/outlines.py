"""Refines the outline of each cell, from finer pixels and the mean of four mirrored views.

A larger picture shows the border of a cell better, and the mean of several views is more precise. Measured on
laboratories excluded from training: docs/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.detect.instances import SlideFrame, find_instances
from pipeline.detect.stitch import outline_iou
from pipeline.model.domain import CellInstance, Probabilities, Rgb, Tile, TileSpec
from pipeline.model.execution import Execution
from pipeline.model.geometry import EIGHTHS, Rect, WorkingFrame
from pipeline.model.ports import Segmenter, SlideReader
from pipeline.model.spec import PipelineSpec
from pipeline.sampling.crops import read_tile

AROUND_UM = 3.0
"""context on each side of a cell"""
LEAST_SIDE_PX = 128
"""Training pictures are 160 px; much smaller ones have too little context."""
MOST_SIDE_PX = 512
"""97 µm; a wider region is a clump and keeps its outline"""
VIEWS = 4
"""of each window: as it is, mirrored left to right, top to bottom, and both"""
LEAST_LIKENESS = 0.5
"""Least intersection over union with the old outline; below it, the new one is a lobe of the cell, or a
clump. Measured: docs/adr/outlines.md"""
LEAST_GROWTH = 0.95
"""Least ratio to the area of the old outline; below it, the new one has lost pale cytoplasm.
Measured: docs/adr/outlines.md"""


@dataclass(frozen=True, slots=True)
class OutlineRefiner:
    """Refines the outlines of one scan."""

    reader: SlideReader
    segmenter: Segmenter
    frame: SlideFrame
    """finer than that of the tiles"""
    spec: PipelineSpec
    execution: Execution

    def refined(self, cells: Sequence[CellInstance]) -> tuple[CellInstance, ...]:
        """Return the same cells in the same order, with new outlines.

        A cell keeps its old outline if the new one is too different or too small, contains the centre of
        another cell, or reaches the edge of the view.
        """
        centres_px0 = np.array([cell.centroid_px0 for cell in cells], np.float64).reshape(-1, 2)
        outlined = list(cells)

        def drawn(batch: Sequence[Tile]) -> list[tuple[int, CellInstance]]:
            return [
                (view.index, self._better(cells[view.index], self._whole(view, maps), centres_px0))
                for view, maps in self._seen(batch)
            ]

        pool, windows = self.execution.pool, _windows(cells, self.frame, self.segmenter.stride_px)
        read = pool.map(partial(read_tile, self.reader, self.frame.working), windows)
        for index, outline in chain.from_iterable(pool.map(drawn, self.execution.batches(read))):
            outlined[index] = outline
        return tuple(outlined)

    def _seen(self, batch: Sequence[Tile]) -> Iterator[tuple[TileSpec, Probabilities]]:
        """Yield each window with its maps, float32 (3, H, W)."""
        views = self.segmenter.segment(np.concatenate([mirrored(view.pixels) for view in batch]))
        for view, maps in zip(batch, views.reshape(len(batch), VIEWS, *views.shape[1:]), strict=True):
            yield view.spec, unmirrored_mean(maps)

    def _whole(self, view: TileSpec, maps: Probabilities) -> Iterator[CellInstance]:
        """Yield the cells that are not cut off by the edge of the view."""
        shown_px0 = self.frame.working.rect_to_px0(view.halo_px)
        for cell in find_instances(maps, view, self.frame, self.spec):
            if not _is_cut_off(cell.bbox_px0, shown_px0, self.frame):
                yield cell

    def _better(
        self, cell: CellInstance, drawn: Iterable[CellInstance], centres_px0: NDArray[np.float64]
    ) -> CellInstance:
        likeness, best = max(
            ((outline_iou(cell, one), one) for one in drawn), key=lambda pair: pair[0], default=(0.0, cell)
        )
        shrinks = best.area_px0 < LEAST_GROWTH * cell.area_px0
        if likeness < LEAST_LIKENESS or shrinks or _contains_another_centre(best, cell, centres_px0):
            return cell
        return best


def outline_frame(frame: SlideFrame, spec: PipelineSpec) -> SlideFrame:
    """Return the frame of the refined outlines."""
    working = WorkingFrame.for_scan(frame.size_px0, frame.mpp, spec.outline_mpp_um)
    return SlideFrame(frame.size_px0, frame.mpp, working)


def _windows(cells: Sequence[CellInstance], frame: SlideFrame, stride_px: int) -> list[TileSpec]:
    """Return the windows of the cells, indexed by cell and grouped by shape; clumps have none."""
    around = (window_around(cell.bbox_px0, frame, stride_px) for cell in cells)
    windows = [TileSpec(index, window, window) for index, window in enumerate(around) if window is not None]
    return sorted(windows, key=lambda window: (window.halo_px.width, window.index))


def window_around(bbox_px0: Rect, frame: SlideFrame, stride_px: int) -> Rect | None:
    """Return the square around a box with `AROUND_UM` on each side; None for a clump.

    Its side is a multiple of `stride_px`, its corners are multiples of `geometry.EIGHTHS`.
    """
    px_per_px0 = 1.0 / frame.working.scale
    needed_px = max(bbox_px0.width, bbox_px0.height) * px_per_px0 + 2 * AROUND_UM / frame.um_per_px
    side_px = _multiple(max(needed_px + EIGHTHS, LEAST_SIDE_PX), stride_px)
    if side_px > MOST_SIDE_PX:
        return None
    x = (bbox_px0.x + bbox_px0.width / 2) * px_per_px0 - side_px / 2
    y = (bbox_px0.y + bbox_px0.height / 2) * px_per_px0 - side_px / 2
    return Rect(round(x / EIGHTHS) * EIGHTHS, round(y / EIGHTHS) * EIGHTHS, side_px, side_px)


def mirrored(picture: Rgb) -> Rgb:
    """Return uint8 (4, H, W, 3): the picture, mirrored left to right, top to bottom, and both."""
    return np.stack([picture, picture[:, ::-1], picture[::-1], picture[::-1, ::-1]])


def unmirrored_mean(views: Probabilities) -> Probabilities:
    """Return float32 (3, H, W): the mean of the maps (4, 3, H, W) of the four views of `mirrored`."""
    as_seen = (views[0], views[1][:, :, ::-1], views[2][:, ::-1], views[3][:, ::-1, ::-1])
    return np.asarray(np.mean(as_seen, axis=0), np.float32)


def _is_cut_off(bbox_px0: Rect, shown_px0: Rect, frame: SlideFrame) -> bool:
    """Return whether a box reaches an edge of the view that is not an edge of the scan."""
    within_px0, size_px0 = shown_px0.grown(-ceil(frame.working.scale)), frame.size_px0
    return (
        (shown_px0.x > 0 and bbox_px0.x < within_px0.x)
        or (shown_px0.y > 0 and bbox_px0.y < within_px0.y)
        or (shown_px0.right < size_px0.width and bbox_px0.right > within_px0.right)
        or (shown_px0.bottom < size_px0.height and bbox_px0.bottom > within_px0.bottom)
    )


def _contains_another_centre(
    outline: CellInstance, own: CellInstance, centres_px0: NDArray[np.float64]
) -> bool:
    """Return whether the centre of another cell lies inside the outline."""
    box = outline.bbox_px0
    low, high = np.array([box.x, box.y]), np.array([box.right, box.bottom])
    near = centres_px0[((centres_px0 >= low) & (centres_px0 < high)).all(axis=1)]
    others = [(float(x), float(y)) for x, y in near if (float(x), float(y)) != own.centroid_px0]
    return any(cv2.pointPolygonTest(outline.contour_px0, place, measureDist=False) >= 0 for place in others)


def _multiple(length_px: float, step_px: int) -> int:
    return -(-ceil(length_px) // step_px) * step_px
