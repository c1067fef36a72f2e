"""How an analysis is run; nothing here changes its result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.model.domain import Tile
from pipeline.model.ports import Observer, OrderedPool

SMALL_PX = 256
"""Side of the largest tile that counts as small: what is shown around a candidate or a cell."""


@dataclass(frozen=True, slots=True)
class Execution:
    """Who watches an analysis, and how much of it goes on at once."""

    observer: Observer
    pool: OrderedPool
    tile_batch: int = 2
    small_tile_batch: int = 16
    crop_batch: int = 32

    def batches(self, tiles: Iterable[Tile]) -> Iterator[list[Tile]]:
        """Yield runs of tiles of one shape, in order; scans' edges, and windows, have shapes of their own."""
        batch: list[Tile] = []
        for tile in tiles:
            if batch and (len(batch) == self._most(tile) or tile.pixels.shape != batch[0].pixels.shape):
                yield batch
                batch = []
            batch.append(tile)
        if batch:
            yield batch

    def _most(self, tile: Tile) -> int:
        return self.small_tile_batch if max(tile.pixels.shape[:2]) <= SMALL_PX else self.tile_batch
