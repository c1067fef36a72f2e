"""What a manifest says of networks made to compute with bytes, and of the gate that let them or did not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.bundle.manifest_types import FileName


class Precision(StrEnum):
    """What a network's graph computes in."""

    FP32 = "fp32"
    INT8 = "int8"
    """with bytes where the accuracy gate let it, else as FP32"""


@dataclass(frozen=True, slots=True)
class GateFigure:
    """What the accuracy gate measured on the val split, such as (`cell_dice`, 0.931, 0.930)."""

    measure: str
    fp32: float
    int8: float


@dataclass(frozen=True, slots=True)
class Int8Entry:
    """What became of making int8 of a network: its file, or, where the gate refused it, none."""

    file: FileName | None
    sha256: str | None
    calibration: str
    """how the ranges of activations were found, such as `minmax`"""
    gate: tuple[GateFigure, ...]


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """A file of the bundle's folder that is asked for a network, and what it computes in."""

    file: str
    sha256: str
    precision: Precision
