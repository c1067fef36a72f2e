"""What a person names as a scan: a file, or pixels in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.model.errors import UsageError
from pipeline.model.ports import SlideReader
from pipeline.runtime.readers import DecodeLimits, open_slide
from pipeline.runtime.readers.array import FILE_FORMAT, read_array
from pipeline.runtime.readers.digests import digest_of, digest_of_pixels

ScanLike = str | os.PathLike[str] | NDArray[np.uint8]
"""the path of a file, or uint8 (H, W, 3) RGB"""


@dataclass(frozen=True, slots=True)
class ScanSource:
    """A scan that can be opened, as often as it is needed, and its name for people."""

    name: str
    opened: Callable[[], AbstractContextManager[SlideReader]]
    digest: Callable[[], str]


def scan_source(scan: ScanLike, mpp_um: float | None, limits: DecodeLimits) -> ScanSource:
    """Return the scan, not yet opened; `mpp_um` is the scale of an array in µm per pixel.

    Raises: UsageError, where there is no such file, the array is of another kind, or a scale comes with a
    file, which states its own.
    """
    if not isinstance(scan, str | os.PathLike):
        reader = read_array(scan, mpp_um)
        return ScanSource(
            FILE_FORMAT, lambda: nullcontext(reader), lambda: digest_of_pixels(scan, reader.meta.mpp)
        )
    if mpp_um is not None:
        raise UsageError("mpp_um is the scale of an array; a file states its own.", code="scale_of_file")
    path = Path(scan)
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", code="no_such_file")
    return ScanSource(str(path), lambda: open_slide(path, limits), lambda: digest_of(path))
