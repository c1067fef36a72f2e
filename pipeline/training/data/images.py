"""Decoding and resizing of pictures and masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb
from pipeline.model.errors import UsageError


def read_rgb(path: Path) -> Rgb:
    """Return uint8 (H, W, 3) RGB. Raises: UsageError, where the file is missing or no picture."""
    return np.ascontiguousarray(_decode(path, cv2.IMREAD_COLOR)[:, :, ::-1])


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Return uint8 (H, W), the brightest channel. Raises: UsageError, as `read_rgb`."""
    mask = _decode(path, cv2.IMREAD_UNCHANGED)
    return mask[:, :, :3].max(axis=2) if mask.ndim == 3 else mask


def resized(picture: Rgb, factor: float) -> Rgb:
    """Return the picture with its sides multiplied by `factor`."""
    smooth = cv2.INTER_AREA if factor < 1.0 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, _size(picture, factor), interpolation=smooth), np.uint8)


def resized_labels(tissue: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Return the label map with its sides multiplied by `factor`.

    INTER_NEAREST is not centred: it moves labels by half a pixel against the picture.
    """
    size = _size(tissue, factor)
    return np.asarray(cv2.resize(tissue, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _size(pixels: NDArray[np.uint8], factor: float) -> tuple[int, int]:
    height, width = pixels.shape[:2]
    return max(1, round(width * factor)), max(1, round(height * factor))


def _decode(path: Path, mode: int) -> NDArray[np.uint8]:
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UsageError(f"The picture {path.name} is missing.", code="no_picture") from error
    try:
        pixels = cv2.imdecode(encoded, mode)
    except cv2.error as error:  # an empty file, or more pixels than OpenCV's limit
        raise UsageError(f"{path.name} cannot be read as a picture.", code="no_picture") from error
    if pixels is None or pixels.dtype != np.uint8:
        raise UsageError(f"{path.name} cannot be read as a picture.", code="no_picture")
    return np.asarray(pixels, np.uint8)
