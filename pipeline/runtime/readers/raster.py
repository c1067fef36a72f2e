"""Reads images that are decoded completely into memory.

Level 0 is the image as stored. EXIF orientation is not applied, so that pixel coordinates in results are
those of the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import IO

import numpy as np
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin

from pipeline.model.domain import Level, Rgb, SlideMeta
from pipeline.model.errors import CapacityError, InputError, TransientError
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.runtime.readers import codestream, colour, resolution
from pipeline.runtime.readers.limits import DecodeLimits
from pipeline.runtime.readers.refusals import Refusal, refuse
from pipeline.runtime.readers.sniff import Container

_PLUGINS: dict[Container, Callable[[IO[bytes]], Image.Image]] = {
    Container.JPEG: JpegImagePlugin.JpegImageFile,
    Container.PNG: PngImagePlugin.PngImageFile,
    Container.BMP: BmpImagePlugin.BmpImageFile,
}
_JFIF_UNITS_UM = {1: resolution.UM_PER_INCH, 2: resolution.UM_PER_CM}
_HEAD_BYTES = 1 << 16
_BMP_CORE_HEADER_BYTES = 12
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I")


class RasterReader:
    """A scan in memory, with one level. Implements `ports.SlideReader`."""

    def __init__(self, pixels: Rgb, meta: SlideMeta) -> None:
        self._pixels = pixels
        self._meta = meta

    @property
    def meta(self) -> SlideMeta:
        return self._meta

    def read(self, level: int, rect_lv: Rect) -> Rgb:
        """Return uint8 (height, width, 3) RGB of `rect_lv`; white outside the scan."""
        if level != 0:
            raise ValueError(f"no level {level}")
        size = self._meta.size_px0
        inside = rect_lv.intersection(Rect(0, 0, size.width, size.height))
        out = np.full((max(0, rect_lv.height), max(0, rect_lv.width), 3), 255, np.uint8)
        if inside.area:
            x, y = inside.x - rect_lv.x, inside.y - rect_lv.y
            source = self._pixels[inside.y : inside.bottom, inside.x : inside.right]
            out[y : y + inside.height, x : x + inside.width] = source
        return out


def single_level(size_px0: Size) -> tuple[Level, ...]:
    """Return the only level of a scan without a pyramid."""
    return (Level(size_px0, 1.0),)


def check_whole(size_px0: Size, file_bytes: int, limits: DecodeLimits) -> None:
    """Check that an image of this size may be decoded completely.

    Raises: InputError `empty_image`, `too_large`.
    """
    if size_px0.width <= 0 or size_px0.height <= 0:
        raise refuse(Refusal.EMPTY_IMAGE)
    if size_px0.area > limits.max_pixels or file_bytes > limits.max_whole_bytes:
        raise refuse(
            Refusal.TOO_LARGE,
            f"The image has {size_px0.width} × {size_px0.height} pixels in one piece, more than the "
            f"{limits.max_pixels // 10**6} million that are decoded at once: export it as a tiled TIFF.",
        )


def read_raster(file: IO[bytes], container: Container, file_bytes: int, limits: DecodeLimits) -> RasterReader:
    """Return the decoded scan; its size is checked before a pixel is decoded.

    Raises: InputError; CapacityError, where it does not fit into memory.
    """
    _check_stated_size(file, container)
    try:
        with _PLUGINS[container](file) as image:
            size_px0 = Size(*image.size)
            check_whole(size_px0, file_bytes, limits)
            meta = SlideMeta(
                size_px0=size_px0,
                mpp=_mpp(image, container),
                objective=None,
                scanner=None,
                file_format=container.value,
                levels=single_level(size_px0),
            )
            return RasterReader(_rgb(image), meta)
    except MemoryError as error:
        raise CapacityError("There is no memory to decode the image.", code="out_of_memory") from error
    except OSError as error:
        raise _translated(error) from error
    except (SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError) as error:
        raise refuse(Refusal.DAMAGED_IMAGE) from error
    except (struct.error, zlib.error, AttributeError, RuntimeError) as error:
        raise refuse(Refusal.DAMAGED_IMAGE) from error


def _check_stated_size(file: IO[bytes], container: Container) -> None:
    """Reject sizes of 0, which Pillow would report as another format."""
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    stated: Size | None = None
    if container is Container.JPEG:
        stated = codestream.jpeg_size(head)
    elif container is Container.PNG and len(head) >= 24:
        stated = Size(*struct.unpack_from(">II", head, 16))
    elif container is Container.BMP and len(head) >= 26:
        short = head[14] == _BMP_CORE_HEADER_BYTES
        stated = Size(*struct.unpack_from("<HH" if short else "<ii", head, 18))
    if stated is not None and not stated.area:
        raise refuse(Refusal.EMPTY_IMAGE)


def _translated(error: OSError) -> InputError | TransientError:
    if error.errno is not None:
        return TransientError("The spooled scan could not be read from disk.", code="spool_unreadable")
    cut_short = "truncated" in str(error) or "too short" in str(error).lower()
    return refuse(Refusal.TRUNCATED if cut_short else Refusal.DAMAGED_IMAGE)


def _mpp(image: Image.Image, container: Container) -> Mpp | None:
    if container is Container.JPEG:
        unit_um = _JFIF_UNITS_UM.get(image.info.get("jfif_unit", 0))
        density = image.info.get("jfif_density")
    else:  # Pillow turns pixels per metre into dots per inch
        unit_um, density = resolution.UM_PER_INCH, image.info.get("dpi")
    if unit_um is None or density is None:
        return None
    return resolution.from_density(float(density[0]), float(density[1]), unit_um)


def _rgb(image: Image.Image) -> Rgb:
    if image.mode in _SIXTEEN_BIT_MODES:
        grey = np.asarray(image).astype(np.uint16)[..., np.newaxis]
        return colour.grey_to_rgb(colour.to_8_bit(grey, 16))
    if image.mode == "CMYK":
        return colour.cmyk_to_rgb(np.asarray(image))
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return colour.on_white(rgba[..., :3], rgba[..., 3:])
    return np.asarray(image.convert("RGB"))
