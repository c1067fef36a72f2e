"""Detects the format of a file by its first bytes, never by its name."""

from __future__ import annotations

from enum import StrEnum

from pipeline.runtime.readers.refusals import Refusal, refuse, refuse_format

HEAD_BYTES = 256


class Container(StrEnum):
    """The supported file formats."""

    JPEG = "jpeg"
    PNG = "png"
    BMP = "bmp"
    TIFF = "tiff"


_SIGNATURES: tuple[tuple[bytes, Container], ...] = (
    (b"\xff\xd8\xff", Container.JPEG),
    (b"\x89PNG\r\n\x1a\n", Container.PNG),
    (b"II*\x00", Container.TIFF),
    (b"MM\x00*", Container.TIFF),
    (b"II+\x00", Container.TIFF),
    (b"MM\x00+", Container.TIFF),
)
_BMP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)
_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (128, b"DICM", "a DICOM file"),
    (0, b"GIF8", "a GIF picture"),
    (8, b"WEBP", "a WebP picture"),
    (4, b"ftyp", "a HEIF picture or a video"),
    (4, b"jP  \r\n", "a JPEG 2000 file"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 codestream"),
    (0, b"ZISRAWFILE", "a Zeiss CZI file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x89HDF", "an HDF5 file"),
)


def container_of(head: bytes) -> Container:
    """Return the format of a file that begins with `head`, its first 256 bytes or all it has.

    Raises: InputError `empty_file`, `not_an_image`, `unsupported_format`.
    """
    if not head:
        raise refuse(Refusal.EMPTY_FILE)
    for signature, container in _SIGNATURES:
        if head.startswith(signature):
            return container
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES:
        return Container.BMP
    for offset, signature, kind in _FOREIGN:
        if head[offset : offset + len(signature)] == signature:
            raise refuse_format(kind)
    raise refuse(Refusal.NOT_AN_IMAGE)
