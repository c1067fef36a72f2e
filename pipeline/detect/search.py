"""Finds the leukocytes of a scan: a small scan is segmented whole, a large one around its candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.detect.candidates import candidate_frame, candidates_px0, windows_around
from pipeline.detect.instances import SlideFrame, find_instances
from pipeline.detect.stitch import TileDetection, depth_px0, stitched
from pipeline.detect.tiling import tile_grid
from pipeline.detect.tissue import tiles_with_tissue
from pipeline.model.domain import CellInstance, Probabilities, Tile, TileCounts, TileSpec
from pipeline.model.execution import Execution
from pipeline.model.geometry import Rect
from pipeline.model.ports import Segmenter, SlideReader, Stage
from pipeline.model.spec import PipelineSpec
from pipeline.sampling.crops import read_tile

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """The cells of a scan, each once, in reading order, and the tiles in which they were looked for."""

    cells: tuple[CellInstance, ...]
    tiles: TileCounts


@dataclass(frozen=True, slots=True)
class _Plan:
    """The tiles of one frame that show tissue."""

    frame: SlideFrame
    tiles: tuple[TileSpec, ...]
    counts: TileCounts


@dataclass(frozen=True, slots=True)
class Search:
    """What finding cells needs."""

    reader: SlideReader
    segmenter: Segmenter
    frame: SlideFrame
    spec: PipelineSpec
    execution: Execution

    def found(self, tissue: NDArray[np.bool_]) -> Found:
        """Return the cells where the thumbnail, bool (H, W), shows tissue.

        A scan of more than `PipelineSpec.whole_up_to_tiles` tiles is first looked at coarsely; then its
        counts are those of the coarse tiles. So full of candidates that windows would cost more, it is
        segmented whole all the same.
        """
        spec = self.spec
        fine = self._plan(self.frame, tissue, spec.tile_core_px, spec.halo_px)
        if len(fine.tiles) <= spec.whole_up_to_tiles:
            return Found(self._cells(fine.tiles, 0), fine.counts)
        frame = candidate_frame(self.frame, spec)
        coarse = self._plan(frame, tissue, spec.candidate_core_px, spec.candidate_halo_px)
        with self.execution.observer.stage(Stage.CANDIDATES):
            windows = windows_around(self._candidates(coarse), self.frame, spec, self.segmenter.stride_px)
        if _area_px(windows) >= _area_px(fine.tiles):
            return Found(self._cells(fine.tiles, 0), fine.counts)
        return Found(self._cells(windows, len(coarse.tiles)), coarse.counts)

    def _plan(self, frame: SlideFrame, tissue: NDArray[np.bool_], core_px: int, halo_px: int) -> _Plan:
        grid = tile_grid(frame.working.size_px, core_px, halo_px, self.segmenter.stride_px)
        tiles = tiles_with_tissue(grid, tissue, frame.working)
        return _Plan(frame, tiles, TileCounts(len(grid), len(grid) - len(tiles), len(tiles)))

    def _candidates(self, coarse: _Plan) -> Iterator[Rect]:
        def suspects(tile: TileSpec, maps: Probabilities) -> tuple[Rect, ...]:
            return tuple(candidates_px0(maps, tile, coarse.frame, self.spec))

        for done, boxes_px0 in enumerate(self._over(coarse.frame, coarse.tiles, suspects), start=1):
            yield from boxes_px0
            self.execution.observer.advanced(done, len(coarse.tiles), 0)

    def _cells(self, tiles: Sequence[TileSpec], before: int) -> tuple[CellInstance, ...]:
        with self.execution.observer.stage(Stage.TILES):
            return stitched(self._detections(tiles, before))

    def _detections(self, tiles: Sequence[TileSpec], before: int) -> Iterator[TileDetection]:
        """Yield the cells as each tile sees them; `before` tiles of a coarse look are done."""
        found, planned = 0, before + len(tiles)
        self.execution.observer.advanced(before, planned, found)
        for done, seen in enumerate(self._over(self.frame, tiles, self._seen), start=before + 1):
            found += len(seen)
            yield from seen
            self.execution.observer.advanced(done, planned, found)

    def _seen(self, tile: TileSpec, maps: Probabilities) -> tuple[TileDetection, ...]:
        core_px0 = self.frame.working.rect_to_px0(tile.core_px)
        instances = find_instances(maps, tile, self.frame, self.spec)
        return tuple(TileDetection(instance, depth_px0(instance, core_px0)) for instance in instances)

    def _over(
        self, frame: SlideFrame, tiles: Sequence[TileSpec], look: Callable[[TileSpec, Probabilities], T]
    ) -> Iterator[T]:
        """Yield what `look` sees in each tile, in order, once: as many as were asked for, or it is an error.

        The next tiles are read and segmented while these are looked at.
        """

        def looked(batch: Sequence[Tile]) -> list[T]:
            maps = self.segmenter.segment(np.stack([tile.pixels for tile in batch]))
            return [look(tile.spec, own) for tile, own in zip(batch, maps, strict=True)]

        done, pool = 0, self.execution.pool
        read = pool.map(partial(read_tile, self.reader, frame.working), tiles)
        for seen in pool.map(looked, self.execution.batches(read)):
            yield from seen
            done += len(seen)
        if done != len(tiles):
            raise AssertionError(f"{len(tiles)} tiles planned, {done} analysed")


def _area_px(tiles: Sequence[TileSpec]) -> int:
    return sum(tile.halo_px.area for tile in tiles)
