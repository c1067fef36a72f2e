"""Tiles of the working frame: cores that cover the scan once, and halos that give context."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.model.domain import TileSpec
from pipeline.model.geometry import EIGHTHS, Rect, Size


def tile_grid(size_px: Size, core_px: int, halo_px: int, stride_px: int) -> tuple[TileSpec, ...]:
    """Return the tiles in reading order. Their cores partition the frame of `size_px`.

    A frame smaller than a core gets one tile of its own size: a small picture is not padded to a tile.
    Widths and heights with halo are multiples of `stride_px`. The area outside the scan is white; halos
    extend into it by at most one stride.

    Raises: ValueError, where core or halo is not a multiple of the stride, or the stride not a multiple of 8.
    """
    if stride_px % EIGHTHS or core_px % stride_px or halo_px % stride_px:
        raise ValueError(
            f"core {core_px} px and halo {halo_px} px must be multiples of {stride_px} px, and that of 8"
        )
    step = stride_px
    visible = visible_px(size_px, step)
    cores = [
        Rect(x, y, width, height)
        for y, height in _edges(size_px.height, core_px, step)
        for x, width in _edges(size_px.width, core_px, step)
    ]
    return tuple(
        TileSpec(index, core, core.grown(halo_px).intersection(visible)) for index, core in enumerate(cores)
    )


def visible_px(size_px: Size, stride_px: int) -> Rect:
    """Return the area that tiles may show:

    the frame rounded up to whole strides, and one stride around it.
    """
    width, height = (-(-length // stride_px) * stride_px for length in (size_px.width, size_px.height))
    return Rect(0, 0, width, height).grown(stride_px)


def _edges(length_px: int, core_px: int, step_px: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length_px, core_px):
        rest = length_px - start
        yield start, core_px if rest >= core_px else -(-rest // step_px) * step_px
