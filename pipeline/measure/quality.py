"""Measures focus and stain of a scan."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Quality, Rgb
from pipeline.model.geometry import Size, WorkingFrame
from pipeline.sampling.crops import resized
from pipeline.sampling.percentiles import percentile

QUALITY_SIDE_PX0 = 2048


def _middle(sample: Rgb, side: int) -> Rgb:
    """Return the middle of the sample, at most `side` wide and high."""
    top, left = max(0, (sample.shape[0] - side) // 2), max(0, (sample.shape[1] - side) // 2)
    return sample[top : top + max(1, side), left : left + max(1, side)]


def quality_of(
    tissue: NDArray[np.bool_], sample: Rgb, frame: WorkingFrame, red_cells_per_mm2: float
) -> Quality:
    """Return the quality: tissue from the thumbnail; focus and stain from a sample at the working scale."""
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
