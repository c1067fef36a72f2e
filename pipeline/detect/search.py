"""Finds the leukocytes of a scan: small scans are segmented completely, large ones around candidates."""

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
    """The cells of a scan in reading order, without duplicates, and the counts of searched tiles."""

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
    """The search for the cells of one scan."""

    reader: SlideReader
    segmenter: Segmenter
    frame: SlideFrame
    spec: PipelineSpec
    execution: Execution

    def found(self, tissue: NDArray[np.bool_]) -> Found:
        """Return the cells in the tissue of the thumbnail, bool (H, W).

        A scan of more than `PipelineSpec.whole_up_to_tiles` tiles is searched coarsely first; the counts are
        then those of the coarse tiles. If the windows around its candidates would cost more than all tiles,
        it is segmented completely.
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
        def boxes(tile: TileSpec, maps: Probabilities) -> tuple[Rect, ...]:
            return tuple(candidates_px0(maps, tile, coarse.frame, self.spec))

        for done, boxes_px0 in enumerate(self._over(coarse.frame, coarse.tiles, boxes), start=1):
            yield from boxes_px0
            self.execution.observer.advanced(done, len(coarse.tiles), 0)

    def _cells(self, tiles: Sequence[TileSpec], before: int) -> tuple[CellInstance, ...]:
        with self.execution.observer.stage(Stage.TILES):
            return stitched(self._detections(tiles, before))

    def _detections(self, tiles: Sequence[TileSpec], before: int) -> Iterator[TileDetection]:
        """Yield the detections of each tile; `before` tiles of the coarse search are already counted."""
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
        self, frame: SlideFrame, tiles: Sequence[TileSpec], extract: Callable[[TileSpec, Probabilities], T]
    ) -> Iterator[T]:
        """Yield the result of `extract` for each tile, in order.

        The next tiles are read and segmented meanwhile.
        """

        def extracted(batch: Sequence[Tile]) -> list[T]:
            maps = self.segmenter.segment(np.stack([tile.pixels for tile in batch]))
            return [extract(tile.spec, own) for tile, own in zip(batch, maps, strict=True)]

        done, pool = 0, self.execution.pool
        read = pool.map(partial(read_tile, self.reader, frame.working), tiles)
        for seen in pool.map(extracted, self.execution.batches(read)):
            yield from seen
            done += len(seen)
        if done != len(tiles):
            raise AssertionError(f"{len(tiles)} tiles planned, {done} analysed")


def _area_px(tiles: Sequence[TileSpec]) -> int:
    return sum(tile.halo_px.area for tile in tiles)
