"""Decides whether the scale stated by a file is plausible."""

from __future__ import annotations

from pipeline.model.geometry import Mpp

FINEST_UM = 0.02
COARSEST_UM = 2.0
"""A density outside this range is that of a printer or screen (72 dpi is 353 µm), not of a microscope."""
MAX_ANISOTROPY = 0.05
UM_PER_INCH = 25_400.0
UM_PER_CM = 10_000.0


def plausible_mpp(um_per_px_x: float, um_per_px_y: float) -> Mpp | None:
    """Return the mean of the two scales, or None if they are not plausible for a microscope."""
    finest, coarsest = min(um_per_px_x, um_per_px_y), max(um_per_px_x, um_per_px_y)
    if not (finest >= FINEST_UM and coarsest <= COARSEST_UM):
        return None
    if coarsest / finest - 1 > MAX_ANISOTROPY:
        return None
    return Mpp((um_per_px_x + um_per_px_y) / 2)


def from_density(x_per_unit: float, y_per_unit: float, unit_um: float) -> Mpp | None:
    """Return the scale for densities in pixels per unit of `unit_um`, or None if it is not plausible."""
    if not (x_per_unit > 0 and y_per_unit > 0):
        return None
    return plausible_mpp(unit_um / x_per_unit, unit_um / y_per_unit)
