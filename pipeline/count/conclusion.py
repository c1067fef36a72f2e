"""Concludes an analysis: differential, status with reasons, flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

from pipeline.count.differential import differential_of, wilson_interval
from pipeline.measure.scale import LEUKOCYTE_UM
from pipeline.model.domain import (
    CallStatus,
    Cell,
    Differential,
    Flag,
    Quality,
    Scale,
    ScaleSource,
    SlideStatus,
)
from pipeline.model.geometry import Size
from pipeline.model.spec import PipelineSpec
from pipeline.model.taxonomy import CellClass, group_of
from pipeline.model.wording import counted

MIN_TISSUE_FRACTION = 0.0005
"""Least stained area; one red cell on a 640×480 field has five times as much."""

MIN_FOCUS = 5.0
"""See `domain.Quality`. Nine in ten pictures of each set of the data pack are above 6. After a Gaussian blur
of 0.75 µm most are near this limit or below, except for chula_wbc because of its noise."""

MIN_FREE_RED_CELLS_PER_MM2 = 50.0
"""Monolayers have 500 and more; the thick part of a smear, where leukocytes cannot be classified, and other
specimens have none."""

MONOLAYER_NEEDED_FROM_CELLS = 20
"""Not counting platelets. With fewer, the scan is a field or a crop, which may contain no free red cell."""

MIN_STAIN_CONTRAST = 0.18
"""Contrast between glass and the darkest hundredth, relative to the full range; a nucleus has 0.4 to 0.7."""

MANY_UNIDENTIFIED_PERCENT = 15.0
"""Of the found leukocytes: where more have no accepted class, the differential is flagged."""

PROPORTION_FROM_CELLS = 20
"""Fewer say nothing of a proportion: Wilson's lower bound is 21 % for one of one. From 20 cells on, 2 to 6 %
of samples whose true proportion lies at a limit of 10 or 15 % are flagged (by the binomial distribution)."""

LEUKOCYTE_UM2 = pi * (LEUKOCYTE_UM / 2) ** 2
"""What one leukocyte covers."""

_SCALE_FLAGS = {
    ScaleSource.RED_CELLS: Flag.SCALE_ESTIMATED,
    ScaleSource.LEUKOCYTES: Flag.SCALE_ESTIMATED,
    ScaleSource.ASSUMED: Flag.SCALE_ASSUMED,
}


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a smear a scan shows."""

    size_px0: Size
    scale: Scale

    @property
    def area_um2(self) -> float:
        """The area of the scan in µm²."""
        return self.scale.mpp.to_um2(self.size_px0.area)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The differential of one scan, and whether it can be used."""

    differential: Differential
    status: SlideStatus
    reasons: tuple[str, ...]
    flags: tuple[Flag, ...]


def conclude(cells: Sequence[Cell], quality: Quality, extent: Extent, spec: PipelineSpec) -> Conclusion:
    """Return differential, status and flags. Few cells and poor stain are results, not errors."""
    differential = differential_of(cell.call for cell in cells)
    rejection = _rejection(cells, differential, quality)
    reason = rejection or _too_few_reason(cells, differential.n_leukocytes, extent, spec)
    flags_of = _finding_flags if _is_small(extent, spec) else differential_flags
    flags = (*_quality_flags(quality, extent.scale.source), *flags_of(differential, spec))
    return Conclusion(differential, _status(rejection, reason), (reason,) if reason else (), flags)


def _status(rejection: str | None, reason: str | None) -> SlideStatus:
    if rejection:
        return SlideStatus.REJECTED
    return SlideStatus.INSUFFICIENT if reason else SlideStatus.REPORTABLE


def _rejection(cells: Sequence[Cell], differential: Differential, quality: Quality) -> str | None:
    if quality.tissue_fraction < MIN_TISSUE_FRACTION:
        return "Nothing stained was found: the scan shows empty glass."
    if differential.n_found == 0 and quality.focus < MIN_FOCUS:
        return "No cell was found and the scan is out of focus: scan it again."
    nucleated = sum(not _is_platelet(cell) for cell in cells)
    crowded = nucleated >= MONOLAYER_NEEDED_FROM_CELLS
    if crowded and quality.free_red_cells_per_mm2 < MIN_FREE_RED_CELLS_PER_MM2:
        return (
            "No monolayer: red cells do not lie free beside the leukocytes. Scan another part of the smear, "
            "and check that it is a blood smear."
        )
    return None


def _too_few_reason(cells: Sequence[Cell], n: int, extent: Extent, spec: PipelineSpec) -> str | None:
    if n >= spec.min_leukocytes:
        return None
    if not _is_small(extent, spec):
        return (
            f"{counted(n, 'leukocyte')} identified, {spec.min_leukocytes} are needed for a differential of "
            "this scan alone."
        )
    if sum(cell.call.status is not CallStatus.ARTEFACT and not _is_platelet(cell) for cell in cells) == 1:
        return "A single-cell picture: no differential of its own."
    return f"A small field with {counted(n, 'leukocyte')}: no differential of its own."


def _is_platelet(cell: Cell) -> bool:
    return group_of(cell.call.cell_class) is CellClass.PLATELET


def _is_small(extent: Extent, spec: PipelineSpec) -> bool:
    """Return whether the scan could not show enough leukocytes even if they lay side by side, as a crop of
    one cell: that they are few is then no fault of it."""
    return extent.area_um2 < spec.min_leukocytes * LEUKOCYTE_UM2


def _quality_flags(quality: Quality, scale_source: ScaleSource) -> tuple[Flag, ...]:
    checks = (
        (Flag.POOR_FOCUS, quality.focus < MIN_FOCUS),
        (Flag.POOR_STAIN, quality.stain_contrast < MIN_STAIN_CONTRAST),
    )
    found = tuple(flag for flag, present in checks if present)
    scale_flag = _SCALE_FLAGS.get(scale_source)
    return (*found, scale_flag) if scale_flag else found


def differential_flags(differential: Differential, spec: PipelineSpec) -> tuple[Flag, ...]:
    """Return the flags that the counts raise; also for a patient's pooled differential.

    Blasts and erythroblasts are flagged where one was accepted. A left shift and many unidentified cells are
    proportions: they are flagged where the 95 % interval lies above the limit.
    """
    few = (Flag.TOO_FEW_CELLS,) if differential.n_leukocytes < spec.min_leukocytes else ()
    return (*few, *_finding_flags(differential, spec))


def _finding_flags(differential: Differential, spec: PipelineSpec) -> tuple[Flag, ...]:
    counts = {line.cell_class: line.count for line in differential.classes}
    n, unidentified = differential.n_leukocytes, differential.n_unidentified
    left = counts[CellClass.NEUTROPHIL_BAND] + counts[CellClass.IMMATURE_GRANULOCYTE]
    checks = (
        (Flag.BLASTS_SEEN, counts[CellClass.BLAST] > 0),
        (Flag.LEFT_SHIFT, _exceeds(left, n, spec.left_shift_percent)),
        (Flag.ERYTHROBLASTS_SEEN, counts[CellClass.ERYTHROBLAST] > 0),
        (Flag.MANY_UNIDENTIFIED, _exceeds(unidentified, n + unidentified, MANY_UNIDENTIFIED_PERCENT)),
    )
    return tuple(flag for flag, present in checks if present)


def _exceeds(count: int, n: int, limit_percent: float) -> bool:
    """Return whether the 95 % interval of count/n lies above the limit, and n is large enough to say so."""
    return n >= PROPORTION_FROM_CELLS and wilson_interval(count, n)[0] > limit_percent
