"""The whole scan as one small picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

import cv2
import numpy as np

from pipeline.model.domain import Rgb, SlideMeta
from pipeline.model.geometry import Rect, Size
from pipeline.model.ports import SlideReader
from pipeline.sampling.crops import resized

THUMBNAIL_PX = 2048
"""Longest side of the thumbnail. A leukocyte of a 100,000 px slide at 0.25 µm/px is still one pixel of it."""

DARKEST_OF = 4
MEANS_UP_TO = 4.2
"""Side, in level-0 pixels, of the largest mean in which a leukocyte certainly stays visible: 1 µm at 40×,
with a margin because pyramids round their factor of 4."""
BLOCK_LV = 2048
"""Scans without a small level are read in blocks of this side, to bound memory."""


def thumbnail_of(reader: SlideReader) -> Rgb:
    """Return the whole scan as uint8 (H, W, 3), its longest side at most `THUMBNAIL_PX`."""
    size = _thumbnail_size(reader.meta.size_px0)
    return _assembled(reader, size, _coarsest_enough(reader.meta, size), resized)


def darkest_thumbnail_of(reader: SlideReader) -> Rgb:
    """Return the thumbnail of the darkest of up to 4 × 4 means per pixel, which keeps a single leukocyte
    visible: the mean over a thumbnail pixel of 20 µm would hide it.
    """
    meta = reader.meta
    size = _thumbnail_size(meta.size_px0)
    fine = Size(
        min(meta.size_px0.width, DARKEST_OF * size.width), min(meta.size_px0.height, DARKEST_OF * size.height)
    )
    level = max(_coarsest_enough(meta, fine), _coarsest_enough(meta, size, MEANS_UP_TO))
    return _assembled(reader, size, level, _darkest)


def _assembled(reader: SlideReader, size: Size, level: int, reduced: Callable[[Rgb, Size], Rgb]) -> Rgb:
    """Return the scan at `size`, read from `level` in blocks that `reduced` shrinks."""
    thumbnail = np.full((size.height, size.width, 3), 255, np.uint8)
    for target, source in _blocks(size, reader.meta.levels[level].size_lv):
        pixels = reduced(reader.read(level, source), Size(target.width, target.height))
        thumbnail[target.y : target.bottom, target.x : target.right] = pixels
    return thumbnail


def _darkest(pixels: Rgb, size: Size) -> Rgb:
    """Return the block reduced to `size`, each pixel the darkest of its parts by channel."""
    height, width = pixels.shape[:2]
    down, across = min(DARKEST_OF, height // size.height), min(DARKEST_OF, width // size.width)
    if down < 1 or across < 1:
        return resized(pixels, size)
    parts = resized(pixels, Size(across * size.width, down * size.height))
    # Erosion gives each pixel the minimum of the block that starts there; the first pixel of each block is
    # kept.
    darkest = cv2.erode(parts, np.ones((down, across), np.uint8), anchor=(0, 0))
    return np.ascontiguousarray(darkest[::down, ::across])


def _thumbnail_size(size_px0: Size) -> Size:
    factor = max(1.0, max(size_px0.width, size_px0.height) / THUMBNAIL_PX)
    return Size(max(1, round(size_px0.width / factor)), max(1, round(size_px0.height / factor)))


def _coarsest_enough(meta: SlideMeta, size: Size, most_reduced: float = inf) -> int:
    fitting = [
        i
        for i, level in enumerate(meta.levels)
        if level.size_lv.width >= size.width and level.downsample <= most_reduced
    ]
    return fitting[-1] if fitting else 0


def _blocks(size: Size, level_size: Size) -> Iterator[tuple[Rect, Rect]]:
    """Yield (part of the thumbnail, part of the level under it)."""
    across, down = level_size.width / size.width, level_size.height / size.height
    step_x, step_y = max(1, int(BLOCK_LV / across)), max(1, int(BLOCK_LV / down))
    for y in range(0, size.height, step_y):
        for x in range(0, size.width, step_x):
            target = Rect(x, y, min(step_x, size.width - x), min(step_y, size.height - y))
            left, top = round(target.x * across), round(target.y * down)
            yield (
                target,
                Rect(
                    left,
                    top,
                    max(1, round(target.right * across) - left),
                    max(1, round(target.bottom * down) - top),
                ),
            )
