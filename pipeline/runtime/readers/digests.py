"""The digest that a scan is known by."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from pipeline.model.domain import Rgb
from pipeline.model.geometry import Mpp

CHUNK_BYTES = 1 << 20


def digest_of(path: Path) -> str:
    """Return the hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of_pixels(pixels: Rgb, mpp: Mpp | None) -> str:
    """Return the hex sha256 of pixels (H, W, 3) with their size and scale, on which a result depends too."""
    height, width, _ = pixels.shape
    scale = "unknown" if mpp is None else repr(mpp.um_per_px0)
    digest = hashlib.sha256(f"uint8 RGB {width} x {height}, {scale} um\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
