"""Splits a large read of a scan into parallel reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.model.domain import Rgb, SlideMeta
from pipeline.model.geometry import Rect
from pipeline.model.ports import OrderedPool, SlideReader

STRIP_LV = 512
"""Strips end at multiples of this many rows, as tiles of 128, 256 and 512 px do: no tile is decoded twice."""


@dataclass(frozen=True, slots=True)
class StripReader:
    """A `ports.SlideReader` that reads strips in parallel; the pixels are the same.

    Calls in the pool must not use it: see `ports.OrderedPool`.
    """

    reader: SlideReader
    pool: OrderedPool

    @property
    def meta(self) -> SlideMeta:
        return self.reader.meta

    def read(self, level: int, rect_lv: Rect) -> Rgb:
        """Return uint8 (height, width, 3) RGB of `rect_lv`: see `ports.SlideReader`."""
        strips = list(_strips(rect_lv))
        if len(strips) < 2:  # avoids a copy
            return self.reader.read(level, rect_lv)
        return np.concatenate(list(self.pool.map(lambda strip: self.reader.read(level, strip), strips)))


def _strips(rect_lv: Rect) -> Iterator[Rect]:
    top = rect_lv.y
    while top < rect_lv.bottom:
        bottom = min(rect_lv.bottom, (top // STRIP_LV + 1) * STRIP_LV)
        yield Rect(rect_lv.x, top, rect_lv.width, bottom - top)
        top = bottom
