"""Writes pyramidal tiled JPEG TIFFs in bands, with memory that depends on the width but not the height."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import tifffile

from pipeline.model.domain import Rgb
from pipeline.model.geometry import Mpp, Rect, Size

TILE_PX = 256
SMALLEST_LEVEL_PX = 1024
"""Levels are added until both sides are below this."""
_ENCODE_BYTES = 1 << 24
"""Limit for the decoded tiles in the encoder."""
_CLASSIC_TIFF_BYTES = 2**32
_UM_PER_CM = 1e4

ReadBand = Callable[[Rect], Rgb]


def write_pyramid(path: Path, size_px0: Size, read: ReadBand, mpp: Mpp, quality: int = 85) -> None:
    """Write a pyramid to `path`, which appears only when it is complete.

    `read` is called once for each band of level 0, `Rect(0, y, width, at most 256)`, top to bottom, and
    returns uint8 (height, width, 3) RGB. Each further level is the 2 × 2 box mean of the one before; an odd
    last row or column is repeated. The scale is in XResolution and YResolution, per centimetre. `quality` is
    libjpeg's.
    """
    part = path.with_name(path.name + ".part")
    big = size_px0.area * 3 >= _CLASSIC_TIFF_BYTES
    try:
        with tifffile.TiffWriter(part, bigtiff=big) as tiff, ExitStack() as spools:
            size_lv, um_per_px, level = size_px0, mpp.um_per_px0, 0
            while max(size_lv.width, size_lv.height) >= SMALLEST_LEVEL_PX:
                spool = spools.enter_context(tempfile.TemporaryFile())
                bands = _reducing(_bands(size_lv, read), spool)
                _write_level(tiff, size_lv, bands, um_per_px, level, quality)
                size_lv = Size((size_lv.width + 1) // 2, (size_lv.height + 1) // 2)
                um_per_px, level, read = 2 * um_per_px, level + 1, _from_spool(spool, size_lv)
            _write_level(tiff, size_lv, _bands(size_lv, read), um_per_px, level, quality)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_level(
    tiff: tifffile.TiffWriter, size_lv: Size, bands: Iterator[Rgb], um_per_px: float, level: int, quality: int
) -> None:
    tiff.write(
        _tiles(bands),
        shape=(size_lv.height, size_lv.width, 3),
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        photometric="rgb",  # the input; JPEG stores YCbCr
        subsampling=(2, 2),
        compression="jpeg",
        compressionargs={"level": quality},
        subfiletype=1 if level else 0,
        resolution=(_UM_PER_CM / um_per_px, _UM_PER_CM / um_per_px),
        resolutionunit="CENTIMETER",
        software="leukoflow",
        metadata=None,
        buffersize=_ENCODE_BYTES,
    )


def _bands(size_lv: Size, read: ReadBand) -> Iterator[Rgb]:
    for y in range(0, size_lv.height, TILE_PX):
        yield read(Rect(0, y, size_lv.width, min(TILE_PX, size_lv.height - y)))


def _tiles(bands: Iterator[Rgb]) -> Iterator[Rgb]:
    """Yield complete tiles row by row; those at the edge are padded with their last column or row."""
    for band in bands:
        filled = np.pad(
            band, ((0, -band.shape[0] % TILE_PX), (0, -band.shape[1] % TILE_PX), (0, 0)), mode="edge"
        )
        for x in range(0, filled.shape[1], TILE_PX):
            yield np.ascontiguousarray(filled[:, x : x + TILE_PX])


def _reducing(bands: Iterator[Rgb], spool: IO[bytes]) -> Iterator[Rgb]:
    """Pass the bands on, and append the 2 × 2 box mean of each to `spool`."""
    for band in bands:
        spool.write(_halved(band).tobytes())
        yield band


def _halved(band: Rgb) -> Rgb:
    even = np.pad(band, ((0, band.shape[0] % 2), (0, band.shape[1] % 2), (0, 0)), mode="edge")
    total = np.full((even.shape[0] // 2, even.shape[1] // 2, 3), 2, np.uint16)
    for row in (0, 1):
        for column in (0, 1):
            total += even[row::2, column::2]
    return (total >> 2).astype(np.uint8)


def _from_spool(spool: IO[bytes], size_lv: Size) -> ReadBand:
    """Return a reader of full-width bands from rows that were appended to `spool`."""
    row_bytes = size_lv.width * 3

    def read(rect_lv: Rect) -> Rgb:
        spool.seek(rect_lv.y * row_bytes)
        rows = np.frombuffer(spool.read(rect_lv.height * row_bytes), np.uint8)
        return rows.reshape(rect_lv.height, size_lv.width, 3)

    return read
