"""The interfaces between the pure pipeline and its adapters. tests/contract/ has a test suite for each."""

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
    """An open scan. Several threads may read at once."""

    @property
    def meta(self) -> SlideMeta: ...

    def read(self, level: int, rect_lv: Rect) -> Rgb:
        """Return uint8 (height, width, 3) RGB of `rect_lv` in pixels of `level`; white outside the scan.

        Raises: InputError, where the file is damaged there.
        """
        ...


class Segmenter(Protocol):
    """Segments pictures into background, cytoplasm and nucleus."""

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
    """An ensemble that returns the output of each member."""

    @property
    def crop_px(self) -> Size:
        """Size of its input crops."""
        ...

    @property
    def crop_mpp_um(self) -> float:
        """µm per pixel of its input crops."""
        ...

    def classify(self, batch: Rgb) -> Probabilities:
        """Return float32 (M, N, L): members × crops × `taxonomy.LEAVES`, summing to 1 over axis 2."""
        ...


class Stage(StrEnum):
    """The stages of one analysis, in their order."""

    THUMBNAIL = "thumbnail"
    SCALE = "scale"
    CANDIDATES = "candidates"
    """the coarse search of a large scan; small scans skip it"""
    TILES = "tiles"
    """segmentation of tiles, or of windows around candidates"""
    OUTLINE = "outline"
    """refinement of the outlines"""
    CLASSIFY = "classify"
    CONCLUDE = "conclude"


class Observer(Protocol):
    """Receives the progress of an analysis, and may raise to stop it."""

    def stage(self, stage: Stage) -> AbstractContextManager[None]:
        """Return a context around the stage."""
        ...

    def advanced(self, tiles_done: int, tiles_planned: int, cells_found: int) -> None: ...


class OrderedPool(Protocol):
    """Runs several calls of one analysis at once. The calls must not use the pool themselves."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the result of the function for each item, in order.

        A bounded number of items is started ahead. An error is raised in its place, after the results before
        it.
        """
        ...

    def begin(self, function: Callable[[], T]) -> Callable[[], T]:
        """Start the call; return a function that waits for its result, or raises its error."""
        ...
