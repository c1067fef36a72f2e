"""Outlines drawn anew, each found cell by itself: from finer pixels, as the mean of four mirrored views.

Tiles say where cells are. Where one ends is told better by a picture in which it is larger, and views that
disagree about a border meet in its middle: measured on laboratories left out in docs/targets.md.
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
"""shown around a cell on each side: background to end it against"""
LEAST_SIDE_PX = 128
"""Networks learn from squares of 160 px: much smaller ones show them little."""
MOST_SIDE_PX = 512
"""97 µm: what is wider is a clump, and stays as the tiles saw it"""
VIEWS = 4
"""of each window: as it is, mirrored left to right, top to bottom, and both"""
LEAST_LIKENESS = 0.5
"""Intersection over union with the old outline; less alike, it is a lobe of the cell, or a clump around it.
Measured: docs/adr/outlines.md"""
LEAST_GROWTH = 0.95
"""Area over that of the old outline; what shrinks more has lost pale cytoplasm that the tile had shown.
Measured: docs/adr/outlines.md"""


@dataclass(frozen=True, slots=True)
class OutlineRefiner:
    """What drawing outlines needs."""

    reader: SlideReader
    segmenter: Segmenter
    frame: SlideFrame
    """finer than that of the tiles"""
    spec: PipelineSpec
    execution: Execution

    def refined(self, cells: Sequence[CellInstance]) -> tuple[CellInstance, ...]:
        """Return the same cells in the same order; each has its new outline, or its old one where the new
        view shows no such cell, less of it, or one that swallows a neighbour's centre or leaves the view."""
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
        """Yield the cells that the view shows whole, or as whole as the scan does."""
        shown_px0 = self.frame.working.rect_to_px0(view.halo_px)
        for cell in find_instances(maps, view, self.frame, self.spec):
            if not _leaves(cell.bbox_px0, shown_px0, self.frame):
                yield cell

    def _better(
        self, cell: CellInstance, drawn: Iterable[CellInstance], centres_px0: NDArray[np.float64]
    ) -> CellInstance:
        likeness, best = max(
            ((outline_iou(cell, one), one) for one in drawn), key=lambda pair: pair[0], default=(0.0, cell)
        )
        shrinks = best.area_px0 < LEAST_GROWTH * cell.area_px0
        if likeness < LEAST_LIKENESS or shrinks or _swallows(best, cell, centres_px0):
            return cell
        return best


def outline_frame(frame: SlideFrame, spec: PipelineSpec) -> SlideFrame:
    """Return the frame in which the outlines of a scan are drawn."""
    working = WorkingFrame.for_scan(frame.size_px0, frame.mpp, spec.outline_mpp_um)
    return SlideFrame(frame.size_px0, frame.mpp, working)


def _windows(cells: Sequence[CellInstance], frame: SlideFrame, stride_px: int) -> list[TileSpec]:
    """Return the window of each cell that has one, numbered by its cell, those of one shape together."""
    around = (window_around(cell.bbox_px0, frame, stride_px) for cell in cells)
    windows = [TileSpec(index, window, window) for index, window in enumerate(around) if window is not None]
    return sorted(windows, key=lambda window: (window.halo_px.width, window.index))


def window_around(bbox_px0: Rect, frame: SlideFrame, stride_px: int) -> Rect | None:
    """Return the square of the frame that shows a box with `AROUND_UM` on each side; None for a clump.

    Its sides are multiples of `stride_px`, its corners of `geometry.EIGHTHS`.
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
    """Return float32 (3, H, W): the mean of what is said of the four views (4, 3, H, W) of `mirrored`."""
    as_seen = (views[0], views[1][:, :, ::-1], views[2][:, ::-1], views[3][:, ::-1, ::-1])
    return np.asarray(np.mean(as_seen, axis=0), np.float32)


def _leaves(bbox_px0: Rect, shown_px0: Rect, frame: SlideFrame) -> bool:
    """Return whether a box reaches an edge of the view that is not the scan's too."""
    within_px0, size_px0 = shown_px0.grown(-ceil(frame.working.scale)), frame.size_px0
    return (
        (shown_px0.x > 0 and bbox_px0.x < within_px0.x)
        or (shown_px0.y > 0 and bbox_px0.y < within_px0.y)
        or (shown_px0.right < size_px0.width and bbox_px0.right > within_px0.right)
        or (shown_px0.bottom < size_px0.height and bbox_px0.bottom > within_px0.bottom)
    )


def _swallows(outline: CellInstance, own: CellInstance, centres_px0: NDArray[np.float64]) -> bool:
    """Return whether another cell's centre lies inside the outline."""
    box = outline.bbox_px0
    low, high = np.array([box.x, box.y]), np.array([box.right, box.bottom])
    near = centres_px0[((centres_px0 >= low) & (centres_px0 < high)).all(axis=1)]
    others = [(float(x), float(y)) for x, y in near if (float(x), float(y)) != own.centroid_px0]
    return any(cv2.pointPolygonTest(outline.contour_px0, place, measureDist=False) >= 0 for place in others)


def _multiple(length_px: float, step_px: int) -> int:
    return -(-ceil(length_px) // step_px) * step_px
