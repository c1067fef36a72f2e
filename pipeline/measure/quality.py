"""What the thumbnail says: where tissue is, whether it is in focus and stained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.measure.percentiles import percentile
from pipeline.model.domain import Quality, Rgb, SlideMeta, TileSpec
from pipeline.model.geometry import Rect, Size, WorkingFrame
from pipeline.model.ports import SlideReader
from pipeline.sampling.crops import resized

THUMBNAIL_PX = 2048
"""Longest side of the thumbnail. A leukocyte of a 100,000 px slide at 0.25 µm/px is still one pixel of it."""

DARKEST_OF = 4
MEANS_UP_TO = 4.2
"""Level-0 pixels to a side of a mean in which a leukocyte surely stays visible: 1 µm at 40×. Pyramids round
their factor of 4."""
QUALITY_SIDE_PX0 = 2048

BLOCK_LV = 2048
"""Scans without a small level are read in blocks of this side, so that memory stays bounded."""

STAIN_DEPTH = 14
"""Grey levels by which green falls below the background where something is stained. Red cells fall by 40 to
80, nuclei by 100 and more; sensor noise averaged to a thumbnail by 2 to 5."""

BRIGHT = 120
"""Where the background is darker than this the picture is no bright field (C-NMC's cells on black)."""


def thumbnail_of(reader: SlideReader) -> Rgb:
    """Return the whole scan as uint8 (H, W, 3), its longest side at most `THUMBNAIL_PX`."""
    size = _thumbnail_size(reader.meta.size_px0)
    return _assembled(reader, size, _coarsest_enough(reader.meta, size), resized)


def darkest_thumbnail_of(reader: SlideReader) -> Rgb:
    """Return the thumbnail with each pixel the darkest of up to 4 × 4 means: a lone leukocyte stays visible
    where the mean over a thumbnail pixel of 20 µm would wash it out.
    """
    meta = reader.meta
    size = _thumbnail_size(meta.size_px0)
    fine = Size(
        min(meta.size_px0.width, DARKEST_OF * size.width), min(meta.size_px0.height, DARKEST_OF * size.height)
    )
    level = max(_coarsest_enough(meta, fine), _coarsest_enough(meta, size, MEANS_UP_TO))
    return _assembled(reader, size, level, _darkest)


def _assembled(reader: SlideReader, size: Size, level: int, reduced: Callable[[Rgb, Size], Rgb]) -> Rgb:
    """Return the scan at `size`, read from `level` block by block, each block brought down by `reduced`."""
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
    # Each pixel becomes the darkest of the block that begins with it; every block's first one is taken.
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


def tissue_mask(thumbnail: Rgb) -> NDArray[np.bool_]:
    """Return bool (H, W): where something is stained. All True where the picture is no bright field."""
    background = percentile(thumbnail[..., 1], 95)
    if background < BRIGHT:
        return np.ones(thumbnail.shape[:2], bool)
    return np.asarray(thumbnail[..., 1] < background - STAIN_DEPTH)


def tiles_with_tissue(
    tiles: tuple[TileSpec, ...], tissue: NDArray[np.bool_], frame: WorkingFrame
) -> tuple[TileSpec, ...]:
    """Return the tiles whose core, or a thumbnail pixel around it, shows tissue; empty glass is left out."""
    across = tissue.shape[1] / frame.size_px.width
    down = tissue.shape[0] / frame.size_px.height
    return tuple(tile for tile in tiles if _under(tissue, tile.core_px, across, down).any())


def _under(tissue: NDArray[np.bool_], core_px: Rect, across: float, down: float) -> NDArray[np.bool_]:
    top, bottom = int(core_px.y * down) - 1, int(core_px.bottom * down) + 2
    left, right = int(core_px.x * across) - 1, int(core_px.right * across) + 2
    return tissue[max(0, top) : bottom, max(0, left) : right]


def _middle(sample: Rgb, side: int) -> Rgb:
    """Return the middle of the sample, at most `side` wide and high: a coarse one is enlarged later."""
    top, left = max(0, (sample.shape[0] - side) // 2), max(0, (sample.shape[1] - side) // 2)
    return sample[top : top + max(1, side), left : left + max(1, side)]


def quality_of(
    tissue: NDArray[np.bool_], sample: Rgb, frame: WorkingFrame, red_cells_per_mm2: float
) -> Quality:
    """Return the quality: tissue on the thumbnail; focus and stain on a sample, at the working scale."""
    sample = _middle(sample, int(QUALITY_SIDE_PX0 * min(1.0, frame.scale)))
    height, width = sample.shape[:2]
    size_px = Size(max(1, round(width / frame.scale)), max(1, round(height / frame.scale)))
    sample = resized(sample, size_px)
    grey = np.asarray(cv2.cvtColor(sample, cv2.COLOR_RGB2GRAY), np.uint8)
    contrast = percentile(grey, 95) - percentile(grey, 1)
    laplacian = cv2.Laplacian(cv2.GaussianBlur(grey, (3, 3), 0), cv2.CV_32F)
    return Quality(
        tissue_fraction=float(tissue.mean()),
        focus=float(laplacian.var() / max(1.0, contrast) ** 2 * 1e4),
        stain_contrast=contrast / 255.0,
        free_red_cells_per_mm2=red_cells_per_mm2,
    )
