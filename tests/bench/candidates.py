"""What the coarse look at large scans costs and saves: fields and a slide, around candidates and whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import hypot, sqrt
from pathlib import Path

from pipeline.model.domain import Cell, SlideAnalysis
from pipeline.model.taxonomy import CellClass, group_of
from pipeline.runtime.analysis_monitor import AnalysisMonitor
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.training.data.label_tables import read_table
from pipeline.training.data.sources import known_source
from tests.bench.measure import Measure
from tests.bench.networks import LEUKOCYTES, drawn_slide, timed

DATA = Path(__file__).parents[3] / "shared" / "data"
SETS = ("bccd", "chula_wbc", "draaslan", "chula_wbc_crops")
ONE_IN = 3
SAME_PLACE_UM = 2.0
MANY = 1_000_000


def candidates(analyser: SlideAnalyser, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield the leukocytes that are found around candidates too, and how much faster a slide is so.

    Without the data pack only the slide is measured.
    """
    around = replace(analyser, spec=replace(analyser.spec, whole_up_to_tiles=0))
    whole = replace(analyser, spec=replace(analyser.spec, whole_up_to_tiles=MANY))
    if DATA.is_dir():
        pairs = [
            (_leukocytes(_analysed(around, picture)), _leukocytes(_analysed(whole, picture)))
            for name in SETS
            for picture in [row.image for row in read_table(DATA, known_source(name))][::ONE_IN]
        ]
        found = sum(len(theirs) for _, theirs in pairs)
        kept = sum(_is_among(cell, ours) for ours, theirs in pairs for cell in theirs)
        yield "candidates_leukocytes_of_the_whole", Measure(kept / found, "share", 0.99)
    path = drawn_slide(folder / "candidates.tif", LEUKOCYTES)
    yield "whole_slide_over_candidates", Measure(timed(whole, path)[0] / timed(around, path)[0], "×")


def _analysed(analyser: SlideAnalyser, picture: Path) -> SlideAnalysis:
    with analyser.open(picture) as reader:
        return analyser.analyse(reader, "0" * 64, AnalysisMonitor()).analysis


def _leukocytes(analysis: SlideAnalysis) -> list[Cell]:
    others = (CellClass.PLATELET, CellClass.ARTEFACT)
    return [cell for cell in analysis.cells if group_of(cell.call.cell_class) not in others]


def _is_among(cell: Cell, others: list[Cell]) -> bool:
    x, y = cell.instance.centroid_px0
    near_px0 = SAME_PLACE_UM / sqrt(cell.instance.area_um2 / cell.instance.area_px0)
    places = (other.instance.centroid_px0 for other in others)
    return any(hypot(to_x - x, to_y - y) <= near_px0 for to_x, to_y in places)
