"""Seeded noise for chromatin, granulation and mottling; each cell uses a random window of it."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.synth.stain import Field

_SIDE_PX = 1024
_CHROMATIN_UM, _GRANULAR_UM, _MOTTLED_UM = 0.13, 0.12, 0.75


class Texture:
    """Sheets of noise (mean 0, deviation 1) at `um_per_px`; `cut` gives a random window of one."""

    def __init__(self, um_per_px: float, seed: int) -> None:
        rng = np.random.default_rng((seed, 6))
        self.um_per_px = um_per_px
        self.chromatin = _sheet(_CHROMATIN_UM / um_per_px, rng)
        self.granular = _sheet(_GRANULAR_UM / um_per_px, rng)
        self.mottled = _sheet(_MOTTLED_UM / um_per_px, rng)


def cut(sheet: Field, height: int, width: int, rng: np.random.Generator) -> Field:
    """Return a random window of a sheet; no larger than the sheet."""
    y, x = rng.integers(0, sheet.shape[0] - height + 1), rng.integers(0, sheet.shape[1] - width + 1)
    window: Field = sheet[y : y + height, x : x + width]
    return window


def ramp(field: Field, low: float, high: float) -> Field:
    """Return 0 below `low`, 1 above `high`, and a linear ramp between."""
    slope: Field = np.clip((field - np.float32(low)) / np.float32(high - low), 0, 1, dtype=np.float32)
    return slope


def soft_mask(polygons_px: list[np.ndarray], shape: tuple[int, int], sigma_px: float) -> Field:
    """Return 1 inside the polygons and 0 outside, with a soft edge. Pixel centres are at ½."""
    mask = np.zeros(shape, np.uint8)
    points = [np.asarray(np.round((polygon - 0.5) * 16), np.int32) for polygon in polygons_px]
    cv2.fillPoly(mask, points, 255, cv2.LINE_AA, 4)
    return soften(mask.astype(np.float32) / np.float32(255), sigma_px)


def soften(field: Field, sigma_px: float) -> Field:
    """Return the field after a Gaussian blur of `sigma_px`."""
    return np.asarray(cv2.GaussianBlur(field, (0, 0), max(sigma_px, 0.3)), np.float32)


def _sheet(sigma_px: float, rng: np.random.Generator) -> Field:
    raw = rng.standard_normal((_SIDE_PX, _SIDE_PX), np.float32)
    sheet = soften(raw, sigma_px)
    return sheet / np.float32(sheet.std())
