"""A cache of decoded tiles with a size limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from pipeline.model.domain import Rgb

TileKey = tuple[int, int]
"""(level, index of the tile in its level)"""


class TileCache:
    """The most recently used tiles.

    Several threads may use it; two that miss the same tile both decode it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._tiles: OrderedDict[TileKey, Rgb] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of the cached tiles."""
        return self._bytes

    def get(self, key: TileKey, decode: Callable[[], Rgb]) -> Rgb:
        """Return the tile, read-only; `decode` is called if it is not cached."""
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        tile = decode()
        tile.flags.writeable = False
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self._bytes += tile.nbytes
            while self._bytes > self._max_bytes:
                _, dropped = self._tiles.popitem(last=False)
                self._bytes -= dropped.nbytes
        return tile
