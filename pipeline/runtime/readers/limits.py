"""Limits on the resources that one file may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Limits that are checked against the header of a file before anything is decoded."""

    max_pixels: int = 200_000_000
    """of an image that is decoded completely: JPEG, PNG, BMP, TIFF without tiles"""
    max_level0_pixels: int = 60_000_000_000
    """of a tiled scan, which is decoded tile by tile"""
    max_tile_pixels: int = 4096 * 4096
    max_tiles: int = 2_000_000
    """in one level"""
    max_file_bytes: int = 64 * 2**30
    cache_bytes: int = 64 * 2**20
    """decoded tiles cached for one open scan"""

    @property
    def max_whole_bytes(self) -> int:
        """The largest file of an image that is decoded completely: 16-bit RGBA, uncompressed."""
        return 8 * self.max_pixels
