"""Places the cells of a smear, from the seed and before any pixel is drawn. All lengths are in µm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.model.taxonomy import CellClass
from pipeline.synth.cell_shapes import LARGEST_RADIUS_UM, CellShape, shape_of
from pipeline.synth.smear_spec import SmearSpec, apportion

RED_CELL_RADIUS_UM = 3.75
"""Source: Bain, Blood Cells, 6th ed., ch. 3: normocytes are 6.0 to 8.5 µm across on a film, mean 7.2–7.5."""
PLATELET_RADIUS_UM = 1.25
"""Source: Bain, ch. 3: platelets are 1 to 3 µm across."""

_GAP_UM = 1.6
_TRIES = 400
_PUSHES = 4

Positions: TypeAlias = NDArray[np.float64]
"""float64 (N, 2): x, y in µm from the top-left corner of the scan."""


@dataclass(frozen=True, slots=True)
class PlacedCell:
    """A leukocyte and its position."""

    cell_class: CellClass
    shape: CellShape
    centre_um: tuple[float, float]
    touching: bool


@dataclass(frozen=True, slots=True)
class _Area:
    """The part of the scan that contains cells."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, spec: SmearSpec) -> _Area:
        width, height = spec.mpp.to_um(spec.size_px0.width), spec.mpp.to_um(spec.size_px0.height)
        margin = spec.glass_margin_um
        return cls(margin, margin, max(margin, width - margin), max(margin, height - margin))

    def um2(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)

    def scatter(self, count: int, rng: np.random.Generator) -> Positions:
        return rng.uniform((self.left, self.top), (self.right, self.bottom), (count, 2))


class _OccupancyGrid:
    """The leukocytes placed so far, in a grid with cells as wide as two leukocytes."""

    def __init__(self) -> None:
        self._step = 2 * LARGEST_RADIUS_UM + _GAP_UM
        self._cells: dict[tuple[int, int], list[tuple[float, float, float]]] = {}

    def is_free(self, x: float, y: float, radius: float) -> bool:
        column, row = int(x // self._step), int(y // self._step)
        near = (
            other
            for i in (column - 1, column, column + 1)
            for j in (row - 1, row, row + 1)
            for other in self._cells.get((i, j), ())
        )
        return all(np.hypot(x - ox, y - oy) >= radius + reach + _GAP_UM for ox, oy, reach in near)

    def add(self, x: float, y: float, radius: float) -> None:
        self._cells.setdefault((int(x // self._step), int(y // self._step)), []).append((x, y, radius))


def place_leukocytes(spec: SmearSpec) -> tuple[PlacedCell, ...]:
    """Return exactly `spec.leukocytes` cells, all inside the smear, with the requested share of touching
    pairs.

    Raises: ValueError, where the smear is too small for them.
    """
    rng = np.random.default_rng((spec.seed, 2))
    classes = [cell_class for cell_class, count in apportion(spec.mix, spec.leukocytes) for _ in range(count)]
    order = rng.permutation(len(classes))
    shapes = [
        (classes[k], shape_of(classes[k], np.random.default_rng((spec.seed, 3, i))))
        for i, k in enumerate(order)
    ]
    paired = 2 * round(spec.touching_fraction * len(shapes) / 2)
    area, occupied = _Area.of(spec), _OccupancyGrid()
    placed: list[PlacedCell] = []
    for first, second in zip(shapes[:paired:2], shapes[1:paired:2], strict=True):
        placed.extend(_pair(first, second, area, occupied, rng))
    placed.extend(_single(one, area, occupied, rng) for one in shapes[paired:])
    return tuple(placed)


def _single(
    one: tuple[CellClass, CellShape], area: _Area, occupied: _OccupancyGrid, rng: np.random.Generator
) -> PlacedCell:
    x, y = _free_place(one[1].radius_um, area, occupied, rng)
    occupied.add(x, y, one[1].radius_um)
    return PlacedCell(one[0], one[1], (x, y), False)


def _pair(
    first: tuple[CellClass, CellShape],
    second: tuple[CellClass, CellShape],
    area: _Area,
    occupied: _OccupancyGrid,
    rng: np.random.Generator,
) -> tuple[PlacedCell, PlacedCell]:
    """Return two touching cells, in free space for a circle around both."""
    angle = rng.uniform(-np.pi, np.pi)
    facing = np.array([np.cos(angle), np.sin(angle)])
    distance = _contact_um(first[1], second[1], facing) + rng.uniform(-0.45, 0.0)
    radius = (first[1].radius_um + second[1].radius_um + distance) / 2
    x, y = _free_place(radius, area, occupied, rng)
    start = np.array([x, y]) - facing * (radius - first[1].radius_um)
    places = (start, start + facing * distance)
    for (_, shape), place in zip((first, second), places, strict=True):
        occupied.add(float(place[0]), float(place[1]), shape.radius_um)
    one, other = (
        PlacedCell(cell_class, shape, (float(place[0]), float(place[1])), True)
        for (cell_class, shape), place in zip((first, second), places, strict=True)
    )
    return one, other


def _contact_um(first: CellShape, second: CellShape, facing: NDArray[np.float64]) -> float:
    """Return the distance of the centres at which the outlines just touch along `facing`.

    Each outline is cut into slices parallel to `facing`; the maximum over the slices decides.
    """
    across = np.array([-facing[1], facing[0]])
    slices = np.linspace(-4.0, 4.0, 33)
    ahead = _reach(first.outline_um @ across, first.outline_um @ facing, slices)
    behind = _reach(second.outline_um @ across, -(second.outline_um @ facing), slices)
    return float(np.max(ahead + behind))


def _reach(
    across: NDArray[np.floating], along: NDArray[np.floating], slices: NDArray[np.float64]
) -> NDArray[np.float64]:
    front = along > 0
    order = np.argsort(across[front])
    return np.asarray(np.interp(slices, across[front][order], along[front][order]), np.float64)


def _free_place(
    radius: float, area: _Area, occupied: _OccupancyGrid, rng: np.random.Generator
) -> tuple[float, float]:
    low = np.array([area.left + radius, area.top + radius])
    high = np.array([area.right - radius, area.bottom - radius])
    if np.all(low < high):
        for x, y in rng.uniform(low, high, (_TRIES, 2)):
            if occupied.is_free(float(x), float(y), radius):
                return float(x), float(y)
    raise ValueError("the smear is too small for so many leukocytes")


def place_red_cells(spec: SmearSpec, leukocytes: tuple[PlacedCell, ...]) -> Positions:
    """Return the centres of the red cells: random, then pushed apart and away from the leukocytes."""
    rng = np.random.default_rng((spec.seed, 4))
    area = _Area.of(spec)
    count = round(spec.red_cell_coverage * area.um2() / (np.pi * RED_CELL_RADIUS_UM**2))
    positions = _thinned(area.scatter(round(count * 1.25), rng), count, rng)
    for _ in range(_PUSHES):
        positions = _pushed_apart(positions, 2 * RED_CELL_RADIUS_UM * 0.97)
        positions = _pushed_off(positions, leukocytes, RED_CELL_RADIUS_UM)
    return _clear_of(positions, leukocytes, 0.55 * RED_CELL_RADIUS_UM)


def place_platelets(spec: SmearSpec, leukocytes: tuple[PlacedCell, ...], red_cells: int) -> Positions:
    """Return the centres of the platelets, not on leukocytes."""
    rng = np.random.default_rng((spec.seed, 5))
    positions = _Area.of(spec).scatter(round(red_cells * spec.platelets_per_red_cell), rng)
    return _clear_of(positions, leukocytes, 1.5 * PLATELET_RADIUS_UM)


def _thinned(positions: Positions, count: int, rng: np.random.Generator) -> Positions:
    """Return `count` positions, with a slowly varying density, since smears are never even."""
    density = np.full(len(positions), 1.0)
    for _ in range(5):
        wave = rng.normal(0, 2 * np.pi / rng.uniform(70, 400), 2)
        density += 0.22 * np.sin(positions @ wave + rng.uniform(0, 2 * np.pi))
    order = np.argsort(rng.uniform(size=len(positions)) / np.maximum(density, 0.05), kind="stable")
    return positions[np.sort(order[:count])]


def _pushed_apart(positions: Positions, contact_um: float) -> Positions:
    if len(positions) < 2:
        return positions
    pairs = cKDTree(positions).query_pairs(contact_um, output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    apart = positions[pairs[:, 1]] - positions[pairs[:, 0]]
    distance = np.maximum(np.hypot(apart[:, 0], apart[:, 1]), 1e-3)[:, None]
    push = apart / distance * (contact_um - distance) * 0.42
    moved = positions.copy()
    np.add.at(moved, pairs[:, 1], push)
    np.subtract.at(moved, pairs[:, 0], push)
    return moved


def _pushed_off(positions: Positions, leukocytes: tuple[PlacedCell, ...], radius: float) -> Positions:
    if not leukocytes or not len(positions):
        return positions
    nearest, apart, distance = _nearest(positions, leukocytes)
    lacking = np.maximum(0.0, nearest + 0.9 * radius - distance)
    return positions + apart / np.maximum(distance, 1e-3)[:, None] * lacking[:, None]


def _clear_of(positions: Positions, leukocytes: tuple[PlacedCell, ...], radius: float) -> Positions:
    if not leukocytes or not len(positions):
        return positions
    reach, _, distance = _nearest(positions, leukocytes)
    clear: Positions = positions[distance > reach + radius]
    return clear


def _nearest(
    positions: Positions, leukocytes: tuple[PlacedCell, ...]
) -> tuple[NDArray[np.float64], Positions, NDArray[np.float64]]:
    """Return for each position the mean radius of the nearest leukocyte, the vector from it, and the
    distance.
    """
    centres = np.array([cell.centre_um for cell in leukocytes])
    radii = np.array([np.linalg.norm(cell.shape.outline_um, axis=1).mean() for cell in leukocytes])
    distance, index = cKDTree(centres).query(positions)
    return radii[index], positions - centres[index], distance
