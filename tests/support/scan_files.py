"""Scans in every format that is read, each written with the pixels that a full decode must give."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from pipeline.model.domain import Rgb
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.model.ports import SlideReader
from pipeline.runtime.readers import DecodeLimits, open_slide
from pipeline.runtime.readers.array import read_array
from pipeline.synth.tiff_writer import write_pyramid

WIDTH, HEIGHT = 203, 149
"""no multiple of any tile"""


def smooth_rgb(width: int = WIDTH, height: int = HEIGHT) -> Rgb:
    """Return a picture with gradients and an edge, different in each channel."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = rows * 255 // height
    green = columns * 255 // width
    blue = np.where((rows // 16 + columns // 16) % 2, 220, 30)
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


@dataclass(frozen=True)
class ScanFile:
    """A file and what a full decode of it gives."""

    path: Path
    expected: Rgb
    file_format: str
    lossless: bool = True
    """the expected pixels are those that were put in, not those of another decoder"""

    def open(self, limits: DecodeLimits | None = None) -> AbstractContextManager[SlideReader]:
        return open_slide(self.path, limits or DecodeLimits())


class ArrayScan(ScanFile):
    """Pixels in memory, which no file holds."""

    def open(self, limits: DecodeLimits | None = None) -> AbstractContextManager[SlideReader]:  # noqa: ARG002
        return nullcontext(read_array(self.expected))


Make = Callable[[Path], ScanFile]


def png(path: Path) -> ScanFile:
    Image.fromarray(smooth_rgb()).save(path, "PNG", dpi=(254_000, 254_000))
    return ScanFile(path, smooth_rgb(), "png")


def png_grey_16(path: Path) -> ScanFile:
    grey = smooth_rgb()[..., 0].astype(np.uint16) * 256 + 77
    Image.fromarray(grey).save(path, "PNG")
    return ScanFile(path, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2), "png")


def png_rgba(path: Path) -> ScanFile:
    rgba = np.dstack([smooth_rgb(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    rgba[:40, :, 3] = 0
    rgba[40:60, :, 3] = 128
    Image.fromarray(rgba).save(path, "PNG")
    expected = smooth_rgb().astype(float)
    alpha = rgba[..., 3:].astype(float) / 255
    return ScanFile(path, np.rint(expected * alpha + 255 * (1 - alpha)).astype(np.uint8), "png")


def png_palette(path: Path) -> ScanFile:
    indexed = Image.fromarray(smooth_rgb()).quantize(16)
    indexed.save(path, "PNG")
    return ScanFile(path, np.asarray(indexed.convert("RGB")), "png")


def png_bilevel(path: Path) -> ScanFile:
    bits = smooth_rgb()[..., 2] > 100
    Image.fromarray(bits).save(path, "PNG")
    return ScanFile(path, np.repeat((bits * 255).astype(np.uint8)[..., None], 3, 2), "png")


def bmp(path: Path) -> ScanFile:
    Image.fromarray(smooth_rgb()).save(path, "BMP")
    return ScanFile(path, smooth_rgb(), "bmp")


def jpeg(path: Path) -> ScanFile:
    Image.fromarray(smooth_rgb()).save(path, "JPEG", quality=90)
    return ScanFile(path, np.asarray(Image.open(path)), "jpeg", lossless=False)


def jpeg_grey(path: Path) -> ScanFile:
    Image.fromarray(smooth_rgb()[..., 0]).save(path, "JPEG", quality=90)
    return ScanFile(path, np.asarray(Image.open(path).convert("RGB")), "jpeg", lossless=False)


def jpeg_turned(path: Path) -> ScanFile:
    """With an EXIF orientation, which is not applied: results are in pixels of the file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth_rgb()).save(path, "JPEG", quality=90, exif=exif)
    return ScanFile(path, np.asarray(Image.open(path)), "jpeg", lossless=False)


def jpeg_cmyk(path: Path) -> ScanFile:
    Image.fromarray(smooth_rgb()).convert("CMYK").save(path, "JPEG", quality=100, subsampling=0)
    inks = 255 - np.asarray(Image.open(path)).astype(float)
    return ScanFile(
        path, np.rint(inks[..., :3] * inks[..., 3:] / 255).astype(np.uint8), "jpeg", lossless=False
    )


def _tiff(pixels: np.ndarray, expected: Rgb | None = None, **options: object) -> Make:
    def make(path: Path) -> ScanFile:
        tifffile.imwrite(path, pixels, metadata=None, **options)
        return ScanFile(path, smooth_rgb() if expected is None else expected, "tiff")

    return make


def _tiff_jpeg(**options: object) -> Make:
    def make(path: Path) -> ScanFile:
        tifffile.imwrite(path, smooth_rgb(), photometric="rgb", compression="jpeg", metadata=None, **options)
        return ScanFile(path, tifffile.imread(path), "tiff", lossless=False)

    return make


def pillow_jpeg_tables(path: Path) -> ScanFile:
    """libtiff's own JPEG: strips of YCbCr that share JPEGTables."""
    Image.fromarray(smooth_rgb()).save(path, "TIFF", compression="jpeg", quality=90)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].jpegtables
        return ScanFile(path, tiff.pages[0].asarray(), "tiff", lossless=False)


def pyramid(path: Path) -> ScanFile:
    picture = smooth_rgb(1500, 1100)

    def read(rect: Rect) -> Rgb:
        return picture[rect.y : rect.bottom, rect.x : rect.right]

    write_pyramid(path, Size(1500, 1100), read, Mpp(0.25))
    return ScanFile(path, tifffile.imread(path, key=0), "tiff", lossless=False)


def sub_ifd_pyramid(path: Path) -> ScanFile:
    picture = smooth_rgb(512, 384)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture, tile=(64, 64), photometric="rgb", subifds=1, metadata=None)
        tiff.write(picture[::2, ::2], tile=(64, 64), photometric="rgb", subfiletype=1, metadata=None)
    return ScanFile(path, picture, "tiff")


SVS_DESCRIPTION = (
    "Aperio Image Library v11.2.1\r\n46000x32914 |AppMag = 40|ScanScope ID = SS7|MPP = 0.2520|X = 1"
)


def svs(path: Path) -> ScanFile:
    """An SVS in small: base, thumbnail, one level, label, macro."""
    base = smooth_rgb(406, 298)
    tiles = {"tile": (48, 48), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(base, description=SVS_DESCRIPTION, **tiles)
        tiff.write(base[::4, ::4], photometric="rgb", description="Aperio thumbnail", metadata=None)
        tiff.write(base[::2, ::2], description="Aperio level", **tiles)
        tiff.write(smooth_rgb(90, 90), photometric="rgb", subfiletype=1, description="label", metadata=None)
        tiff.write(smooth_rgb(900, 300), photometric="rgb", subfiletype=9, description="macro", metadata=None)
    return ScanFile(path, tifffile.imread(path, key=0), "aperio-svs", lossless=False)


_GREY = smooth_rgb()[..., 0]
_GREY_RGB = np.repeat(_GREY[..., None], 3, 2)
_RGBA = np.dstack([smooth_rgb(), np.full((HEIGHT, WIDTH), 51, np.uint8)])
_INKS = np.dstack([255 - smooth_rgb(), np.full((HEIGHT, WIDTH), 25, np.uint8)])
_PALETTE = np.random.default_rng(3).integers(0, 65536, (3, 256), dtype=np.uint16)
_BITS = smooth_rgb()[..., 2] > 100
_BITS_RGB = np.repeat((_BITS * 255).astype(np.uint8)[..., None], 3, 2)


def array(path: Path) -> ScanFile:
    return ArrayScan(path, smooth_rgb(), "array")


FORMATS: dict[str, Make] = {
    "png": png,
    "png-grey-16": png_grey_16,
    "png-rgba": png_rgba,
    "png-palette": png_palette,
    "png-bilevel": png_bilevel,
    "bmp": bmp,
    "jpeg": jpeg,
    "jpeg-grey": jpeg_grey,
    "jpeg-turned": jpeg_turned,
    "jpeg-cmyk": jpeg_cmyk,
    "tiff-strips": _tiff(smooth_rgb(), photometric="rgb", rowsperstrip=16),
    "tiff-big": _tiff(smooth_rgb(), photometric="rgb", bigtiff=True, tile=(64, 64)),
    "tiff-big-endian": _tiff(smooth_rgb(), photometric="rgb", byteorder=">", tile=(64, 64)),
    "tiff-deflate": _tiff(smooth_rgb(), photometric="rgb", compression="deflate", predictor=True),
    "tiff-lzw": _tiff(smooth_rgb(), photometric="rgb", compression="lzw", tile=(32, 48), predictor=True),
    "tiff-packbits": _tiff(smooth_rgb(), photometric="rgb", compression="packbits"),
    "tiff-zstd": _tiff(smooth_rgb(), photometric="rgb", compression="zstd", tile=(64, 64)),
    "tiff-jpeg2000": _tiff(
        smooth_rgb(),
        photometric="rgb",
        compression="jpeg2000",
        tile=(64, 64),
        compressionargs={"reversible": True},
    ),
    "tiff-jpeg-tiles": _tiff_jpeg(tile=(64, 64), subsampling=(2, 2)),
    "tiff-jpeg-strips": _tiff_jpeg(rowsperstrip=32),
    "tiff-jpeg-tables": pillow_jpeg_tables,
    "tiff-planes": _tiff(
        np.moveaxis(smooth_rgb(), 2, 0).copy(), photometric="rgb", planarconfig="separate", tile=(64, 64)
    ),
    "tiff-grey": _tiff(_GREY, _GREY_RGB, photometric="minisblack", tile=(64, 64)),
    "tiff-white-is-zero": _tiff(255 - _GREY, _GREY_RGB, photometric="miniswhite"),
    "tiff-grey-16": _tiff(
        _GREY.astype(np.uint16) * 256 + 255, _GREY_RGB, photometric="minisblack", tile=(64, 64)
    ),
    "tiff-rgb-16": _tiff(smooth_rgb().astype(np.uint16) * 256 + 9, photometric="rgb", compression="deflate"),
    "tiff-bilevel": _tiff(_BITS, _BITS_RGB, photometric="minisblack"),
    "tiff-bilevel-tiles": _tiff(_BITS, _BITS_RGB, photometric="minisblack", tile=(64, 64)),
    "tiff-palette": _tiff(
        _GREY, (_PALETTE.T >> 8).astype(np.uint8)[_GREY], photometric="palette", colormap=_PALETTE
    ),
    "tiff-rgba": _tiff(
        _RGBA,
        np.rint(smooth_rgb() * 0.2 + 255 * 0.8).astype(np.uint8),
        photometric="rgb",
        extrasamples=["unassalpha"],
        tile=(64, 64),
    ),
    "tiff-premultiplied": _tiff(
        np.dstack([smooth_rgb() // 5, np.full((HEIGHT, WIDTH), 51, np.uint8)]),
        smooth_rgb() // 5 + 204,
        photometric="rgb",
        extrasamples=["assocalpha"],
    ),
    "tiff-cmyk": _tiff(
        _INKS, np.rint(smooth_rgb().astype(float) * 230 / 255).astype(np.uint8), photometric="separated"
    ),
    "tiff-pyramid": pyramid,
    "tiff-sub-ifds": sub_ifd_pyramid,
    "svs": svs,
}


def png_bytes(width: int, height: int, rows: bytes = b"") -> bytes:
    """Return a PNG whose header claims `width` × `height` of 1-bit grey, whatever `rows` hold."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text))
        for kind, text in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def tiff_bytes(**options: object) -> bytes:
    """Return a small TIFF."""
    file = io.BytesIO()
    tifffile.imwrite(file, smooth_rgb(), photometric="rgb", metadata=None, **options)
    return file.getvalue()


def with_tag(tiff: bytes, tag: int, value: int) -> bytes:
    """Return a little-endian classic TIFF whose first directory lies: `tag` (one number) is `value`."""
    directory = struct.unpack_from("<I", tiff, 4)[0]
    count = struct.unpack_from("<H", tiff, directory)[0]
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        if struct.unpack_from("<H", tiff, entry)[0] == tag:
            return tiff[: entry + 2] + struct.pack("<HII", 4, 1, value) + tiff[entry + 12 :]
    raise ValueError(f"no tag {tag}")
