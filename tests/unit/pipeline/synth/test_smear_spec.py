from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.geometry import Mpp, Size
from pipeline.model.taxonomy import CellClass
from pipeline.synth.plan import demo_slides, field_specs
from pipeline.synth.smear import draw_smear
from pipeline.synth.smear_spec import DRAWN_CLASSES, NORMAL, SmearSpec, apportion, mix_of

SHARES = st.lists(st.floats(0, 100), min_size=6, max_size=6).filter(lambda shares: sum(shares) > 0.01)


@given(shares=SHARES, count=st.integers(0, 5000))
def test_numbers_sum_to_the_count_and_stay_within_one_of_the_share(shares, count):
    numbers = apportion(mix_of(*shares), count)
    assert sum(number for _, number in numbers) == count
    for (_, number), share in zip(numbers, shares, strict=True):
        assert abs(number - count * share / sum(shares)) < 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"size_px0": Size(0, 10)},
        {"mpp": Mpp(5.0)},
        {"leukocytes": -1},
        {"seed": -1},
        {"touching_fraction": 1.5},
        {"red_cell_coverage": -0.1},
        {"mix": ((CellClass.BLAST, 1.0),)},
        {"mix": mix_of(0, 0, 0, 0, 0, 0)},
        {"mix": ((CellClass.LYMPHOCYTE, -1.0), (CellClass.MONOCYTE, 2.0))},
    ],
)
def test_what_no_smear_can_be_is_refused(wrong):
    with pytest.raises(ValueError):
        SmearSpec(**{"size_px0": Size(100, 100), "seed": 1, **wrong})


def share_of(spec, cell_class):
    return dict(apportion(spec.mix, spec.leukocytes)).get(cell_class, 0) / spec.leukocytes


def test_the_demonstration_shows_each_finding_once():
    ordinary, left, eosin, lymph, few = demo_slides(3)
    assert ordinary.mix == NORMAL
    assert share_of(left, CellClass.NEUTROPHIL_BAND) > 0.1
    assert share_of(eosin, CellClass.EOSINOPHIL) > 0.2
    assert share_of(lymph, CellClass.LYMPHOCYTE) > 0.6
    assert few.leukocytes < 100 <= min(spec.leukocytes for spec in (ordinary, left, eosin, lymph))
    assert len({spec.seed for spec in demo_slides(3) + demo_slides(4)}) == 10


def test_every_field_has_one_to_three_leukocytes_and_all_classes_occur():
    specs = field_specs(1, 60)
    assert {spec.leukocytes for spec in specs} == {1, 2, 3}
    assert {cls for spec in specs for cls, _ in spec.mix} == set(DRAWN_CLASSES)
    truth = draw_smear(specs[5]).truth
    assert sorted(cell.cell_class for cell in truth) == sorted(cls for cls, _ in specs[5].mix)
