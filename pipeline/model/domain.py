"""The frozen records that pass from stage to stage. Nothing flows back; nothing here does any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pipeline.model.geometry import Mpp, Rect, Size, WorkingFrame
from pipeline.model.taxonomy import CellClass, Denominator

Rgb = NDArray[np.uint8]
"""uint8 (H, W, 3), red green blue."""
Probabilities = NDArray[np.float32]
Contour = NDArray[np.float32]
"""float32 (N, 2), (x, y), a closed polygon without a repeated last point; its variable names the frame."""


@dataclass(frozen=True, slots=True)
class RunKey:
    """The idempotency key of an analysis: same key, same answer. Hex sha256 digests."""

    scan_digest: str
    bundle_digest: str
    spec_digest: str


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid; `downsample` is level-0 pixels per pixel of this level."""

    size_lv: Size
    downsample: float


@dataclass(frozen=True, slots=True)
class SlideMeta:
    """What the file says about itself."""

    size_px0: Size
    mpp: Mpp | None
    """None where the file does not say, or says nonsense"""
    objective: float | None
    scanner: str | None
    file_format: str
    """`jpeg`, `png`, `bmp`, `tiff`, `aperio-svs`; `array` where there is no file"""
    levels: tuple[Level, ...]
    """level 0 first, each smaller than the one before"""


class ScaleSource(StrEnum):
    """Where the scale of an analysis came from."""

    FILE = "file"
    RED_CELLS = "red_cells"
    """estimated: the median red cell of the scan taken as 7.5 µm across"""
    LEUKOCYTES = "leukocytes"
    """estimated from the size of the leukocytes that were found"""
    ASSUMED = "assumed"
    """nothing to measure: the default of the spec"""


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale in use, and where it came from."""

    mpp: Mpp
    source: ScaleSource


@dataclass(frozen=True, slots=True)
class TileSpec:
    """One tile of the working frame: the core that it answers for, and the core with its halo."""

    index: int
    core_px: Rect
    halo_px: Rect


@dataclass(frozen=True, slots=True)
class Tile:
    """Pixels of `spec.halo_px`; outside the scan they are white (255)."""

    spec: TileSpec
    pixels: Rgb


@dataclass(frozen=True, slots=True)
class CellInstance:
    """One found cell, in level-0 pixels of its scan."""

    bbox_px0: Rect
    centroid_px0: tuple[float, float]
    contour_px0: Contour
    nucleus_contours_px0: tuple[Contour, ...]
    area_px0: float
    nucleus_area_px0: float
    area_um2: float
    nucleus_area_um2: float
    score: float
    """mean probability (cytoplasm or nucleus) inside the outline, 0 to 1"""
    touches_edge: bool
    """cut by the edge of the scan"""


class CallStatus(StrEnum):
    """What became of a found cell. Each has exactly one."""

    ACCEPTED = "accepted"
    UNIDENTIFIED = "unidentified"
    """a cell, but the ensemble is unsure or its members disagree"""
    ARTEFACT = "artefact"
    """not a nucleated cell: debris, a red cell, a smudge"""


@dataclass(frozen=True, slots=True)
class CellCall:
    """The ensemble's answer for one cell."""

    cell_class: CellClass
    """a leaf where sure, else its parent; the best guess where unidentified"""
    status: CallStatus
    probability: float
    """of `cell_class`"""
    probabilities: Mapping[CellClass, float]
    """mean over the members, by leaf; sums to 1"""
    disagreement: float
    """mean total-variation distance of the members from their mean, 0 to 1"""


@dataclass(frozen=True, slots=True)
class Cell:
    """A found cell with its call."""

    instance: CellInstance
    call: CellCall


@dataclass(frozen=True, slots=True)
class ClassCount:
    """One line of a differential."""

    cell_class: CellClass
    count: int
    percent: float | None
    """of the denominator; None where the class has none or nothing was counted"""
    ci95_percent: tuple[float, float] | None
    """Wilson 95 % interval; None where `percent` is None, or is a ratio and not a proportion"""
    denominator: Denominator


@dataclass(frozen=True, slots=True)
class Differential:
    """Counts of accepted calls. n = number of accepted leukocytes; every cell found is in one count."""

    n_leukocytes: int
    n_unidentified: int
    n_artefacts: int
    n_found: int
    classes: tuple[ClassCount, ...]


class Flag(StrEnum):
    """What a morphologist has to know before reading the numbers."""

    TOO_FEW_CELLS = "too_few_cells"
    BLASTS_SEEN = "blasts_seen"
    LEFT_SHIFT = "left_shift"
    ERYTHROBLASTS_SEEN = "erythroblasts_seen"
    MANY_UNIDENTIFIED = "many_unidentified"
    POOR_FOCUS = "poor_focus"
    POOR_STAIN = "poor_stain"
    SCALE_ESTIMATED = "scale_estimated"
    SCALE_ASSUMED = "scale_assumed"


class SlideStatus(StrEnum):
    """Whether the differential may be read. All three are results, none is an error."""

    REPORTABLE = "reportable"
    INSUFFICIENT = "insufficient"
    """too few cells for a differential; what was found is listed"""
    REJECTED = "rejected"
    """nothing that may be counted: empty glass, no focus, no monolayer; not pooled with other scans"""


@dataclass(frozen=True, slots=True)
class Quality:
    """Fractions are 0 to 1; focus is the variance of the Laplacian over the squared contrast, times 10⁴."""

    tissue_fraction: float
    focus: float
    stain_contrast: float
    free_red_cells_per_mm2: float
    """on the sample; a monolayer shows hundreds, a tissue section or the thick part of a smear none"""


@dataclass(frozen=True, slots=True)
class TileCounts:
    """Count in, count out: planned = empty + analysed."""

    planned: int
    empty: int
    analysed: int


@dataclass(frozen=True, slots=True)
class SlideAnalysis:
    """What `analyse_slide` returns: everything but the provenance, which only the caller knows."""

    meta: SlideMeta
    scale: Scale
    frame: WorkingFrame
    quality: Quality
    tiles: TileCounts
    cells: tuple[Cell, ...]
    """in reading order: by centroid, top to bottom, then left to right"""
    differential: Differential
    status: SlideStatus
    reasons: tuple[str, ...]
    """why it is not reportable; a sentence each"""
    flags: tuple[Flag, ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a result was made from and with."""

    run_key: RunKey
    bundle_name: str
    engine: str
    """name and version of what ran the networks"""
    software_version: str
    timings_s: tuple[tuple[str, float], ...]
    """seconds by stage, in order of the stages"""


@dataclass(frozen=True, slots=True)
class SlideResult:
    """An analysis with its provenance: what is saved, printed, drawn."""

    analysis: SlideAnalysis
    provenance: Provenance
