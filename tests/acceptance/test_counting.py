"""Counting invariants on drawn slides, with the shipped networks. Says nothing of accuracy on real blood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from pipeline.model.domain import SlideAnalysis
from pipeline.model.execution import Execution
from pipeline.model.geometry import Rect, Size
from pipeline.model.ports import SlideReader
from pipeline.run import analyse_slide
from pipeline.runtime.analysis_monitor import AnalysisMonitor
from pipeline.runtime.concurrency.ordered_threads import OrderedThreadPool
from pipeline.runtime.readers import open_slide
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.synth.smear import Smear, draw_smear
from pipeline.synth.smear_spec import SmearSpec
from pipeline.synth.tiff_writer import write_pyramid
from worker.processing.analyser import open_analyser
from worker.settings import LocalSettings, load

SAME_PLACE_PX0 = 2.0
"""Networks see a little past any halo: an outline may move by a pixel with the tile that shows it."""


@pytest.fixture(scope="module")
def analyser() -> Iterator[SlideAnalyser]:
    with open_analyser(load(LocalSettings)) as analyser:
        yield analyser


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Iterator[tuple[Smear, SlideReader]]:
    smear = draw_smear(SmearSpec(Size(2304, 1792), seed=4, leukocytes=70, touching_fraction=0.2))
    path = tmp_path_factory.mktemp("drawn") / "slide.tif"
    write_pyramid(path, smear.spec.size_px0, smear.read, smear.spec.mpp)
    with open_slide(path) as reader:
        yield smear, reader


def analysed(
    analyser: SlideAnalyser, reader: SlideReader, core_px: int, tile_batch: int = 2
) -> SlideAnalysis:
    spec = replace(analyser.spec, tile_core_px=core_px)
    with OrderedThreadPool(2) as pool:
        return analyse_slide(reader, analyser.models, spec, Execution(AnalysisMonitor(), pool, tile_batch))


@pytest.fixture(scope="module")
def reference(analyser, drawn) -> SlideAnalysis:
    return analysed(analyser, drawn[1], 768)


@pytest.fixture(scope="module")
def whole(analyser) -> SlideAnalyser:
    """Return an analyser that segments every tile, with or without candidates in it."""
    return replace(analyser, spec=replace(analyser.spec, whole_up_to_tiles=1000))


@pytest.fixture(scope="module")
def whole_reference(whole, drawn) -> SlideAnalysis:
    return analysed(whole, drawn[1], 768)


def assert_same_cells(ours: SlideAnalysis, theirs: SlideAnalysis) -> None:
    assert len(ours.cells) == len(theirs.cells)
    left = list(theirs.cells)
    for cell in ours.cells:
        near = min(left, key=lambda other: _distance(cell, other))
        assert _distance(cell, near) <= SAME_PLACE_PX0
        assert near.call.cell_class is cell.call.cell_class
        left.remove(near)


def _distance(one, other) -> float:
    return float(np.hypot(*np.subtract(one.instance.centroid_px0, other.instance.centroid_px0)))


@pytest.mark.parametrize("core_px", [256, 512, 2304])
def test_the_tile_size_changes_no_cell(whole, whole_reference, drawn, core_px):
    assert_same_cells(analysed(whole, drawn[1], core_px), whole_reference)


@pytest.mark.parametrize("coarse_px", [256, 512, 1152])
def test_the_size_of_coarse_tiles_changes_no_cell(analyser, drawn, reference, coarse_px):
    other = replace(analyser, spec=replace(analyser.spec, candidate_core_px=coarse_px))
    assert_same_cells(analysed(other, drawn[1], 768), reference)


@pytest.mark.parametrize("tile_batch", [1, 7])
def test_the_batch_changes_no_cell(analyser, drawn, reference, tile_batch):
    assert_same_cells(analysed(analyser, drawn[1], 768, tile_batch), reference)


def test_twice_is_the_same_to_the_last_bit(analyser, drawn, reference):
    again = analysed(analyser, drawn[1], 768)
    assert [c.instance.contour_px0.tolist() for c in again.cells] == [
        c.instance.contour_px0.tolist() for c in reference.cells
    ]
    assert [c.call for c in again.cells] == [c.call for c in reference.cells]


def test_every_cell_is_in_one_count(reference):
    differential = reference.differential
    assert differential.n_found == len(reference.cells)
    statuses = Counter(cell.call.status for cell in reference.cells)
    assert sum(statuses.values()) == differential.n_found


def test_no_cell_is_counted_twice(reference):
    for one, other in _neighbours(reference):
        common = one.instance.bbox_px0.intersection(other.instance.bbox_px0).area
        assert common < 0.5 * min(one.instance.bbox_px0.area, other.instance.bbox_px0.area)


def _neighbours(analysis: SlideAnalysis):
    cells = analysis.cells
    return [(a, b) for i, a in enumerate(cells) for b in cells[i + 1 :] if _distance(a, b) < 60]


def test_leukocytes_of_a_large_slide_are_found(analyser, tmp_path):
    smear = draw_smear(SmearSpec(Size(8192, 8192), seed=9, leukocytes=500))
    path = tmp_path / "slide.tif"
    write_pyramid(path, smear.spec.size_px0, smear.read, smear.spec.mpp)
    with open_slide(path) as reader:
        analysis = analysed(analyser, reader, analyser.spec.tile_core_px)

    found = sum(_is_found(true, analysis) for true in smear.truth)
    assert found >= 0.98 * len(smear.truth)
    assert len(analysis.cells) <= 1.05 * len(smear.truth)


def _is_found(true, analysis: SlideAnalysis) -> bool:
    """Whether exactly one cell lies on the drawn one, at IoU ≥ 0.5 of their boxes."""
    x, y = true.outline_px0[:, 0], true.outline_px0[:, 1]
    stack = Rect(int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1)
    hits = 0
    for cell in analysis.cells:
        common = stack.intersection(cell.instance.bbox_px0).area
        hits += common >= 0.5 * (stack.area + cell.instance.bbox_px0.area - common)
    return hits == 1
