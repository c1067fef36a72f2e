"""Where on the thumbnail there is tissue, and which tiles show some of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb, TileSpec
from pipeline.model.geometry import Rect, WorkingFrame
from pipeline.sampling.percentiles import percentile

STAIN_DEPTH = 14
"""Grey levels by which green falls below the background where something is stained. Red cells fall by 40 to
80, nuclei by 100 and more; sensor noise averaged to a thumbnail by 2 to 5."""

BRIGHT = 120
"""Where the background is darker than this the picture is no bright field (C-NMC's cells on black)."""


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
