"""Batch shapes and optimisation profiles: the batches that a plan accepts, and the one it is tuned for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.model.geometry import Size

CHANNELS = 3


class PlanPrecision(StrEnum):
    """The number format of a plan. The graph decides it, before the plan is built."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class BatchShape:
    """The shape of a uint8 (N, H, W, 3) batch."""

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
    """The smallest, the optimum and the largest batch of a plan: TensorRT's kMIN, kOPT and kMAX."""

    minimum: BatchShape
    optimum: BatchShape
    maximum: BatchShape

    def __post_init__(self) -> None:
        rows = zip(self.minimum.axes, self.optimum.axes, self.maximum.axes, strict=True)
        if not all(1 <= minimum <= optimum <= maximum for minimum, optimum, maximum in rows):
            raise ValueError(f"minimum, optimum and maximum are not in order: {self}")

    def accepts(self, axes: tuple[int, ...]) -> bool:
        """Return whether a batch of the shape `axes` lies within the profile."""
        if len(axes) != len(self.minimum.axes):
            return False
        rows = zip(self.minimum.axes, axes, self.maximum.axes, strict=True)
        return all(minimum <= axis <= maximum for minimum, axis, maximum in rows)

    def __str__(self) -> str:
        return f"{self.minimum}..{self.optimum}..{self.maximum}"


def squares(side_px: int, optimum: int, maximum: int) -> ShapeProfile:
    """Return the profile of 1 to `maximum` crops of `side_px`, tuned for `optimum`."""
    size_px = Size(side_px, side_px)
    return ShapeProfile(BatchShape(1, size_px), BatchShape(optimum, size_px), BatchShape(maximum, size_px))
