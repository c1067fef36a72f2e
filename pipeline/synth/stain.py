"""The stain of one laboratory: colour of the glass, and transmittance of each structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Field: TypeAlias = NDArray[np.float32]
"""float32 (H, W) or (H, W, 3)."""
Colour: TypeAlias = NDArray[np.float32]
"""float32 (3,): red, green, blue. Transmittance 0 to 1 where it is a structure's, 0 to 255 for the glass."""


@dataclass(frozen=True, slots=True)
class Stain:
    """Colours of one laboratory's May-Grünwald-Giemsa; transmittances relative to the glass."""

    glass: Colour
    red_cell: Colour
    chromatin: Colour
    parachromatin: Colour
    neutrophil_cytoplasm: Colour
    neutrophil_granule: Colour
    lymphocyte_cytoplasm: Colour
    monocyte_cytoplasm: Colour
    monocyte_granule: Colour
    eosinophil_cytoplasm: Colour
    eosinophil_granule: Colour
    basophil_cytoplasm: Colour
    basophil_granule: Colour
    platelet: Colour
    platelet_granule: Colour
    blur_um: float
    """standard deviation of the blur of the optics"""
    sharpening: float
    """strength of the unsharp mask of the camera"""
    vignette: float
    """loss of light in the corners, as a fraction"""
    noise: float
    """standard deviation of the camera noise, in grey levels of 255"""


# The colour of glass with three kinds of camera and lamp: warm (CellaVision), pinkish white, greenish grey.
_GLASS = ((254.0, 231.0, 208.0), (242.0, 230.0, 238.0), (226.0, 226.0, 222.0))

# Measured on May-Grünwald-Giemsa pictures (Acevedo et al. 2020), each divided by its glass.
_AZURE: Mapping[str, ArrayLike] = {
    "chromatin": (0.235, 0.095, 0.585),
    "parachromatin": (0.60, 0.40, 0.70),
    "lymphocyte_cytoplasm": (0.53, 0.55, 0.82),
    "monocyte_cytoplasm": (0.64, 0.60, 0.80),
    "monocyte_granule": (0.50, 0.38, 0.76),
    "basophil_cytoplasm": (0.80, 0.60, 0.78),
    "basophil_granule": (0.20, 0.065, 0.42),
    "platelet": (0.66, 0.56, 0.80),
    "platelet_granule": (0.36, 0.16, 0.58),
    "neutrophil_granule": (0.70, 0.46, 0.74),
}
# Greyish pink with more azure, salmon with more eosin.
_RED_CELL = np.array([(0.805, 0.715, 0.765), (0.90, 0.675, 0.665)])
_EOSIN: Mapping[str, ArrayLike] = {
    "neutrophil_cytoplasm": (0.90, 0.83, 0.90),
    "eosinophil_cytoplasm": (0.63, 0.40, 0.58),
    "eosinophil_granule": (0.80, 0.50, 0.56),
}


def stain_of(seed: int) -> Stain:
    """Return the stain of a seed, which varies glass, intensity and hue of azure and eosin, optics and
    camera.
    """
    rng = np.random.default_rng((seed, 1))
    glass = rng.dirichlet((0.8, 0.8, 0.5)) @ np.array(_GLASS) * rng.uniform(0.96, 1.0)
    red_cell = _RED_CELL[0] + (_RED_CELL[1] - _RED_CELL[0]) * rng.uniform(0.0, 0.45)
    azure = _tinted(_AZURE, rng.uniform(0.86, 1.08), rng)
    eosin = _tinted({**_EOSIN, "red_cell": red_cell}, rng.uniform(0.80, 1.15), rng)
    return Stain(
        glass=glass.astype(np.float32),
        blur_um=rng.uniform(0.08, 0.15),
        sharpening=rng.uniform(0.0, 0.9),
        vignette=rng.uniform(0.02, 0.07),
        noise=rng.uniform(1.0, 2.2),
        **azure,
        **eosin,
    )


def _tinted(dye: Mapping[str, ArrayLike], intensity: float, rng: np.random.Generator) -> dict[str, Colour]:
    # Beer and Lambert: more dye multiplies optical density, not transmittance.
    hue = intensity * rng.normal(1.0, 0.05, 3)
    return {name: np.power(colour, hue).astype(np.float32) for name, colour in dye.items()}
