"""Concludes an analysis: differential, status with reasons, flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.count.differential import differential_of
from pipeline.model.domain import Cell, Differential, Flag, Quality, ScaleSource, SlideStatus
from pipeline.model.spec import PipelineSpec
from pipeline.model.taxonomy import CellClass, group_of

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

MANY_UNIDENTIFIED = 0.15
"""Share of unidentified leukocytes above which the differential is flagged."""

_SCALE_FLAGS = {
    ScaleSource.RED_CELLS: Flag.SCALE_ESTIMATED,
    ScaleSource.LEUKOCYTES: Flag.SCALE_ESTIMATED,
    ScaleSource.ASSUMED: Flag.SCALE_ASSUMED,
}


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The differential of one scan, and whether it can be used."""

    differential: Differential
    status: SlideStatus
    reasons: tuple[str, ...]
    flags: tuple[Flag, ...]


def conclude(
    cells: Sequence[Cell], quality: Quality, scale_source: ScaleSource, spec: PipelineSpec
) -> Conclusion:
    """Return differential, status and flags. Few cells and poor stain are results, not errors."""
    differential = differential_of(cell.call for cell in cells)
    nucleated = sum(group_of(cell.call.cell_class) is not CellClass.PLATELET for cell in cells)
    status, reasons = _status(differential, quality, spec, nucleated)
    flags = (
        *_quality_flags(quality, scale_source),
        *differential_flags(differential, spec),
    )
    return Conclusion(differential, status, reasons, flags)


def _status(
    differential: Differential, quality: Quality, spec: PipelineSpec, nucleated: int
) -> tuple[SlideStatus, tuple[str, ...]]:
    if quality.tissue_fraction < MIN_TISSUE_FRACTION:
        return SlideStatus.REJECTED, ("Nothing stained was found: the scan shows empty glass.",)
    if differential.n_found == 0 and quality.focus < MIN_FOCUS:
        return SlideStatus.REJECTED, ("No cell was found and the scan is out of focus: scan it again.",)
    crowded = nucleated >= MONOLAYER_NEEDED_FROM_CELLS
    if crowded and quality.free_red_cells_per_mm2 < MIN_FREE_RED_CELLS_PER_MM2:
        sentence = (
            "No monolayer: red cells do not lie free beside the leukocytes. Scan another part of the smear, "
            "and check that it is a blood smear."
        )
        return SlideStatus.REJECTED, (sentence,)
    if differential.n_leukocytes < spec.min_leukocytes:
        sentence = (
            f"{differential.n_leukocytes} leukocytes identified, {spec.min_leukocytes} are needed for a "
            "differential of this scan alone."
        )
        return SlideStatus.INSUFFICIENT, (sentence,)
    return SlideStatus.REPORTABLE, ()


def _quality_flags(quality: Quality, scale_source: ScaleSource) -> tuple[Flag, ...]:
    checks = (
        (Flag.POOR_FOCUS, quality.focus < MIN_FOCUS),
        (Flag.POOR_STAIN, quality.stain_contrast < MIN_STAIN_CONTRAST),
    )
    found = tuple(flag for flag, present in checks if present)
    scale_flag = _SCALE_FLAGS.get(scale_source)
    return (*found, scale_flag) if scale_flag else found


def differential_flags(differential: Differential, spec: PipelineSpec) -> tuple[Flag, ...]:
    """Return the flags for the counts of a scan or of a pooled differential."""
    counts = {line.cell_class: line for line in differential.classes}
    n = differential.n_leukocytes
    left = counts[CellClass.NEUTROPHIL_BAND].count + counts[CellClass.IMMATURE_GRANULOCYTE].count
    doubtful = differential.n_unidentified / max(1, n + differential.n_unidentified)
    blasts = counts[CellClass.BLAST].count
    checks = (
        (Flag.TOO_FEW_CELLS, n < spec.min_leukocytes),
        (Flag.BLASTS_SEEN, blasts > 0 and 100 * blasts >= spec.blast_flag_percent * n),
        (Flag.LEFT_SHIFT, left > 0 and 100 * left > spec.left_shift_percent * n),
        (Flag.ERYTHROBLASTS_SEEN, counts[CellClass.ERYTHROBLAST].count > 0),
        (Flag.MANY_UNIDENTIFIED, doubtful > MANY_UNIDENTIFIED),
    )
    return tuple(flag for flag, present in checks if present)
