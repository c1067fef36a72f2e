"""A synthetic smear: its truth is available at once, its pixels are drawn on demand.

The scan is drawn in blocks of `BLOCK_PX0`, which depend only on the spec and their position. So every read
sees the same pixels, and a scan of any size needs the memory of a few blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb
from pipeline.model.geometry import Rect
from pipeline.synth.image_formation import ImageFormation
from pipeline.synth.paint import PaintedCell, Patch, oversampling, paint
from pipeline.synth.placement import PlacedCell, Positions, place_leukocytes, place_platelets, place_red_cells
from pipeline.synth.smear_spec import SmearSpec
from pipeline.synth.sprites import draw_sprites
from pipeline.synth.stain import Field, stain_of
from pipeline.synth.texture import Texture
from pipeline.synth.truth import TrueCell, Truth, document_of, rounded

BLOCK_PX0 = 512
_CROWDING = np.float32(0.3)
"""overlapping red cells absorb less than twice as much, because they flatten as they dry"""
_FEWEST_BLOCKS_KEPT = 48
_PATCHES_KEPT = 128


def draw_smear(spec: SmearSpec) -> Smear:
    """Return the smear of a spec: same spec, same pixels, same truth.

    Raises: ValueError, where the smear is too small for the leukocytes.
    """
    return Smear(spec, place_leukocytes(spec))


def truth_document(smear: Smear) -> str:
    """Return the sidecar JSON of a smear; `truth.parse_truth` reads it."""
    return document_of(Truth(smear.spec.size_px0, smear.spec.mpp, smear.spec.seed, smear.truth))


class Smear:
    """A smear with placed cells. `read` may be called from several threads."""

    def __init__(self, spec: SmearSpec, leukocytes: tuple[PlacedCell, ...]) -> None:
        self.spec = spec
        self.truth = tuple(_true_cell(cell, spec) for cell in leukocytes)
        self._stain = stain_of(spec.seed)
        self._fine = oversampling(spec.mpp.um_per_px0)
        self._texture = Texture(spec.mpp.um_per_px0 / self._fine, spec.seed)
        self._sprites = draw_sprites(spec.mpp.um_per_px0, self._stain, self._texture, spec.seed, self._fine)
        self._image_formation = ImageFormation(spec, self._stain)
        red_cells = place_red_cells(spec, leukocytes)
        platelets = place_platelets(spec, leukocytes, len(red_cells))
        self._red_cells = _SpatialIndex(red_cells / spec.mpp.um_per_px0)
        self._platelets = _SpatialIndex(platelets / spec.mpp.um_per_px0)
        self._leukocytes = _SpatialIndex(np.array([cell.centre_px0 for cell in self.truth]).reshape(-1, 2))
        # Writers read bands across the whole scan that are lower than a block: a row of blocks has to be
        # cached.
        across = spec.size_px0.width // BLOCK_PX0 + 2
        self._block = lru_cache(max(_FEWEST_BLOCKS_KEPT, across))(self._draw_block)
        self._patch = lru_cache(_PATCHES_KEPT)(self._paint_leukocyte)

    def read(self, rect_px0: Rect) -> Rgb:
        """Return uint8 (height, width, 3) RGB of the rectangle; white outside the scan."""
        picture = np.full((rect_px0.height, rect_px0.width, 3), 255, np.uint8)
        size = self.spec.size_px0
        wanted = rect_px0.intersection(Rect(0, 0, size.width, size.height))
        for column, row in _blocks_of(wanted):
            block_px0 = Rect(column * BLOCK_PX0, row * BLOCK_PX0, BLOCK_PX0, BLOCK_PX0)
            part = wanted.intersection(block_px0)
            picture[_window(part, rect_px0)] = self._block(column, row)[_window(part, block_px0)]
        return picture

    def _draw_block(self, column: int, row: int) -> Rgb:
        margin = self._image_formation.margin_px0
        rect = Rect(column * BLOCK_PX0, row * BLOCK_PX0, BLOCK_PX0, BLOCK_PX0).grown(margin)
        haemoglobin = np.zeros((rect.height, rect.width), np.float32)
        for i, x, y in self._red_cells.around(column, row):
            _add(haemoglobin, self._sprites.red_cells[i * 7919 % len(self._sprites.red_cells)], x, y, rect)
        haemoglobin *= (1 + _CROWDING) / (1 + _CROWDING * haemoglobin)
        absorbed = np.log(self._stain.red_cell)
        passed = np.stack([cv2.exp(haemoglobin * absorbed[band]) for band in range(3)], axis=2)
        for i, x, y in self._platelets.around(column, row):
            _multiply(passed, self._sprites.platelets[i * 7919 % len(self._sprites.platelets)], x, y, rect)
        for i, _, _ in self._leukocytes.around(column, row):
            _overlay(passed, self._patch(i), rect)
        return self._image_formation.expose(passed, column, row)

    def _paint_leukocyte(self, index: int) -> Patch:
        cell = self.truth[index]
        rng = np.random.default_rng((self.spec.seed, 9, index))
        painted = PaintedCell(cell.cell_class, cell.outline_px0, cell.nuclei_px0)
        return paint(painted, self._stain, self._texture, rng, self._fine)


class _SpatialIndex:
    """Positions by block."""

    def __init__(self, positions_px0: Positions) -> None:
        self._positions = positions_px0
        block = np.floor(positions_px0 / BLOCK_PX0).astype(np.int64)
        order = np.lexsort((block[:, 0], block[:, 1]))
        self._members: dict[tuple[int, int], NDArray[np.int64]] = {}
        if len(order):
            turns = np.flatnonzero(np.any(np.diff(block[order], axis=0) != 0, axis=1)) + 1
            for members in np.split(order, turns):
                self._members[int(block[members[0], 0]), int(block[members[0], 1])] = members

    def around(self, column: int, row: int) -> Iterator[tuple[int, float, float]]:
        """Yield index, x and y of the positions in the block and the eight around it, by index."""
        near = [
            self._members[c, r]
            for c in (column - 1, column, column + 1)
            for r in (row - 1, row, row + 1)
            if (c, r) in self._members
        ]
        for i in np.sort(np.concatenate(near)) if near else ():
            yield int(i), float(self._positions[i, 0]), float(self._positions[i, 1])


def _true_cell(cell: PlacedCell, spec: SmearSpec) -> TrueCell:
    centre = np.array(cell.centre_um)

    def to_px0(contour_um: NDArray[np.float32]) -> NDArray[np.float32]:
        return rounded((contour_um + centre) / spec.mpp.um_per_px0)

    outline = to_px0(cell.shape.outline_um)
    moments = cv2.moments(outline)
    middle = (round(moments["m10"] / moments["m00"], 2), round(moments["m01"] / moments["m00"], 2))
    return TrueCell(middle, outline, tuple(map(to_px0, cell.shape.nuclei_um)), cell.cell_class, cell.touching)


def _blocks_of(rect: Rect) -> Iterator[tuple[int, int]]:
    if rect.area:
        for row in range(rect.y // BLOCK_PX0, (rect.bottom - 1) // BLOCK_PX0 + 1):
            for column in range(rect.x // BLOCK_PX0, (rect.right - 1) // BLOCK_PX0 + 1):
                yield column, row


def _window(part: Rect, frame: Rect) -> tuple[slice, slice]:
    return (
        slice(part.y - frame.y, part.bottom - frame.y),
        slice(part.x - frame.x, part.right - frame.x),
    )


def _sprite_rect(sprite: Field, x: float, y: float) -> Rect:
    half = sprite.shape[0] // 2
    return Rect(int(np.floor(x)) - half, int(np.floor(y)) - half, sprite.shape[1], sprite.shape[0])


def _add(ground: Field, sprite: Field, x: float, y: float, rect: Rect) -> None:
    own = _sprite_rect(sprite, x, y)
    part = own.intersection(rect)
    if part.area:
        ground[_window(part, rect)] += sprite[_window(part, own)]


def _multiply(ground: Field, sprite: Field, x: float, y: float, rect: Rect) -> None:
    own = _sprite_rect(sprite, x, y)
    part = own.intersection(rect)
    if part.area:
        ground[_window(part, rect)] *= sprite[_window(part, own)]


def _overlay(ground: Field, patch: Patch, rect: Rect) -> None:
    own = Rect(patch.x_px0, patch.y_px0, patch.cover.shape[1], patch.cover.shape[0])
    part = own.intersection(rect)
    if part.area:
        under = ground[_window(part, rect)]
        over, cover = patch.transmittance[_window(part, own)], patch.cover[_window(part, own)]
        under += (over - under) * cover[..., None]
