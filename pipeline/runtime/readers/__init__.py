"""Readers for all scan formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.model.errors import TransientError
from pipeline.model.ports import SlideReader
from pipeline.runtime.readers.limits import DecodeLimits
from pipeline.runtime.readers.raster import read_raster
from pipeline.runtime.readers.refusals import Refusal, refuse
from pipeline.runtime.readers.sniff import HEAD_BYTES, Container, container_of
from pipeline.runtime.readers.tiff import read_tiff

__all__ = ["DecodeLimits", "Refusal", "open_slide"]

_DEFAULT_LIMITS = DecodeLimits()


@contextmanager
def open_slide(path: Path, limits: DecodeLimits = _DEFAULT_LIMITS) -> Iterator[SlideReader]:
    """Return a context with the open scan; its format is detected from the content, not the name.

    Level 0 is the image as stored: EXIF and TIFF orientation are not applied. 16-bit samples keep their upper
    byte; grey, palette, CMYK and bilevel become RGB; transparency is blended with white.

    Raises: InputError, with a code of `Refusal`; CapacityError, where an image does not fit into memory;
    TransientError, where the disk fails.
    """
    if not path.is_file():
        raise refuse(Refusal.NOT_A_FILE)
    try:
        file = path.open("rb")
    except OSError as error:
        raise TransientError("The spooled scan could not be opened.", code="spool_unreadable") from error
    with file:
        head = file.read(HEAD_BYTES)
        file_bytes = path.stat().st_size
        container = container_of(head)
        if file_bytes > limits.max_file_bytes:
            raise refuse(Refusal.TOO_LARGE)
        file.seek(0)
        if container is Container.TIFF:
            with read_tiff(file, file_bytes, limits) as reader:
                yield reader
        else:
            yield read_raster(file, container, file_bytes, limits)
