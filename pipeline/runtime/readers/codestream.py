"""Reads the size from the header of a compressed tile, before a decoder allocates memory for it."""

from __future__ import annotations

from pipeline.model.geometry import Size

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_J2K_SIZE = b"\xff\x4f\xff\x51"


def jpeg_size(stream: bytes) -> Size | None:
    """Return the size in the first frame header of a JPEG stream, or None if there is none."""
    at = 2
    while at + 9 <= len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _STANDALONE:
            at += 2
        elif marker in _FRAME_HEADERS:
            return Size(_big(stream, at + 7, 2), _big(stream, at + 5, 2))
        else:
            at += 2 + _big(stream, at + 2, 2)
    return None


def jpeg2000_size(stream: bytes) -> Size | None:
    """Return the size in the SIZ marker of a JPEG 2000 stream, or None if there is none."""
    at = stream.find(_J2K_SIZE)
    if at < 0 or at + 24 > len(stream):
        return None
    right, bottom, left, top = (_big(stream, at + 8 + 4 * index, 4) for index in range(4))
    return Size(right - left, bottom - top)


def _big(stream: bytes, at: int, length: int) -> int:
    return int.from_bytes(stream[at : at + length], "big")
