"""The frozen records that the stages pass on."""

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
    """The metadata of a scan file."""

    size_px0: Size
    mpp: Mpp | None
    """None if the file does not state it, or states an implausible value"""
    objective: float | None
    scanner: str | None
    file_format: str
    """`jpeg`, `png`, `bmp`, `tiff`, `aperio-svs`; `array` where there is no file"""
    levels: tuple[Level, ...]
    """level 0 first, in decreasing size"""


class ScaleSource(StrEnum):
    """The source of the scale of an analysis."""

    FILE = "file"
    RED_CELLS = "red_cells"
    """estimated from red cells, whose median diameter is taken as 7.5 µm"""
    LEUKOCYTES = "leukocytes"
    """estimated from the size of the leukocytes"""
    ASSUMED = "assumed"
    """the default of the spec, as there was nothing to measure"""


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale in use, and its source."""

    mpp: Mpp
    source: ScaleSource


@dataclass(frozen=True, slots=True)
class TileSpec:
    """One tile of the working frame: the core whose cells it reports, and the core with its halo."""

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
    """A detected cell, in level-0 pixels of its scan."""

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
    """The status of a detected cell."""

    ACCEPTED = "accepted"
    UNIDENTIFIED = "unidentified"
    """a cell whose class is uncertain, or on which the ensemble disagrees"""
    ARTEFACT = "artefact"
    """not a nucleated cell: debris, a red cell, a smudge"""


@dataclass(frozen=True, slots=True)
class CellCall:
    """The classification of one cell by the ensemble."""

    cell_class: CellClass
    """a leaf if certain, else its parent; the most probable class if unidentified"""
    status: CallStatus
    probability: float
    """of `cell_class`"""
    probabilities: Mapping[CellClass, float]
    """mean over the members, by leaf; sums to 1"""
    disagreement: float
    """mean total-variation distance of the members from their mean, 0 to 1"""


@dataclass(frozen=True, slots=True)
class Cell:
    """A detected cell with its classification."""

    instance: CellInstance
    call: CellCall


@dataclass(frozen=True, slots=True)
class ClassCount:
    """One line of a differential."""

    cell_class: CellClass
    count: int
    percent: float | None
    """of the denominator; None if the class has none or nothing was counted"""
    ci95_percent: tuple[float, float] | None
    """Wilson 95 % interval; None if `percent` is None or is not a proportion"""
    denominator: Denominator


@dataclass(frozen=True, slots=True)
class Differential:
    """The counts of accepted cells; `n_leukocytes` is the denominator.

    Every detected cell is counted once.
    """

    n_leukocytes: int
    n_unidentified: int
    n_artefacts: int
    n_found: int
    classes: tuple[ClassCount, ...]


class Flag(StrEnum):
    """A warning for the morphologist who reads the result."""

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
    """Whether the differential may be used. All three are results, not errors."""

    REPORTABLE = "reportable"
    INSUFFICIENT = "insufficient"
    """too few cells for a differential; those detected are listed"""
    REJECTED = "rejected"
    """not countable: empty glass, out of focus or no monolayer; not pooled with other scans"""


@dataclass(frozen=True, slots=True)
class Quality:
    """Fractions are 0 to 1; focus is the variance of the Laplacian over the squared contrast, times 10⁴."""

    tissue_fraction: float
    focus: float
    stain_contrast: float
    free_red_cells_per_mm2: float
    """hundreds in a monolayer; none in a tissue section or the thick part of a smear"""


@dataclass(frozen=True, slots=True)
class TileCounts:
    """The number of tiles: planned = empty + analysed."""

    planned: int
    empty: int
    analysed: int


@dataclass(frozen=True, slots=True)
class SlideAnalysis:
    """The result of `analyse_slide`. The caller adds the provenance."""

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
    """why it is not reportable, in sentences"""
    flags: tuple[Flag, ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """The inputs and software versions of a result."""

    run_key: RunKey
    bundle_name: str
    engine: str
    """name and version of the engine that ran the networks"""
    software_version: str
    timings_s: tuple[tuple[str, float], ...]
    """seconds by stage, in order of the stages"""


@dataclass(frozen=True, slots=True)
class SlideResult:
    """An analysis with its provenance."""

    analysis: SlideAnalysis
    provenance: Provenance
