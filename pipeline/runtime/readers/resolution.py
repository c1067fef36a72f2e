"""What a file says about its scale, where that can be believed."""

from __future__ import annotations

from pipeline.model.geometry import Mpp

FINEST_UM = 0.02
COARSEST_UM = 2.0
"""Outside of these a density is a printer's or a screen's (72 dpi is 353 µm), not a microscope's."""
MAX_ANISOTROPY = 0.05
UM_PER_INCH = 25_400.0
UM_PER_CM = 10_000.0


def believed(um_per_px_x: float, um_per_px_y: float) -> Mpp | None:
    """Return the mean of the two scales in µm per pixel, or None where they cannot be a microscope's."""
    finest, coarsest = min(um_per_px_x, um_per_px_y), max(um_per_px_x, um_per_px_y)
    if not (finest >= FINEST_UM and coarsest <= COARSEST_UM):
        return None
    if coarsest / finest - 1 > MAX_ANISOTROPY:
        return None
    return Mpp((um_per_px_x + um_per_px_y) / 2)


def from_density(x_per_unit: float, y_per_unit: float, unit_um: float) -> Mpp | None:
    """Return the scale of so many pixels per unit of `unit_um`, or None where it cannot be believed."""
    if not (x_per_unit > 0 and y_per_unit > 0):
        return None
    return believed(unit_um / x_per_unit, unit_um / y_per_unit)
