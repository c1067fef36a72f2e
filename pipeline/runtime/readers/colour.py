"""Converts samples of all kinds to 8-bit RGB, in the same way for every format.

There is no colour management: embedded profiles and gamma are ignored, as the viewers of the cameras do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb

Samples = NDArray[np.uint8 | np.uint16]
"""(H, W, samples)"""


def to_8_bit(samples: Samples, bits: int) -> Rgb:
    """Return uint8 samples of the same shape: the full range of `bits` becomes 0 to 255."""
    if bits > 8:
        upper: Rgb = np.right_shift(samples, bits - 8).astype(np.uint8)
        return upper
    if bits < 8:
        stretched: Rgb = (samples.astype(np.uint16) * 255 // (2**bits - 1)).astype(np.uint8)
        return stretched
    return samples.astype(np.uint8, copy=False)


def grey_to_rgb(grey: Rgb) -> Rgb:
    """Return RGB (H, W, 3) of uint8 grey (H, W, 1)."""
    return np.repeat(grey, 3, axis=2)


def on_white(colours: Rgb, alpha: Rgb) -> Rgb:
    """Return the uint8 colours (H, W, C) blended with white by `alpha` (H, W, 1); not premultiplied."""
    if alpha.min(initial=255) == 255:
        return colours
    weight = alpha.astype(np.uint32)
    mixed = (colours * weight + 255 * (255 - weight) + 127) // 255
    return mixed.astype(np.uint8)


def premultiplied_on_white(colours: Rgb, alpha: Rgb) -> Rgb:
    """Return the uint8 colours (H, W, C), premultiplied by `alpha` (H, W, 1), blended with white."""
    shown: Rgb = np.minimum(colours.astype(np.uint16) + (255 - alpha), 255).astype(np.uint8)
    return shown


def cmyk_to_rgb(inks: Rgb) -> Rgb:
    """Return RGB (H, W, 3) of uint8 CMYK (H, W, 4), 255 being full ink; without a press profile."""
    left = 255 - inks.astype(np.uint32)
    return ((left[..., :3] * left[..., 3:] + 127) // 255).astype(np.uint8)
