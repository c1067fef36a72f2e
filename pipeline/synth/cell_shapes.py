"""Outlines and nuclei of leukocytes, in µm around the cell's centre.

Source of the diameters: Bain, Blood Cells, 6th ed., ch. 3: neutrophil 12–15 µm, eosinophil 12–17,
basophil 10–14, lymphocyte 10–12 (large 12–16), monocyte 12–20.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Contour
from pipeline.model.taxonomy import CellClass
from pipeline.synth.stain import Field

LARGEST_RADIUS_UM = 11.0
"""Largest distance of an outline from the centre."""

_RASTER_UM = 0.08
_RASTER_PX = 288
_SHIFT = 4
_SMOOTHING_UM = 0.30

Points: TypeAlias = NDArray[np.float64]
Stroke: TypeAlias = tuple[Points, float]
"""A line (N, 2) in µm, and its width in µm."""


@dataclass(frozen=True, slots=True)
class CellShape:
    """The outline and nucleus of a leukocyte."""

    outline_um: Contour
    nuclei_um: tuple[Contour, ...]
    radius_um: float
    """largest radius of the outline"""


@dataclass(frozen=True, slots=True)
class _ShapeParameters:
    """The shape of a class: range of its radius, roughness of its edge, and its nucleus as strokes."""

    smallest_radius_um: float
    largest_radius_um: float
    roughness: float
    bristle: float
    nucleus: Callable[[float, np.random.Generator], list[Stroke]]


def shape_of(cell_class: CellClass, rng: np.random.Generator) -> CellShape:
    """Return a random leukocyte of one of `DRAWN_CLASSES`."""
    parameters = _SHAPE_PARAMETERS[cell_class]
    radius = rng.uniform(parameters.smallest_radius_um, parameters.largest_radius_um)
    outline = _outline(radius, parameters, rng)
    strokes = _turned(parameters.nucleus(radius, rng), rng.uniform(0, 2 * np.pi))
    nuclei = _traced(strokes, outline, rng)
    return CellShape(outline, nuclei, float(np.linalg.norm(outline, axis=1).max()))


def _outline(radius: float, parameters: _ShapeParameters, rng: np.random.Generator) -> Contour:
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    swell = np.zeros_like(angle)
    for k in range(2, 7):
        swell += rng.normal(0, parameters.roughness / (k - 0.5)) * np.cos(
            k * angle + rng.uniform(0, 2 * np.pi)
        )
    for k in rng.integers(9, 28, 6):
        swell += rng.normal(0, parameters.bristle) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    reach = np.minimum(radius * (1 + np.clip(swell, -0.25, 0.3)), LARGEST_RADIUS_UM)
    return np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1).astype(np.float32)


def _arc(radius: float, span: float, count: int) -> Points:
    """Return points on an arc around the origin that opens towards +y."""
    angle = -np.pi / 2 + np.linspace(-span / 2, span / 2, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _lobes(
    path_radius: float, span: float, count: int, width: float, rng: np.random.Generator
) -> list[Stroke]:
    """Return lobes along an arc, connected by filaments."""
    spacing = path_radius * span / max(1, count - 1)
    core = max(0.1, spacing - width - rng.uniform(0.0, 0.5))
    centres = _arc(path_radius, span, count) + rng.normal(0, 0.35, (count, 2))
    angle = np.linspace(-span / 2, span / 2, count) + rng.normal(0, 0.35, count)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * core / 2
    strokes: list[Stroke] = [
        (np.stack([centre - half, centre + half]), width * rng.uniform(0.88, 1.12))
        for centre, half in zip(centres, along, strict=True)
    ]
    strokes.append((centres, 0.9))
    return strokes


def _segmented(radius: float, rng: np.random.Generator) -> list[Stroke]:
    # Source: Bain, ch. 3: two to five lobes, three most often.
    count = int(rng.choice((2, 3, 4, 5), p=(0.16, 0.44, 0.30, 0.10)))
    span = {2: 2.1, 3: 3.4, 4: 4.4, 5: 5.2}[count] * rng.uniform(0.9, 1.1)
    return _lobes(0.47 * radius, span, count, 0.54 * radius * (3 / count) ** 0.35, rng)


def _band(radius: float, rng: np.random.Generator) -> list[Stroke]:
    arc = _arc(radius * rng.uniform(0.44, 0.52), rng.uniform(2.9, 4.3), 9)
    arc = arc * rng.uniform(0.85, 1.15, 2) + np.array([0, radius * rng.uniform(-0.02, 0.12)])
    width = radius * rng.uniform(0.42, 0.52)
    return [
        (arc, width),
        (arc[:2], width * 1.12),
        (arc[-2:], width * 1.12),
    ]


def _round(radius: float, rng: np.random.Generator) -> list[Stroke]:
    half = radius * rng.uniform(0.05, 0.14)
    share = rng.uniform(0.86, 0.97)
    offset = radius * np.array([rng.uniform(-0.02, 0.02), rng.uniform(0.3, 1.0) * (1.02 - share)])
    width = 2 * radius * share - 2 * half
    return [(np.array([(-half, 0.0), (half, 0.0)]) + offset, width)]


def _kidney(radius: float, rng: np.random.Generator) -> list[Stroke]:
    span = rng.uniform(1.9, 4.2)
    arc = _arc(radius * rng.uniform(0.34, 0.42), span, 7)
    arc += np.array([0, radius * rng.uniform(0.02, 0.14)])
    width = radius * rng.uniform(0.70, 0.92)
    end = int(rng.choice((0, 5)))
    return [(arc, width), (arc[end : end + 2], width * rng.uniform(1.0, 1.25))]


def _bilobed(radius: float, rng: np.random.Generator) -> list[Stroke]:
    # Source: Bain, ch. 3: the eosinophil has two lobes, seldom three.
    count = int(rng.choice((2, 3), p=(0.85, 0.15)))
    span = {2: 2.0, 3: 3.0}[count] * rng.uniform(0.9, 1.15)
    lobes = _lobes(0.46 * radius, span, count, radius * {2: 0.66, 3: 0.52}[count], rng)
    aside = (0.0, -radius * rng.uniform(0.02, 0.12))
    return [(points + aside, width) for points, width in lobes]


def _clover(radius: float, rng: np.random.Generator) -> list[Stroke]:
    return _lobes(0.40 * radius, rng.uniform(2.4, 4.2), 3, radius * rng.uniform(0.66, 0.78), rng)


_SHAPE_PARAMETERS: dict[CellClass, _ShapeParameters] = {
    CellClass.NEUTROPHIL_SEGMENTED: _ShapeParameters(6.0, 7.4, 0.042, 0.002, _segmented),
    CellClass.NEUTROPHIL_BAND: _ShapeParameters(6.0, 7.4, 0.042, 0.002, _band),
    CellClass.LYMPHOCYTE: _ShapeParameters(4.6, 6.2, 0.085, 0.014, _round),
    CellClass.MONOCYTE: _ShapeParameters(7.2, 9.2, 0.125, 0.009, _kidney),
    CellClass.EOSINOPHIL: _ShapeParameters(6.2, 7.6, 0.042, 0.004, _bilobed),
    CellClass.BASOPHIL: _ShapeParameters(5.9, 7.4, 0.040, 0.008, _clover),
}


def _turned(strokes: list[Stroke], angle: float) -> list[Stroke]:
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    return [(points @ turn, width) for points, width in strokes]


def _traced(strokes: list[Stroke], outline: Contour, rng: np.random.Generator) -> tuple[Contour, ...]:
    """Return the outlines of the strokes merged into one another, within the cell."""
    mask = np.zeros((_RASTER_PX, _RASTER_PX), np.uint8)
    for points, width in strokes:
        cv2.polylines(
            mask, [_to_raster(points)], False, 255, max(1, round(width / _RASTER_UM)), cv2.LINE_8, _SHIFT
        )
    merged = cv2.GaussianBlur(mask, (0, 0), _SMOOTHING_UM / _RASTER_UM) / 255 + _waviness(rng)
    inside = np.zeros_like(mask)
    cv2.fillPoly(inside, [_to_raster(outline * 0.96)], 1, cv2.LINE_8, _SHIFT)
    kept = ((merged > 0.5) & (inside > 0)).astype(np.uint8)
    found, _ = cv2.findContours(kept, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    smooth = [_smoothed(contour[:, 0, :].astype(np.float32)) for contour in found if len(contour) > 24]
    return tuple((contour - _RASTER_PX / 2 + 0.5) * _RASTER_UM for contour in smooth)


def _waviness(rng: np.random.Generator) -> Field:
    coarse = rng.normal(0, 0.14, (22, 22)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (_RASTER_PX, _RASTER_PX), interpolation=cv2.INTER_CUBIC), np.float32)


def _smoothed(contour: Contour) -> Contour:
    """Return every third point of the contour, smoothed to remove the steps of the raster."""
    width = 5
    ring = np.concatenate([contour[-(width // 2) :], contour, contour[: width // 2]])
    kernel = np.full(width, 1 / width)
    smooth = np.stack([np.convolve(ring[:, axis], kernel, mode="valid") for axis in (0, 1)], axis=1)
    return smooth[::3].astype(np.float32)


def _to_raster(points_um: NDArray[np.floating]) -> NDArray[np.int32]:
    raster = points_um / _RASTER_UM + _RASTER_PX / 2 - 0.5
    return np.asarray(np.round(raster * (1 << _SHIFT)), np.int32)
