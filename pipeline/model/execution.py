"""How an analysis is run. Nothing here changes its result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.model.domain import Tile
from pipeline.model.ports import Observer, OrderedPool

SMALL_PX = 256
"""Largest side of a small tile, such as the window around a candidate or a cell."""


@dataclass(frozen=True, slots=True)
class Execution:
    """The observer, the thread pool and the batch sizes of an analysis."""

    observer: Observer
    pool: OrderedPool
    tile_batch: int = 2
    small_tile_batch: int = 16
    crop_batch: int = 32

    def batches(self, tiles: Iterable[Tile]) -> Iterator[list[Tile]]:
        """Yield the tiles in order, in batches of one shape."""
        batch: list[Tile] = []
        for tile in tiles:
            if batch and (len(batch) == self._batch_size(tile) or tile.pixels.shape != batch[0].pixels.shape):
                yield batch
                batch = []
            batch.append(tile)
        if batch:
            yield batch

    def _batch_size(self, tile: Tile) -> int:
        return self.small_tile_batch if max(tile.pixels.shape[:2]) <= SMALL_PX else self.tile_batch
