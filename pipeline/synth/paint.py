"""Draws one leukocyte: transmittance and coverage, antialiased by oversampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.model.domain import Contour
from pipeline.model.taxonomy import CellClass
from pipeline.synth.stain import Colour, Field, Stain
from pipeline.synth.texture import Texture, cut, ramp, soft_mask, soften

_EDGE_UM = 0.10
_FINE_UM = 0.07


@dataclass(frozen=True, slots=True)
class Patch:
    """Drawn pixels, and the position of their top-left corner in the scan."""

    x_px0: int
    y_px0: int
    transmittance: Field
    """(H, W, 3)"""
    cover: Field
    """(H, W): how much of a pixel the cell covers"""


@dataclass(frozen=True, slots=True)
class _Canvas:
    """The oversampled raster of one cell: masks, noise, and its random generator."""

    cell: Field
    nucleus: Field
    stain: Stain
    texture: Texture
    rng: np.random.Generator

    def noise(self, sheet: Field) -> Field:
        return cut(sheet, self.cell.shape[0], self.cell.shape[1], self.rng)

    def px(self, length_um: float) -> float:
        return length_um / self.texture.um_per_px


def oversampling(um_per_px0: float) -> int:
    """Return how many oversampled pixels fit into the side of a level-0 pixel."""
    return max(2, int(np.ceil(um_per_px0 / _FINE_UM)))


@dataclass(frozen=True, slots=True)
class PaintedCell:
    """A leukocyte to be painted, in level-0 pixels."""

    cell_class: CellClass
    outline_px0: Contour
    nuclei_px0: tuple[Contour, ...]


def paint(painted: PaintedCell, stain: Stain, texture: Texture, rng: np.random.Generator, fine: int) -> Patch:
    """Return the leukocyte, drawn with `fine` times oversampling."""
    low = np.floor(painted.outline_px0.min(axis=0)).astype(int) - 2
    high = np.ceil(painted.outline_px0.max(axis=0)).astype(int) + 2
    width, height = (int(side) for side in high - low)
    shape = (height * fine, width * fine)
    edge = _EDGE_UM / texture.um_per_px
    cell = soft_mask([(painted.outline_px0 - low) * fine], shape, edge)
    nucleus = soft_mask([(nucleus - low) * fine for nucleus in painted.nuclei_px0], shape, edge)
    canvas = _Canvas(cell, nucleus, stain, texture, rng)
    colours = _PAINTERS[painted.cell_class](canvas)
    return Patch(
        int(low[0]),
        int(low[1]),
        np.asarray(cv2.resize(colours, (width, height), interpolation=cv2.INTER_AREA), np.float32),
        np.asarray(cv2.resize(cell, (width, height), interpolation=cv2.INTER_AREA), np.float32),
    )


def blend(under: Field, over: Colour, share: Field) -> Field:
    """Return `under` (H, W, 3) where `share` (H, W) is 0, the colour `over` where it is 1."""
    blended: Field = under + (over - under) * share[..., None]
    return blended


def _plain(canvas: _Canvas, colour: Colour, mottling: float) -> Field:
    """Return cytoplasm of one colour, slightly uneven and denser at the edge of the cell."""
    density = 1 + mottling * canvas.noise(canvas.texture.mottled)
    density = density + 0.35 * (1 - ramp(soften(canvas.cell, canvas.px(0.45)), 0.5, 0.95))
    absorbed = np.log(colour)
    passed: Field = np.exp(density[..., None] * absorbed, dtype=np.float32)
    return passed


def _with_nucleus(canvas: _Canvas, under: Field, lightness: float, dots: float) -> Field:
    """Add the nucleus: dense at its edge, with pale parachromatin between the clumps."""
    inner = ramp(soften(canvas.nucleus, canvas.px(0.30)), 0.62, 0.98)
    light = ramp(canvas.noise(canvas.texture.chromatin), -0.1, 1.7) * inner * np.float32(dots)
    light = light + np.float32(lightness) * inner * (1 + 0.35 * canvas.noise(canvas.texture.mottled))
    nucleus = blend(
        np.broadcast_to(canvas.stain.chromatin, (*light.shape, 3)),
        canvas.stain.parachromatin,
        np.clip(light, 0, 1),
    )
    return under + (nucleus - under) * canvas.nucleus[..., None]


def _neutrophil(canvas: _Canvas) -> Field:
    cytoplasm = _plain(canvas, canvas.stain.neutrophil_cytoplasm, 0.14)
    strength = canvas.rng.uniform(0.35, 0.85)
    granules = ramp(canvas.noise(canvas.texture.granular), 0.2, 2.3) * np.float32(strength)
    return _with_nucleus(canvas, blend(cytoplasm, canvas.stain.neutrophil_granule, granules), 0.06, 0.75)


def _lymphocyte(canvas: _Canvas) -> Field:
    paleness = np.power(canvas.stain.lymphocyte_cytoplasm, canvas.rng.uniform(0.75, 1.3)).astype(np.float32)
    cytoplasm = _plain(canvas, paleness, 0.22)
    dust = ramp(canvas.noise(canvas.texture.granular), -0.4, 2.2) * np.float32(canvas.rng.uniform(0.4, 0.8))
    cytoplasm = blend(cytoplasm, canvas.stain.monocyte_granule, dust)
    return _with_nucleus(canvas, cytoplasm, canvas.rng.uniform(0.08, 0.22), 0.28)


def _monocyte(canvas: _Canvas) -> Field:
    cytoplasm = _plain(canvas, canvas.stain.monocyte_cytoplasm, 0.16)
    dust = ramp(canvas.noise(canvas.texture.granular), -0.2, 2.4) * np.float32(canvas.rng.uniform(0.6, 1.0))
    cytoplasm = blend(cytoplasm, canvas.stain.monocyte_granule, dust)
    vacuoles = _discs(canvas, int(canvas.rng.integers(2, 26)), (0.25, 0.75), 0.92)
    cytoplasm = cytoplasm + (np.float32(0.95) - cytoplasm) * vacuoles[..., None] * np.float32(0.85)
    return _with_nucleus(canvas, cytoplasm, canvas.rng.uniform(0.34, 0.50), 0.70)


def _eosinophil(canvas: _Canvas) -> Field:
    cytoplasm = _plain(canvas, canvas.stain.eosinophil_cytoplasm, 0.10)
    granules = _discs(canvas, int(canvas.cell.sum() / canvas.px(0.62) ** 2), (0.24, 0.36), 0.98)
    packed = blend(cytoplasm, canvas.stain.eosinophil_granule, granules)
    glints = ramp(canvas.noise(canvas.texture.granular), 0.8, 3.0) * np.float32(0.5)
    packed = blend(packed, np.power(canvas.stain.eosinophil_granule, np.float32(0.4)), glints)
    return _with_nucleus(canvas, packed, 0.10, 0.70)


def _basophil(canvas: _Canvas) -> Field:
    cytoplasm = _plain(canvas, canvas.stain.basophil_cytoplasm, 0.12)
    under = _with_nucleus(canvas, cytoplasm, 0.28, 0.7)
    count = int(canvas.cell.sum() / canvas.px(canvas.rng.uniform(0.44, 0.58)) ** 2)
    return blend(
        under, canvas.stain.basophil_granule, _discs(canvas, count, (0.16, 0.38), 0.99) * np.float32(0.92)
    )


def _discs(canvas: _Canvas, count: int, radii_um: tuple[float, float], reach: float) -> Field:
    """Return granules or vacuoles of random strength (0 to 1), scattered over the middle of the cell."""
    height, width = canvas.cell.shape
    sheet = np.zeros((height, width), np.uint8)
    angle = canvas.rng.uniform(0, 2 * np.pi, count)
    outward = np.sqrt(canvas.rng.uniform(0, 1, count)) * reach
    x = (0.5 + 0.5 * outward * np.cos(angle)) * width * 16
    y = (0.5 + 0.5 * outward * np.sin(angle)) * height * 16
    radius = canvas.px(1) * canvas.rng.uniform(*radii_um, count) * 16
    strength = canvas.rng.integers(150, 256, count)
    for i in range(count):
        cv2.circle(sheet, (int(x[i]), int(y[i])), int(radius[i]), int(strength[i]), -1, cv2.LINE_AA, 4)
    return soften(sheet.astype(np.float32) / np.float32(255), canvas.px(0.07))


_PAINTERS: dict[CellClass, Callable[[_Canvas], Field]] = {
    CellClass.NEUTROPHIL_SEGMENTED: _neutrophil,
    CellClass.NEUTROPHIL_BAND: _neutrophil,
    CellClass.LYMPHOCYTE: _lymphocyte,
    CellClass.MONOCYTE: _monocyte,
    CellClass.EOSINOPHIL: _eosinophil,
    CellClass.BASOPHIL: _basophil,
}
