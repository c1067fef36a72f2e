"""Reads tiles of the working frame, and crops around cells."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.model.domain import Rgb, SlideMeta, Tile, TileSpec
from pipeline.model.geometry import Mpp, Rect, Size, WorkingFrame
from pipeline.model.ports import SlideReader


def read_tile(reader: SlideReader, frame: WorkingFrame, spec: TileSpec) -> Tile:
    """Return the tile with its halo, uint8 (H, W, 3) in the working frame.

    The tile starts on a whole source pixel (`geometry.EIGHTHS`), so that a working pixel has the same value
    in every tile that shows it.
    """
    rect_px0 = frame.rect_to_px0(spec.halo_px)
    size_px = Size(spec.halo_px.width, spec.halo_px.height)
    return Tile(spec, read_px0(reader, rect_px0, size_px))


def read_px0(reader: SlideReader, rect_px0: Rect, size_px: Size) -> Rgb:
    """Return the level-0 rectangle as uint8 (size.height, size.width, 3), read from the most suitable
    level.
    """
    level, downsample = suitable_level(reader.meta, rect_px0.width / size_px.width)
    rect_lv = Rect(
        round(rect_px0.x / downsample),
        round(rect_px0.y / downsample),
        max(1, round(rect_px0.width / downsample)),
        max(1, round(rect_px0.height / downsample)),
    )
    return resized(reader.read(level, rect_lv), size_px)


def suitable_level(meta: SlideMeta, px0_per_px: float) -> tuple[int, int]:
    """Return (level, downsample) of the smallest level that is at least as fine as required.

    Only levels with a whole factor are used, so that `geometry.WorkingFrame` tiles start on whole pixels.
    """
    best = (0, 1)
    for index, level in enumerate(meta.levels):
        downsample = round(level.downsample)
        exact = abs(level.downsample - downsample) < 0.01 and (8 * px0_per_px / downsample) % 1 == 0
        if exact and best[1] < downsample <= px0_per_px:
            best = (index, downsample)
    return best


def resized(pixels: Rgb, size_px: Size) -> Rgb:
    """Return the picture resampled to `size_px`: by area means to shrink it, linearly to enlarge it."""
    height, width = pixels.shape[:2]
    if (width, height) == (size_px.width, size_px.height):
        return pixels
    shrinks = size_px.width <= width and size_px.height <= height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size_px.width, size_px.height), interpolation=method), np.uint8)


def read_crop(
    reader: SlideReader, centre_px0: tuple[float, float], mpp: Mpp, crop_px: Size, crop_mpp_um: float
) -> Rgb:
    """Return the crop around the centre of a cell for the classifier, uint8 (H, W, 3).

    Beyond the edge of the scan, the outermost pixels are repeated: white would pass for glass, which is the
    reference of the colour balance.
    """
    width_px0 = max(1, round(mpp.to_px0(crop_px.width * crop_mpp_um)))
    height_px0 = max(1, round(mpp.to_px0(crop_px.height * crop_mpp_um)))
    x, y = centre_px0
    size_px0 = reader.meta.size_px0
    across = _placed(round(x - width_px0 / 2), width_px0, size_px0.width, crop_px.width)
    down = _placed(round(y - height_px0 / 2), height_px0, size_px0.height, crop_px.height)
    within_px0 = Rect(across.start_px0, down.start_px0, across.length_px0, down.length_px0)
    pixels = read_px0(reader, within_px0, Size(across.length_px, down.length_px))
    margins = ((down.before_px, down.after_px), (across.before_px, across.after_px), (0, 0))
    return np.pad(pixels, margins, mode="edge")


@dataclass(frozen=True, slots=True)
class _Placed:
    """The part of a range that lies within the scan, and its position in the crop."""

    start_px0: int
    length_px0: int
    before_px: int
    length_px: int
    after_px: int


def _placed(start_px0: int, length_px0: int, end_px0: int, crop_px: int) -> _Placed:
    """Return the part between 0 and the end of the scan, at least one pixel."""
    before_px0 = min(max(0, -start_px0), length_px0 - 1)
    after_px0 = min(max(0, start_px0 + length_px0 - end_px0), length_px0 - 1 - before_px0)
    within_px0 = length_px0 - before_px0 - after_px0
    length_px = max(1, round(within_px0 * crop_px / length_px0))
    before_px = min(round(before_px0 * crop_px / length_px0), crop_px - length_px)
    after_px = crop_px - length_px - before_px
    return _Placed(start_px0 + before_px0, within_px0, before_px, length_px, after_px)
