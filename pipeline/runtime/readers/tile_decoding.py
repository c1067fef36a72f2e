"""The tiles or strips of one TIFF page: their position in the file, and how they are decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.model.domain import Rgb
from pipeline.model.errors import CapacityError
from pipeline.model.geometry import Rect, Size
from pipeline.runtime.readers import codestream, colour
from pipeline.runtime.readers.ifd import ReadAt
from pipeline.runtime.readers.limits import DecodeLimits
from pipeline.runtime.readers.refusals import Refusal, refuse, refuse_format
from pipeline.runtime.readers.sample_layout import PALETTE, YCBCR, SampleLayout

_NONE, _LZW, _JPEG, _DEFLATE, _PACKBITS, _DEFLATE_OLD = 1, 5, 7, 8, 32773, 32946
_APERIO_JPEG2000_RGB, _JPEG2000, _ZSTD = 33005, 34712, 50000
_READABLE = {_NONE, _LZW, _JPEG, _DEFLATE, _PACKBITS, _DEFLATE_OLD, _APERIO_JPEG2000_RGB, _JPEG2000, _ZSTD}
"""TIFF Compression. Every decoder gets a size limit, or its header is checked first."""
_UNSIGNED = 1
_SEPARATE_PLANES = 2
_PALETTE_TAG = 320
_SLACK_BYTES = 1 << 16

Decode = Callable[..., tuple[colour.Samples | None, tuple[int, ...], tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Segments:
    """One level: a grid of tiles, or of strips as wide as the image."""

    size_lv: Size
    tiled: bool
    segment: Size
    layout: SampleLayout
    planes: int
    """1, or the number of samples if each is stored in separate segments"""
    compression: int
    offsets: NDArray[np.uint64]
    byte_counts: NDArray[np.uint64]
    jpeg_tables: bytes | None
    tifffile_decode: Decode
    read_at: ReadAt

    @property
    def columns(self) -> int:
        return -(-self.size_lv.width // self.segment.width)

    @property
    def rows(self) -> int:
        return -(-self.size_lv.height // self.segment.height)

    def rect(self, index: int) -> Rect:
        """Return the part of the level that segment `index` covers."""
        row, column = divmod(index, self.columns)
        x, y = column * self.segment.width, row * self.segment.height
        width = min(self.segment.width, self.size_lv.width - x)
        return Rect(x, y, width, min(self.segment.height, self.size_lv.height - y))

    def under(self, rect_lv: Rect) -> Iterator[int]:
        """Yield the stored segments that intersect `rect_lv`, row by row; scanners leave out empty ones."""
        inside = rect_lv.intersection(Rect(0, 0, self.size_lv.width, self.size_lv.height))
        if not inside.area:
            return
        for row in range(inside.y // self.segment.height, (inside.bottom - 1) // self.segment.height + 1):
            for column in range(inside.x // self.segment.width, (inside.right - 1) // self.segment.width + 1):
                index = row * self.columns + column
                if self.byte_counts[index]:
                    yield index

    def decode(self, index: int) -> Rgb:
        """Return uint8 RGB of segment `index`, at least as large as `rect(index)`.

        Raises: InputError `damaged_tile`, `damaged_image`, `truncated`; CapacityError.
        """
        damaged = Refusal.DAMAGED_TILE if self.tiled else Refusal.DAMAGED_IMAGE
        try:
            planes = [self._plane(index + plane * self.columns * self.rows) for plane in range(self.planes)]
            rgb = self.layout.to_rgb(planes[0] if self.planes == 1 else np.concatenate(planes, axis=2))
        except MemoryError as error:
            raise CapacityError("There is no memory to decode the scan.", code="out_of_memory") from error
        except (ValueError, LookupError, TypeError, ArithmeticError, RuntimeError) as error:
            raise refuse(damaged) from error
        wanted = self.rect(index)
        if rgb.shape[2] != 3 or rgb.shape[0] < wanted.height or rgb.shape[1] < wanted.width:
            raise refuse(damaged)
        return rgb

    def _plane(self, index: int) -> colour.Samples:
        stored = self.read_at(int(self.offsets[index]), int(self.byte_counts[index]))
        if len(stored) < self.byte_counts[index]:
            raise refuse(Refusal.TRUNCATED)
        self._check_stated_size(stored)
        if self.compression == _JPEG:
            decoded, _, _ = self.tifffile_decode(stored, index, jpegtables=self.jpeg_tables)
        else:
            decoded, _, _ = self.tifffile_decode(stored, index)
        if decoded is None:
            raise ValueError("no samples")
        samples: colour.Samples = decoded[0]
        return samples.astype(np.uint8) if samples.dtype == np.bool_ else samples

    def _check_stated_size(self, stored: bytes) -> None:
        if self.compression == _JPEG:
            stated = codestream.jpeg_size(stored)
        elif self.compression in (_JPEG2000, _APERIO_JPEG2000_RGB):
            stated = codestream.jpeg2000_size(stored)
        else:
            return
        if stated is None or stated.width > self.segment.width or stated.height > self.segment.height:
            raise ValueError("the segment claims to be larger than its place")


def check_stored(pages: list[tifffile.TiffPage], file_bytes: int) -> None:
    """Check that the data of every page, label and macro included, lies inside the file.

    Raises: InputError `truncated`.
    """
    for page in pages:
        offsets = np.asarray(page.dataoffsets, np.uint64)
        byte_counts = np.asarray(page.databytecounts, np.uint64)
        stored = byte_counts > 0
        if offsets.size != byte_counts.size:
            raise refuse(Refusal.DAMAGED_HEADER)
        if (byte_counts > file_bytes).any() or (offsets > file_bytes - byte_counts)[stored].any():
            raise refuse(Refusal.TRUNCATED)


def segments_of(page: tifffile.TiffPage, read_at: ReadAt, limits: DecodeLimits) -> Segments:
    """Return the segments of a page.

    Raises: InputError `empty_image`, `too_large`, `damaged_header`, `unsupported_format`.
    """
    size_lv = Size(page.imagewidth, page.imagelength)
    _check_kind(page)
    segment = _segment_size(page, size_lv)
    planes = page.samplesperpixel if page.planarconfig == _SEPARATE_PLANES else 1
    segments = Segments(
        size_lv=size_lv,
        tiled=page.is_tiled,
        segment=segment,
        layout=_layout(page),
        planes=planes,
        compression=int(page.compression),
        offsets=np.asarray(page.dataoffsets, np.uint64),
        byte_counts=np.asarray(page.databytecounts, np.uint64),
        jpeg_tables=page.jpegtables,
        tifffile_decode=page.decode,
        read_at=read_at,
    )
    _check_grid(segments, limits)
    _check_byte_counts(segments)
    return segments


def _check_kind(page: tifffile.TiffPage) -> None:
    if page.compression not in _READABLE:
        raise refuse_format(f"a TIFF with compression {int(page.compression)}")
    if page.sampleformat != _UNSIGNED or page.dtype is None:
        raise refuse_format("a TIFF whose samples are not whole positive numbers")
    if page.imagedepth != 1 or (page.is_tiled and page.tiledepth != 1):
        raise refuse_format("a TIFF volume")
    if page.photometric == YCBCR and page.compression != _JPEG:
        raise refuse_format("a TIFF with YCbCr colours outside JPEG")


def _segment_size(page: tifffile.TiffPage, size_lv: Size) -> Size:
    if size_lv.width <= 0 or size_lv.height <= 0:
        raise refuse(Refusal.EMPTY_IMAGE)
    if page.is_tiled:
        segment = Size(page.tilewidth, page.tilelength)
    else:
        segment = Size(size_lv.width, min(page.rowsperstrip, size_lv.height))
    if segment.width <= 0 or segment.height <= 0:
        raise refuse(Refusal.DAMAGED_HEADER)
    return segment


def _layout(page: tifffile.TiffPage) -> SampleLayout:
    palette = None
    if page.photometric == PALETTE:
        table = np.asarray(page.tags.valueof(_PALETTE_TAG), np.uint16).reshape(3, 2**page.bitspersample)
        palette = (table.T >> 8).astype(np.uint8)
    photometric, extra = int(page.photometric), tuple(int(sample) for sample in page.extrasamples)
    return SampleLayout(photometric, page.bitspersample, page.samplesperpixel, extra, palette)


def _check_grid(segments: Segments, limits: DecodeLimits) -> None:
    count = segments.columns * segments.rows
    if not segments.offsets.size == segments.byte_counts.size == count * segments.planes:
        raise refuse(Refusal.DAMAGED_HEADER)
    if segments.tiled:
        too_many = count > limits.max_tiles or segments.size_lv.area > limits.max_level0_pixels
        if too_many or segments.segment.area > limits.max_tile_pixels:
            raise refuse(Refusal.TOO_LARGE)


def _check_byte_counts(segments: Segments) -> None:
    layout = segments.layout
    raw_bytes = segments.segment.area * layout.count * max(1, layout.bits // 8)
    if segments.byte_counts.max() > 2 * raw_bytes + _SLACK_BYTES:
        raise refuse(Refusal.DAMAGED_HEADER)
