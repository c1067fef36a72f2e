"""Bytes of pictures, good and bad, made here."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

from pipeline.model.geometry import Rect
from pipeline.synth.plan import field_specs
from pipeline.synth.smear import draw_smear


@cache
def field_jpeg(seed: int) -> bytes:
    """A drawn field of 640×480 px with one to three leukocytes."""
    (spec,) = field_specs(seed, 1)
    size = spec.size_px0
    return encoded(draw_smear(spec).read(Rect(0, 0, size.width, size.height)), "JPEG")


def encoded(pixels: np.ndarray, file_format: str, mode: str | None = None) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, file_format)
    return buffer.getvalue()


def png_bomb(side_px: int = 60_000) -> bytes:
    """A PNG that claims side × side pixels in a few hundred kB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + b"\xff" * (side_px // 8)
    packed = zlib.compress(row * side_px, 9)
    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
