"""Where on a large scan leukocytes may be, at a glance: where a coarse look shows none, nothing looks again.

Leukocytes are rare: of a monolayer they cover two or three per cent. What the coarse look costs and what it
misses was measured: docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil, floor

import cv2
import numpy as np

from pipeline.detect.instances import SlideFrame
from pipeline.detect.tiling import seen_px
from pipeline.model.domain import Probabilities, TileSpec
from pipeline.model.geometry import EIGHTHS, Rect, WorkingFrame
from pipeline.model.spec import PipelineSpec

MARGIN_UM = 3.0
"""added around what the coarse look shows: it is blurred, and a cell's pale border may be missing"""
AROUND_PX = 32
"""shown around a candidate on each side, 8 µm at the working scale: ground, and what it is split from"""
LEAST_SIDE_PX = 160
"""networks learn from squares of this side"""


def candidate_frame(frame: SlideFrame, spec: PipelineSpec) -> SlideFrame:
    """Return the frame of the coarse look."""
    working = WorkingFrame.for_scan(frame.size_px0, frame.mpp, spec.candidate_mpp_um)
    return SlideFrame(frame.size_px0, frame.mpp, working)


def candidates_px0(
    probabilities: Probabilities, tile: TileSpec, coarse: SlideFrame, spec: PipelineSpec
) -> Iterator[Rect]:
    """Yield level-0 boxes; every pixel of the tile's core that may belong to a leukocyte lies in one of them.

    `probabilities`: float32 (3, H, W) of the tile with its halo, in the coarse frame. A box reaches as far
    as what it holds is seen, so that a cell on a seam has a whole one from each of both tiles.
    """
    suspect = (1.0 - probabilities[0] > spec.candidate_threshold).astype(np.uint8)
    reach_px = max(1, ceil(MARGIN_UM / coarse.um_per_px))
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * reach_px + 1, 2 * reach_px + 1))
    _, _, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(suspect, kernel), connectivity=8)
    for x, y, width, height, _ in stats[1:].tolist():
        box_px = Rect(x + tile.halo_px.x, y + tile.halo_px.y, width, height)
        if box_px.intersection(tile.core_px).area:
            yield _to_px0(box_px, coarse.working)


def windows_around(
    boxes_px0: Iterable[Rect], frame: SlideFrame, spec: PipelineSpec, stride_px: int
) -> tuple[TileSpec, ...]:
    """Return windows of the working frame, those of one shape together; each box lies in their cores.

    Windows are squares unless the scan is narrower. What is wider than a tile has several.
    """
    seen = seen_px(frame.working.size_px, stride_px)
    cores = {core for box in boxes_px0 for core in _cores(box, frame, seen, spec)}
    tiles = [
        TileSpec(index, core.rect, _window(core, seen, stride_px))
        for index, core in enumerate(sorted(cores, key=lambda core: _corner(core.rect)))
    ]
    return tuple(sorted(tiles, key=lambda tile: (tile.halo_px.height, tile.halo_px.width, tile.index)))


@dataclass(frozen=True, slots=True)
class _Core:
    """What one window answers for, and how much it shows around it, in pixels of the working frame."""

    rect: Rect
    around_px: int


def _corner(rect: Rect) -> tuple[int, int, int, int]:
    return rect.y, rect.x, rect.height, rect.width


def _to_px0(box_px: Rect, working: WorkingFrame) -> Rect:
    x, y = floor(working.to_px0(box_px.x)), floor(working.to_px0(box_px.y))
    return Rect(x, y, ceil(working.to_px0(box_px.right)) - x, ceil(working.to_px0(box_px.bottom)) - y)


def _cores(box_px0: Rect, frame: SlideFrame, seen: Rect, spec: PipelineSpec) -> Iterator[_Core]:
    """Yield the box in the working frame, on corners of `geometry.EIGHTHS`, in parts of a tile's size.

    Parts show as much around them as tiles do: a cell may lie on the seam between two.
    """
    scale = frame.working.scale
    x, y = floor(box_px0.x / scale / EIGHTHS) * EIGHTHS, floor(box_px0.y / scale / EIGHTHS) * EIGHTHS
    right = ceil(box_px0.right / scale / EIGHTHS) * EIGHTHS
    bottom = ceil(box_px0.bottom / scale / EIGHTHS) * EIGHTHS
    box = Rect(x, y, right - x, bottom - y).intersection(seen)
    step = spec.tile_core_px
    around_px = AROUND_PX if max(box.width, box.height) <= step else spec.halo_px
    for top in range(box.y, box.bottom, step):
        for left in range(box.x, box.right, step):
            yield _Core(Rect(left, top, step, step).intersection(box), around_px)


def _window(core: _Core, seen: Rect, stride_px: int) -> Rect:
    """Return the square around a core, moved into what may be seen, and cut where that is smaller."""
    rect = core.rect
    side = _multiple(max(max(rect.width, rect.height) + 2 * core.around_px, LEAST_SIDE_PX), stride_px)
    x = round((rect.x + rect.width / 2 - side / 2) / EIGHTHS) * EIGHTHS
    y = round((rect.y + rect.height / 2 - side / 2) / EIGHTHS) * EIGHTHS
    x, y = max(seen.x, min(x, seen.right - side)), max(seen.y, min(y, seen.bottom - side))
    return Rect(x, y, side, side).intersection(seen)


def _multiple(length_px: int, step_px: int) -> int:
    return -(-length_px // step_px) * step_px
