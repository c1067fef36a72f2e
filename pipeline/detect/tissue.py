"""Finds tissue on the thumbnail, and the tiles that contain some."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb, TileSpec
from pipeline.model.geometry import Rect, WorkingFrame
from pipeline.sampling.percentiles import percentile

STAIN_DEPTH = 14
"""Least difference, in grey levels of green, between background and stain. Red cells differ by 40 to 80,
nuclei by 100 and more; the sensor noise of a thumbnail is 2 to 5."""

BRIGHT = 120
"""Least background of a bright-field picture; C-NMC has cells on black."""


def tissue_mask(thumbnail: Rgb) -> NDArray[np.bool_]:
    """Return bool (H, W): the stained area. All True if the picture is not bright-field."""
    background = percentile(thumbnail[..., 1], 95)
    if background < BRIGHT:
        return np.ones(thumbnail.shape[:2], bool)
    return np.asarray(thumbnail[..., 1] < background - STAIN_DEPTH)


def tiles_with_tissue(
    tiles: tuple[TileSpec, ...], tissue: NDArray[np.bool_], frame: WorkingFrame
) -> tuple[TileSpec, ...]:
    """Return the tiles with tissue in their core or within a thumbnail pixel of it."""
    across = tissue.shape[1] / frame.size_px.width
    down = tissue.shape[0] / frame.size_px.height
    return tuple(tile for tile in tiles if _under(tissue, tile.core_px, across, down).any())


def _under(tissue: NDArray[np.bool_], core_px: Rect, across: float, down: float) -> NDArray[np.bool_]:
    top, bottom = int(core_px.y * down) - 1, int(core_px.bottom * down) + 2
    left, right = int(core_px.x * across) - 1, int(core_px.right * across) + 2
    return tissue[max(0, top) : bottom, max(0, left) : right]
