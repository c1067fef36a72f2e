"""The fast path, bytes around candidates, says what the reference says: floats over the whole scan.

Compared on real fields of four laboratories and on drawn slides. A cell in doubt may be called one way or the
other; what is sure may not differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import hypot, sqrt
from pathlib import Path

import pytest

from pipeline.model.domain import Cell, SlideAnalysis
from pipeline.model.geometry import Size
from pipeline.model.taxonomy import CellClass, group_of, leaves_of
from pipeline.runtime.analysis_monitor import AnalysisMonitor
from pipeline.runtime.bundle_loader import SHIPPED
from pipeline.runtime.engines.engine_port import EngineName
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.synth.smear import draw_smear
from pipeline.synth.smear_spec import SmearSpec
from pipeline.synth.tiff_writer import write_pyramid
from pipeline.training.data.label_tables import read_table
from pipeline.training.data.sources import known_source
from worker.processing.analyser import open_analyser
from worker.settings import LocalSettings, load

FIELDS = {"bccd": 8, "chula_wbc": 4, "draaslan": 4, "chula_wbc_crops": 4}
SAME_PLACE_UM = 2.0
PROBABILITY = 0.15
"""Largest difference of a group's probability; DESIGN §7: bytes against floats"""


@dataclass(frozen=True)
class Ways:
    """The same bundle, opened twice."""

    fast: SlideAnalyser
    reference: SlideAnalyser


@pytest.fixture(scope="module")
def ways() -> Iterator[Ways]:
    openvino = load(LocalSettings, bundle=SHIPPED, engine=EngineName.OPENVINO)
    onnxruntime = load(LocalSettings, bundle=SHIPPED, engine=EngineName.ONNXRUNTIME)
    with open_analyser(openvino) as fast, open_analyser(onnxruntime) as reference:
        yield Ways(
            replace(fast, spec=replace(fast.spec, whole_up_to_tiles=0)),
            replace(reference, spec=replace(reference.spec, whole_up_to_tiles=1_000_000)),
        )


@pytest.fixture(scope="module")
def drawn_slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("drawn")
    return tuple(
        _written(folder / f"slide-{seed}.tif", SmearSpec(size, seed=seed, leukocytes=leukocytes))
        for seed, size, leukocytes in ((21, Size(2400, 2000), 30), (22, Size(3000, 1600), 60))
    )


def _written(path: Path, spec: SmearSpec) -> Path:
    smear = draw_smear(spec)
    write_pyramid(path, spec.size_px0, smear.read, spec.mpp)
    return path


@pytest.mark.data
@pytest.mark.parametrize(("data_set", "number"), FIELDS.items())
def test_real_fields(ways: Ways, shared_data: Path, data_set: str, number: int) -> None:
    rows = read_table(shared_data, known_source(data_set))
    pictures = [row.image for row in rows[:: len(rows) // number]][:number]
    assert len(pictures) == number
    assert sum(_compared(ways, picture) for picture in pictures) >= number


def test_drawn_slides(ways: Ways, drawn_slides: tuple[Path, ...]) -> None:
    assert [_compared(ways, path) for path in drawn_slides] == [30, 60]


def _compared(ways: Ways, scan: Path) -> int:
    """Return how many leukocytes both ways find on a scan; raises AssertionError where they differ."""
    ours, theirs = (_leukocytes(_analysis(way, scan)) for way in (ways.fast, ways.reference))
    assert len(ours) == len(theirs), scan.name
    left = list(ours)
    for cell in theirs:
        near = min(left, key=lambda other: _apart_um(cell, other))
        _assert_same(near, cell)
        left.remove(near)
    return len(ours)


def _analysis(analyser: SlideAnalyser, scan: Path) -> SlideAnalysis:
    with analyser.open(scan) as reader:
        return analyser.analyse(reader, "0" * 64, AnalysisMonitor()).analysis


def _leukocytes(analysis: SlideAnalysis) -> list[Cell]:
    """Return what is counted; debris and platelets are found by chance where they look like cells."""
    return [
        cell
        for cell in analysis.cells
        if group_of(cell.call.cell_class) not in (CellClass.PLATELET, CellClass.ARTEFACT)
    ]


def _apart_um(one: Cell, other: Cell) -> float:
    (x, y), (to_x, to_y) = one.instance.centroid_px0, other.instance.centroid_px0
    return hypot(x - to_x, y - to_y) * sqrt(one.instance.area_um2 / one.instance.area_px0)


def _assert_same(one: Cell, other: Cell) -> None:
    assert _apart_um(one, other) <= SAME_PLACE_UM
    group = group_of(other.call.cell_class)
    assert _probability(one, group) == pytest.approx(_probability(other, group), abs=PROBABILITY)
    if group_of(one.call.cell_class) is not group:
        assert _probability(other, group) < 0.5 + PROBABILITY, "a sure cell has another class"


def _probability(cell: Cell, group: CellClass) -> float:
    return sum(cell.call.probabilities[leaf] for leaf in leaves_of(group))
