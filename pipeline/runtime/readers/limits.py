"""How much of the machine one file may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds that a file's own header is held against before anything is decoded."""

    max_pixels: int = 200_000_000
    """of an image that has to be decoded whole: JPEG, PNG, BMP, TIFF without tiles"""
    max_level0_pixels: int = 60_000_000_000
    """of a tiled scan, which is decoded tile by tile"""
    max_tile_pixels: int = 4096 * 4096
    max_tiles: int = 2_000_000
    """in one level"""
    max_file_bytes: int = 64 * 2**30
    cache_bytes: int = 64 * 2**20
    """decoded tiles kept by one open scan"""

    @property
    def max_whole_bytes(self) -> int:
        """The longest file of an image decoded whole: 16-bit RGBA, uncompressed."""
        return 8 * self.max_pixels
