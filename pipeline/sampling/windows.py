"""Windows of a scan around positions of its thumbnail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb
from pipeline.model.geometry import Rect, Size
from pipeline.model.ports import SlideReader

SAMPLE_PX0 = 2048
"""Side of the full-resolution sample on which scale, focus and stain are measured."""


def read_sample(reader: SlideReader, tissue: NDArray[np.bool_]) -> Rgb:
    """Return level-0 pixels around the middle of the tissue, at most `SAMPLE_PX0` on a side.

    `tissue` is bool (H, W), in pixels of the thumbnail.
    """
    rows, columns = np.nonzero(tissue)
    row, column = (np.median(rows), np.median(columns)) if rows.size else np.divide(tissue.shape, 2)
    return reader.read(0, window_px0(reader.meta.size_px0, tissue, (float(row), float(column)), SAMPLE_PX0))


def window_px0(
    size_px0: Size, tissue: NDArray[np.bool_], position: tuple[float, float], side_px0: int
) -> Rect:
    """Return the level-0 rectangle around a position (row, column) of the thumbnail, shifted to lie within
    the scan.
    """
    width, height = min(size_px0.width, side_px0), min(size_px0.height, side_px0)
    x = round((position[1] + 0.5) / tissue.shape[1] * size_px0.width - width / 2)
    y = round((position[0] + 0.5) / tissue.shape[0] * size_px0.height - height / 2)
    return Rect(
        min(max(0, x), size_px0.width - width), min(max(0, y), size_px0.height - height), width, height
    )
