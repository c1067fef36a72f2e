"""What an optimisation profile promises: which batches a plan takes, and at which it is fast."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.model.geometry import Size

CHANNELS = 3


class Precision(StrEnum):
    """What a plan computes in. It is decided in the graph, before the plan is built."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class BatchShape:
    """Of a uint8 (N, H, W, 3) batch."""

    count: int
    size_px: Size

    @property
    def axes(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3)"""
        return (self.count, self.size_px.height, self.size_px.width, CHANNELS)

    def __str__(self) -> str:
        return f"{self.count}x{self.size_px.height}x{self.size_px.width}"


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """The smallest, the usual and the largest batch of a plan."""

    least: BatchShape
    usual: BatchShape
    most: BatchShape

    def __post_init__(self) -> None:
        rows = zip(self.least.axes, self.usual.axes, self.most.axes, strict=True)
        if not all(1 <= least <= usual <= most for least, usual, most in rows):
            raise ValueError(f"no profile: {self}")

    def takes(self, axes: tuple[int, ...]) -> bool:
        """Return whether a batch of the shape `axes` lies within the profile."""
        if len(axes) != len(self.least.axes):
            return False
        rows = zip(self.least.axes, axes, self.most.axes, strict=True)
        return all(least <= axis <= most for least, axis, most in rows)

    def __str__(self) -> str:
        return f"{self.least}..{self.usual}..{self.most}"


def squares(side_px: int, usual: int, most: int) -> ShapeProfile:
    """Return the profile of 1 to `most` crops of `side_px`, fast at `usual`."""
    size_px = Size(side_px, side_px)
    return ShapeProfile(BatchShape(1, size_px), BatchShape(usual, size_px), BatchShape(most, size_px))
