"""Reads TIFF and Aperio SVS: tiles are decoded on demand, an image without tiles completely."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
import tifffile

from pipeline.model.domain import Level, Rgb, SlideMeta
from pipeline.model.errors import TransientError
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.model.ports import SlideReader
from pipeline.runtime.readers import aperio, resolution
from pipeline.runtime.readers.ifd import check_directories
from pipeline.runtime.readers.limits import DecodeLimits
from pipeline.runtime.readers.raster import RasterReader, check_whole
from pipeline.runtime.readers.refusals import Refusal, refuse
from pipeline.runtime.readers.tile_cache import TileCache
from pipeline.runtime.readers.tile_decoding import Segments, check_stored, segments_of

_MAKE, _MODEL = 271, 272
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_UNITS_UM = {2: resolution.UM_PER_INCH, 3: resolution.UM_PER_CM}
_MACRO = 9
"""NewSubfileType of the macro picture of an SVS"""


class TiledReader:
    """A scan whose tiles are decoded on demand. Implements `ports.SlideReader`."""

    def __init__(self, levels: tuple[Segments, ...], meta: SlideMeta, cache_bytes: int) -> None:
        self._levels = levels
        self._meta = meta
        self._cache = TileCache(cache_bytes)

    @property
    def meta(self) -> SlideMeta:
        return self._meta

    def read(self, level: int, rect_lv: Rect) -> Rgb:
        """Return uint8 (height, width, 3) RGB of `rect_lv`; white outside the scan and where tiles are
        missing.

        Raises: InputError `damaged_tile`; CapacityError; TransientError, where the disk fails.
        """
        if not 0 <= level < len(self._levels):
            raise ValueError(f"no level {level}")
        segments = self._levels[level]
        out = np.full((max(0, rect_lv.height), max(0, rect_lv.width), 3), 255, np.uint8)
        for index in segments.under(rect_lv):
            part = segments.rect(index).intersection(rect_lv)
            _paste(out, rect_lv, part, segments.rect(index), self._tile(level, index))
        return out

    def _tile(self, level: int, index: int) -> Rgb:
        return self._cache.get((level, index), lambda: self._levels[level].decode(index))


@contextmanager
def read_tiff(file: IO[bytes], file_bytes: int, limits: DecodeLimits) -> Iterator[SlideReader]:
    """Return a context with the open scan.

    Raises: InputError; CapacityError, where an image without tiles does not fit into memory.
    """
    descriptor = file.fileno()

    def read_at(offset: int, length: int) -> bytes:
        try:
            return os.pread(descriptor, length, offset)
        except OSError as error:
            raise TransientError("The spooled scan could not be read.", code="spool_unreadable") from error

    check_directories(read_at)
    tifffile.logger().disabled = True  # it would print errors, with the file name, that are raised here
    try:
        with tifffile.TiffFile(file, name="scan") as tiff:
            pages = _pages(tiff.pages)
            check_stored(pages, file_bytes)
            levels = tuple(segments_of(page, read_at, limits) for page in _level_pages(pages))
            meta = _meta(levels, pages)
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        raise refuse(Refusal.DAMAGED_HEADER) from error
    except (RuntimeError, AssertionError, struct.error, MemoryError) as error:
        raise refuse(Refusal.DAMAGED_HEADER) from error
    if levels[0].tiled:
        yield TiledReader(levels, meta, limits.cache_bytes)
    else:
        check_whole(meta.size_px0, 0, limits)
        yield RasterReader(_decoded_whole(levels[0]), meta)


def _pages(listed: tifffile.TiffPages) -> list[tifffile.TiffPage]:
    return [page for page in listed if isinstance(page, tifffile.TiffPage)]


def _level_pages(pages: list[tifffile.TiffPage]) -> list[tifffile.TiffPage]:
    """Return the page of level 0, then those of the reduced levels."""
    if aperio.is_aperio(pages[0].description):
        base = pages[0]
    else:
        base = max(pages, key=lambda page: page.imagewidth * page.imagelength)
    if not base.is_tiled:
        return [base]
    below = _pages(base.pages) if base.subifds and base.pages else []
    smaller = [page for page in (*pages, *below) if _is_reduced(page, base)]
    chosen = [base]
    for page in sorted(smaller, key=lambda page: -page.imagewidth):
        if page.imagewidth < chosen[-1].imagewidth and page.imagelength < chosen[-1].imagelength:
            chosen.append(page)
    return chosen


def _is_reduced(page: tifffile.TiffPage, base: tifffile.TiffPage) -> bool:
    if not page.is_tiled or page.subfiletype == _MACRO or not 0 < page.imagewidth < base.imagewidth:
        return False
    expected = base.imagelength * page.imagewidth / base.imagewidth
    slack = 1 + base.imagelength / base.imagewidth  # each side may have been rounded by a pixel
    return bool(abs(page.imagelength - expected) <= slack)


def _downsample(size_px0: Size, size_lv: Size) -> float:
    """Return level-0 pixels per pixel, as a whole number if the difference is due to rounding of the
    sides.
    """
    measured = (size_px0.width / size_lv.width + size_px0.height / size_lv.height) / 2
    whole = round(measured)
    rounded_away = abs(size_px0.width / whole - size_lv.width), abs(size_px0.height / whole - size_lv.height)
    return float(whole) if max(rounded_away) < 1 else measured


def _meta(levels: tuple[Segments, ...], pages: list[tifffile.TiffPage]) -> SlideMeta:
    size_px0 = levels[0].size_lv
    base = next(page for page in pages if (page.imagewidth, page.imagelength) == _sides(size_px0))
    svs = aperio.is_aperio(pages[0].description)
    optics = aperio.microscope_of(base.description) if svs else aperio.Microscope(None, None, _scanner(base))
    return SlideMeta(
        size_px0=size_px0,
        mpp=optics.mpp or _mpp(base),
        objective=optics.objective,
        scanner=optics.scanner,
        file_format="aperio-svs" if svs else "tiff",
        levels=tuple(Level(level.size_lv, _downsample(size_px0, level.size_lv)) for level in levels),
    )


def _sides(size: Size) -> tuple[int, int]:
    return size.width, size.height


def _scanner(page: tifffile.TiffPage) -> str | None:
    names = (str(page.tags.valueof(tag, default="")) for tag in (_MAKE, _MODEL))
    return aperio.printable(" ".join(names))[:64] or None


def _mpp(page: tifffile.TiffPage) -> Mpp | None:
    unit_um = _UNITS_UM.get(int(page.tags.valueof(_RESOLUTION_UNIT, default=2)))
    densities = [page.tags.valueof(tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
    if unit_um is None or not all(isinstance(density, tuple) and density[1] for density in densities):
        return None
    x_per_unit, y_per_unit = (density[0] / density[1] for density in densities)
    return resolution.from_density(x_per_unit, y_per_unit, unit_um)


def _paste(out: Rgb, rect_lv: Rect, part: Rect, tile_rect: Rect, tile: Rgb) -> None:
    x, y = part.x - tile_rect.x, part.y - tile_rect.y
    to_x, to_y = part.x - rect_lv.x, part.y - rect_lv.y
    out[to_y : to_y + part.height, to_x : to_x + part.width] = tile[y : y + part.height, x : x + part.width]


def _decoded_whole(segments: Segments) -> Rgb:
    everything = Rect(0, 0, segments.size_lv.width, segments.size_lv.height)
    out = np.full((everything.height, everything.width, 3), 255, np.uint8)
    for index in segments.under(everything):
        part = segments.rect(index)
        _paste(out, everything, part, part, segments.decode(index))
    return out
