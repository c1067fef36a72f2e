"""Candidate regions of a large scan, from a coarse search. Only these are searched at full resolution.

Leukocytes are rare: they cover two or three per cent of a monolayer. The cost of the coarse search, and what
it misses, is in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil, floor

import cv2
import numpy as np

from pipeline.detect.instances import SlideFrame
from pipeline.detect.tiling import visible_px
from pipeline.model.domain import Probabilities, TileSpec
from pipeline.model.geometry import EIGHTHS, Rect, WorkingFrame
from pipeline.model.spec import PipelineSpec

MARGIN_UM = 3.0
"""margin around a candidate, because coarse pixels are blurred and may miss the pale border of a cell"""
AROUND_PX = 32
"""context on each side of a candidate, 8 µm at the working scale: background, and touching cells"""
LEAST_SIDE_PX = 160
"""side of the training pictures"""


def candidate_frame(frame: SlideFrame, spec: PipelineSpec) -> SlideFrame:
    """Return the frame of the coarse search."""
    working = WorkingFrame.for_scan(frame.size_px0, frame.mpp, spec.candidate_mpp_um)
    return SlideFrame(frame.size_px0, frame.mpp, working)


def candidates_px0(
    probabilities: Probabilities, tile: TileSpec, coarse: SlideFrame, spec: PipelineSpec
) -> Iterator[Rect]:
    """Yield level-0 boxes; every pixel of the tile's core that may belong to a leukocyte lies in one of them.

    `probabilities`: float32 (3, H, W) of the tile with its halo, in the coarse frame. A box is not cut
    at the core, so that a cell on a seam is whole in the boxes of both tiles.
    """
    candidate = (1.0 - probabilities[0] > spec.candidate_threshold).astype(np.uint8)
    reach_px = max(1, ceil(MARGIN_UM / coarse.um_per_px))
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * reach_px + 1, 2 * reach_px + 1))
    _, _, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(candidate, kernel), connectivity=8)
    for x, y, width, height, _ in stats[1:].tolist():
        box_px = Rect(x + tile.halo_px.x, y + tile.halo_px.y, width, height)
        if box_px.intersection(tile.core_px).area:
            yield _to_px0(box_px, coarse.working)


def windows_around(
    boxes_px0: Iterable[Rect], frame: SlideFrame, spec: PipelineSpec, stride_px: int
) -> tuple[TileSpec, ...]:
    """Return windows of the working frame, grouped by shape; their cores cover all boxes.

    Windows are square unless the scan is narrower. A box larger than a tile has several windows.
    """
    visible = visible_px(frame.working.size_px, stride_px)
    cores = {core for box in boxes_px0 for core in _cores(box, frame, visible, spec)}
    tiles = [
        TileSpec(index, core.rect, _window(core, visible, stride_px))
        for index, core in enumerate(sorted(cores, key=lambda core: _corner(core.rect)))
    ]
    return tuple(sorted(tiles, key=lambda tile: (tile.halo_px.height, tile.halo_px.width, tile.index)))


@dataclass(frozen=True, slots=True)
class _Core:
    """The core of one window and its margin, in pixels of the working frame."""

    rect: Rect
    around_px: int


def _corner(rect: Rect) -> tuple[int, int, int, int]:
    return rect.y, rect.x, rect.height, rect.width


def _to_px0(box_px: Rect, working: WorkingFrame) -> Rect:
    x, y = floor(working.to_px0(box_px.x)), floor(working.to_px0(box_px.y))
    return Rect(x, y, ceil(working.to_px0(box_px.right)) - x, ceil(working.to_px0(box_px.bottom)) - y)


def _cores(box_px0: Rect, frame: SlideFrame, visible: Rect, spec: PipelineSpec) -> Iterator[_Core]:
    """Yield the box in the working frame, aligned to `geometry.EIGHTHS`, in parts of at most one tile.

    If there are several parts, they have the margin of a tile: a cell may lie on the seam.
    """
    scale = frame.working.scale
    x, y = floor(box_px0.x / scale / EIGHTHS) * EIGHTHS, floor(box_px0.y / scale / EIGHTHS) * EIGHTHS
    right = ceil(box_px0.right / scale / EIGHTHS) * EIGHTHS
    bottom = ceil(box_px0.bottom / scale / EIGHTHS) * EIGHTHS
    box = Rect(x, y, right - x, bottom - y).intersection(visible)
    step = spec.tile_core_px
    around_px = AROUND_PX if max(box.width, box.height) <= step else spec.halo_px
    for top in range(box.y, box.bottom, step):
        for left in range(box.x, box.right, step):
            yield _Core(Rect(left, top, step, step).intersection(box), around_px)


def _window(core: _Core, visible: Rect, stride_px: int) -> Rect:
    """Return the square around a core, shifted into the visible area, and cut if that is smaller."""
    rect = core.rect
    side = _multiple(max(max(rect.width, rect.height) + 2 * core.around_px, LEAST_SIDE_PX), stride_px)
    x = round((rect.x + rect.width / 2 - side / 2) / EIGHTHS) * EIGHTHS
    y = round((rect.y + rect.height / 2 - side / 2) / EIGHTHS) * EIGHTHS
    x, y = max(visible.x, min(x, visible.right - side)), max(visible.y, min(y, visible.bottom - side))
    return Rect(x, y, side, side).intersection(visible)


def _multiple(length_px: int, step_px: int) -> int:
    return -(-length_px // step_px) * step_px
