"""Which flags and which status the counts of a scan amount to."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.count.conclusion import Conclusion, Extent, conclude, differential_flags
from pipeline.count.differential import differential_of
from pipeline.model.domain import (
    CallStatus,
    Cell,
    CellCall,
    CellInstance,
    Flag,
    Quality,
    Scale,
    ScaleSource,
    SlideStatus,
)
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.model.spec import PipelineSpec
from pipeline.model.taxonomy import LEAVES, CellClass

SPEC = PipelineSpec()
SHARP = Quality(tissue_fraction=0.3, focus=20, stain_contrast=0.5, free_red_cells_per_mm2=2000)
INSTANCE = CellInstance(
    Rect(0, 0, 4, 4), (2.0, 2.0), np.zeros((3, 2), np.float32), (), 9.0, 4.0, 150.0, 60.0, 0.9, False
)
UNIFORM = {leaf: 1 / len(LEAVES) for leaf in LEAVES}


def calls(unidentified: int = 0, **counts: int) -> list[CellCall]:
    accepted = [
        CellCall(CellClass(name), CallStatus.ACCEPTED, 0.9, UNIFORM, 0.0)
        for name, count in counts.items()
        for _ in range(count)
    ]
    unsure = CellCall(CellClass.MONOCYTE, CallStatus.UNIDENTIFIED, 0.4, UNIFORM, 0.0)
    return accepted + [unsure] * unidentified


def flags(**counts: int) -> tuple[Flag, ...]:
    return differential_flags(differential_of(calls(**counts)), SPEC)


def concluded(side_um: float, **counts: int) -> Conclusion:
    extent = Extent(Size(round(4 * side_um), round(4 * side_um)), Scale(Mpp(0.25), ScaleSource.FILE))
    return conclude([Cell(INSTANCE, call) for call in calls(**counts)], SHARP, extent, SPEC)


@pytest.mark.parametrize(
    ("counts", "is_flagged"),
    [
        ({"neutrophil_band": 1}, False),
        ({"neutrophil_band": 2, "lymphocyte": 1}, False),
        ({"neutrophil_band": 15, "lymphocyte": 85}, False),  # the interval is 9.3 to 23.3 %
        ({"neutrophil_band": 17, "lymphocyte": 83}, True),  # 10.9 to 25.5 %
        ({"neutrophil_band": 9, "myelocyte": 8, "lymphocyte": 83}, True),
        ({"neutrophil_band": 10, "lymphocyte": 20}, True),
        ({"lymphocyte": 200}, False),
    ],
)
def test_a_left_shift_is_flagged_where_its_interval_lies_above_the_limit(
    counts: dict[str, int], is_flagged: bool
) -> None:
    assert (Flag.LEFT_SHIFT in flags(**counts)) == is_flagged


@pytest.mark.parametrize(("unidentified", "is_flagged"), [(1, False), (20, False), (26, True)])
def test_many_unidentified_is_a_proportion_as_well(unidentified: int, is_flagged: bool) -> None:
    found = flags(lymphocyte=100 - unidentified, unidentified=unidentified)
    assert (Flag.MANY_UNIDENTIFIED in found) == is_flagged


def test_one_cell_in_doubt_is_not_many() -> None:
    assert Flag.MANY_UNIDENTIFIED not in flags(unidentified=1)


def test_a_single_blast_or_erythroblast_is_said_however_many_cells_there_are() -> None:
    assert flags(blast=1, lymphocyte=999) == (Flag.BLASTS_SEEN,)
    assert flags(erythroblast=1, lymphocyte=999) == (Flag.ERYTHROBLASTS_SEEN,)
    assert flags(blast=1) == (Flag.TOO_FEW_CELLS, Flag.BLASTS_SEEN)


@pytest.mark.parametrize("found", [{"neutrophil_band": 1}, {"unidentified": 1}, {"blast": 1, "platelet": 2}])
def test_a_picture_of_one_cell_is_not_faulty(found: dict[str, int]) -> None:
    conclusion = concluded(36, **found)
    assert conclusion.status is SlideStatus.INSUFFICIENT
    assert conclusion.reasons == ("A single-cell picture: no differential of its own.",)
    assert Flag.TOO_FEW_CELLS not in conclusion.flags
    assert (Flag.BLASTS_SEEN in conclusion.flags) == ("blast" in found)


def test_a_field_too_small_for_a_hundred_leukocytes_is_not_faulty_either() -> None:
    conclusion = concluded(60, lymphocyte=3)
    assert conclusion.reasons == ("A small field with 3 leukocytes: no differential of its own.",)
    assert conclusion.flags == ()


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "1 leukocyte identified, 100 are needed for a differential of this scan alone."),
        (99, "99 leukocytes identified, 100 are needed for a differential of this scan alone."),
    ],
)
def test_a_scan_that_could_show_enough_cells_says_how_many_are_missing(count: int, said: str) -> None:
    conclusion = concluded(2000, lymphocyte=count)
    assert (conclusion.status, conclusion.reasons) == (SlideStatus.INSUFFICIENT, (said,))
    assert Flag.TOO_FEW_CELLS in conclusion.flags


def test_enough_cells_are_reportable() -> None:
    assert concluded(2000, lymphocyte=100).status is SlideStatus.REPORTABLE
