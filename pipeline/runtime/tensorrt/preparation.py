"""Crops cut and resampled where the pixels are: torch code, the same on a GPU and on the CPU.

The balance of colours and the normalisation, which follow, are inside the graphs: on the device already.

Imports torch: import this module only where torch is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.model.geometry import Rect, Size


def windows_at(field: Tensor, rects_px: Sequence[Rect]) -> Tensor:
    """Return uint8 (N, h, w, 3): the rectangles of a uint8 (H, W, 3) field, all of one size, N ≥ 1.

    Beyond the field's edge its outermost pixels are repeated, as `preprocess.read_crop` does.
    Raises: ValueError, where the rectangles differ in size.
    """
    sizes = {(rect.width, rect.height) for rect in rects_px}
    if len(sizes) != 1:
        raise ValueError(f"windows of one size are cut, not of {len(sizes)}")
    ((width, height),) = sizes
    rows = _indices([rect.y for rect in rects_px], height, field.shape[0], field.device)
    columns = _indices([rect.x for rect in rects_px], width, field.shape[1], field.device)
    return field[rows[:, :, None], columns[:, None, :]]


def resampled(windows: Tensor, size_px: Size) -> Tensor:
    """Return uint8 (N, size.height, size.width, 3) of uint8 (N, h, w, 3): means downwards, linear upwards.

    It is `preprocess.resized` to within one grey level: OpenCV rounds its weights for linear interpolation.
    """
    height, width = int(windows.shape[1]), int(windows.shape[2])
    if (width, height) == (size_px.width, size_px.height):
        return windows
    shrinks = size_px.width <= width and size_px.height <= height
    weights_of = _area_weights if shrinks else _linear_weights
    down = torch.from_numpy(weights_of(height, size_px.height)).to(windows.device)
    across = torch.from_numpy(weights_of(width, size_px.width)).to(windows.device)
    rows = torch.einsum("oh,nhwc->nowc", down, windows.float())
    pixels = torch.einsum("pw,nowc->nopc", across, rows)
    return pixels.round().clamp(0, 255).to(torch.uint8)


def _indices(starts: Sequence[int], length: int, end: int, device: torch.device) -> Tensor:
    """Return int64 (N, length): the pixels from each start on, kept within the field."""
    first = torch.tensor(starts, dtype=torch.int64, device=device)
    return (first[:, None] + torch.arange(length, device=device)).clamp(0, end - 1)


@lru_cache(maxsize=64)
def _area_weights(source: int, target: int) -> npt.NDArray[np.float32]:
    """Return (target, source): the share of each source pixel in the mean that a target pixel is."""
    scale = source / target
    left = np.arange(target)[:, None] * scale
    pixel = np.arange(source)[None, :]
    covered = np.minimum(left + scale, pixel + 1) - np.maximum(left, pixel)
    return np.asarray(np.clip(covered, 0, None) / scale, np.float32)


@lru_cache(maxsize=64)
def _linear_weights(source: int, target: int) -> npt.NDArray[np.float32]:
    """Return (target, source): the shares of the two source pixels around the middle of each target pixel."""
    middle = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    distance = np.abs(middle[:, None] - np.arange(source)[None, :])
    return np.asarray(np.clip(1 - distance, 0, None), np.float32)
