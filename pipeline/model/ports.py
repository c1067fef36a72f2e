"""What the pure pipeline asks of the outside. Every port has one contract suite in tests/contract/."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol, TypeVar

from pipeline.model.domain import Probabilities, Rgb, SlideMeta
from pipeline.model.geometry import Rect, Size

T = TypeVar("T")
R = TypeVar("R")


class SlideReader(Protocol):
    """An open scan. Reads may come from several threads at once."""

    @property
    def meta(self) -> SlideMeta: ...

    def read(self, level: int, rect_lv: Rect) -> Rgb:
        """Return uint8 (height, width, 3) RGB of `rect_lv` in pixels of `level`; white outside the scan.

        Raises: InputError, where the file is damaged there.
        """
        ...


class Segmenter(Protocol):
    """Tissue of cells: background, cytoplasm, nucleus."""

    @property
    def stride_px(self) -> int:
        """Heights and widths of a batch are multiples of this."""
        ...

    def segment(self, batch: Rgb) -> Probabilities:
        """Return float32 (N, 3, H, W), summing to 1 over axis 1, of a uint8 (N, H, W, 3) RGB batch.

        Axis 1 is background, cytoplasm, nucleus. Working frame: `PipelineSpec.working_mpp_um`.
        """
        ...


class Classifier(Protocol):
    """An ensemble: its members' opinions, not yet averaged."""

    @property
    def crop_px(self) -> Size:
        """Size of the crops that it takes."""
        ...

    @property
    def crop_mpp_um(self) -> float:
        """µm per pixel of the crops that it takes."""
        ...

    def classify(self, batch: Rgb) -> Probabilities:
        """Return float32 (M, N, L): members × crops × `taxonomy.LEAVES`, summing to 1 over axis 2."""
        ...


class Stage(StrEnum):
    """The stages of one analysis, in their order."""

    THUMBNAIL = "thumbnail"
    SCALE = "scale"
    CANDIDATES = "candidates"
    """a coarse look at a large scan; small ones do without"""
    TILES = "tiles"
    """read and segment and find, tile by tile, or window by window around candidates"""
    OUTLINE = "outline"
    """the outline of each cell, finer"""
    CLASSIFY = "classify"
    CONCLUDE = "conclude"


class Observer(Protocol):
    """Hears how far an analysis is. May raise to stop it, where the lease was lost."""

    def stage(self, stage: Stage) -> AbstractContextManager[None]:
        """Return a context that spans the stage."""
        ...

    def advanced(self, tiles_done: int, tiles_planned: int, cells_found: int) -> None: ...


class OrderedPool(Protocol):
    """Does several things of one analysis at once. What is asked of it does not ask it in turn."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield what the function answers to each item, in their order.

        Items are taken ahead of their answers, by a bounded number. What an item, or their source, raises
        comes after the answers to those before it.
        """
        ...

    def begin(self, function: Callable[[], T]) -> Callable[[], T]:
        """Return what gives the function's answer, or raises what it raised; it may be at work at once."""
        ...
