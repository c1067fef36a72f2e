"""The shipped bundle's answers, as they were when it was shipped.

Tolerances: ONNX Runtime picks its kernels by the processor (AVX2, AVX-512), whose sums differ in the last
bits; a pixel at the threshold of the outline may fall on the other side, and moves the crop by a fraction of
a pixel. A changed weight, scale or step moves answers by far more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.bundle.manifest import Profile
from pipeline.runtime.slide_analyser import SlideAnalyser
from tests.golden.answers import (
    EXPECTED,
    CellAnswer,
    PictureAnswer,
    RealPicture,
    answer_of,
    drawn_fields,
    found_by_digest,
    read_golden,
    shipped_analyser,
    write_golden,
)

PROBABILITY = 0.03
AREA = 0.03
"""of the area; and never less than `AREA_PX0`"""
AREA_PX0 = 60.0
CLOSE = 0.05
"""of the threshold of acceptance, or of the runner-up: the status or the group may change there"""

GOLDEN = read_golden()


@pytest.fixture(scope="module")
def analyser() -> Iterator[SlideAnalyser]:
    with shipped_analyser() as opened:
        yield opened


@pytest.fixture(scope="module")
def places(shared_data: Path) -> dict[str, Path]:
    return found_by_digest(shared_data, GOLDEN.real)


def test_the_expected_answers_are_those_of_the_shipped_bundle(analyser: SlideAnalyser) -> None:
    assert GOLDEN.bundle_digest == analyser.bundle.manifest.digest_of(Profile.FAST), (
        "the bundle has changed; make the answers anew: python -m tests.golden.make"
    )


def test_the_choice_covers_the_sets_and_the_classes() -> None:
    assert len({picture.sha256 for picture in GOLDEN.real}) == 24
    assert len({picture.data_set for picture in GOLDEN.real}) >= 8
    assert len({picture.label for picture in GOLDEN.real}) >= 9


@pytest.mark.data
@pytest.mark.parametrize("picture", GOLDEN.real, ids=lambda p: f"{p.data_set}-{p.label}-{p.sha256[:8]}")
def test_real_cells(picture: RealPicture, analyser: SlideAnalyser, places: dict[str, Path]) -> None:
    assert picture.sha256 in places, "the data pack lacks the picture"
    found = answer_of(analyser, places[picture.sha256])
    _same(found, picture.answer, analyser.spec.accept_probability)


def test_drawn_fields(analyser: SlideAnalyser, tmp_path: Path) -> None:
    for path, expected in zip(drawn_fields(tmp_path), GOLDEN.drawn, strict=True):
        assert expected.cells, "a field without a cell tests nothing"
        _same(answer_of(analyser, path), expected, analyser.spec.accept_probability)


def _same(found: PictureAnswer, expected: PictureAnswer, accept_probability: float) -> None:
    assert len(found.cells) == len(expected.cells)
    assert found.middle == expected.middle
    for one, other in zip(found.cells, expected.cells, strict=True):
        _same_cell(one, other, accept_probability)


def _same_cell(found: CellAnswer, expected: CellAnswer, accept_probability: float) -> None:
    assert found.area_px0 == pytest.approx(expected.area_px0, rel=AREA, abs=AREA_PX0)
    assert found.nucleus_area_px0 == pytest.approx(expected.nucleus_area_px0, rel=AREA, abs=AREA_PX0)
    if found.group != expected.group:
        # Two groups may share the lead; then neither can be sure.
        assert max(found.group_probability, expected.group_probability) < 0.5 + CLOSE
        return
    assert found.group_probability == pytest.approx(expected.group_probability, abs=PROBABILITY)
    if found.status != expected.status:
        assert abs(expected.group_probability - accept_probability) < CLOSE, "another status"
    if found.named != expected.named:
        # A leaf that is just sure enough may give way to its parent, not to another leaf.
        assert expected.group in (found.named, expected.named), "another name"


def test_the_file_reads_as_it_was_written(tmp_path: Path) -> None:
    assert GOLDEN.real
    assert GOLDEN.drawn
    copy = tmp_path / "expected.json"
    write_golden(GOLDEN, copy)
    assert copy.read_bytes() == EXPECTED.read_bytes()


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "unidentified"},
        {"named": "neutrophil_band"},
        {"group": "lymphocyte", "named": "lymphocyte"},
        {"group_probability": 0.85},
        {"area_px0": 4200.0},
    ],
)
def test_another_answer_does_not_pass(changed: dict[str, object]) -> None:
    noted = CellAnswer("neutrophil", "neutrophil_segmented", "accepted", 0.9, 4000.0, 1500.0)
    _same_cell(noted, noted, 0.6)
    with pytest.raises(AssertionError):
        _same_cell(replace(noted, **changed), noted, 0.6)
