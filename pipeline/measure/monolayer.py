"""Measures the density of free red cells, which shows whether a smear has a monolayer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.measure.red_cells import free_red_cells_px0, per_mm2
from pipeline.model.domain import Rgb
from pipeline.model.geometry import Mpp, Size
from pipeline.model.ports import SlideReader
from pipeline.sampling.crops import resized
from pipeline.sampling.windows import window_px0

WINDOWS = 7
WINDOW_PX0 = 1024
"""Number and side of the windows that are searched for a monolayer."""

COARSEST_UM_PER_PX = 0.4
"""Coarser windows are enlarged to this scale before red cells are measured."""


def monolayer_density_per_mm2(reader: SlideReader, tissue: NDArray[np.bool_], mpp: Mpp) -> float:
    """Return the free red cells per mm² in the best of a few windows across the tissue.

    `tissue` is bool (H, W), in pixels of the thumbnail. A smear is thick at one end and feathered at the
    other; a usable one has a monolayer in between.
    """
    places = np.argwhere(tissue)
    chosen = places[np.linspace(0, len(places) - 1, WINDOWS).round().astype(int)] if len(places) else []
    enlarged = max(1.0, mpp.um_per_px0 / COARSEST_UM_PER_PX)
    side_px0, size_px0 = int(WINDOW_PX0 / enlarged), reader.meta.size_px0
    windows = {window_px0(size_px0, tissue, (float(row), float(column)), side_px0) for row, column in chosen}
    return max((_density_per_mm2(reader.read(0, window), mpp, enlarged) for window in windows), default=0.0)


def _density_per_mm2(pixels: Rgb, mpp: Mpp, enlarged: float) -> float:
    """Return the density, measured on the enlarged picture."""
    size = Size(round(pixels.shape[1] * enlarged), round(pixels.shape[0] * enlarged))
    diameters = free_red_cells_px0(resized(pixels, size))
    return per_mm2(diameters, size, Mpp(mpp.um_per_px0 / enlarged))
