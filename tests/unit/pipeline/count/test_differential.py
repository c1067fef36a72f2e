"""Percentages and intervals against published values, and sums that must close."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.count.differential import differential_of, not_told_apart, own_counts, pooled, wilson_interval
from pipeline.model.domain import CallStatus, CellCall
from pipeline.model.taxonomy import LEAVES, CellClass, Denominator, is_leukocyte

CALLS = st.lists(
    st.builds(
        CellCall,
        cell_class=st.sampled_from(sorted(set(CellClass) - {CellClass.ARTEFACT})),
        status=st.sampled_from(list(CallStatus)),
        probability=st.just(0.9),
        probabilities=st.just({leaf: 1 / len(LEAVES) for leaf in LEAVES}),
        disagreement=st.just(0.0),
    ),
    max_size=60,
)


def calls(**counts):
    uniform = {leaf: 1 / len(LEAVES) for leaf in LEAVES}
    return [
        CellCall(CellClass(name), CallStatus.ACCEPTED, 0.9, uniform, 0.0)
        for name, count in counts.items()
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        (5, 100, 2.15, 11.18),  # DESIGN §6: 5 % of 100 cells reads 2.2 to 11.2 %
        (0, 100, 0.0, 3.70),
        (100, 100, 96.30, 100.0),
        (50, 100, 40.38, 59.62),
        (1, 1, 20.65, 100.0),
    ],
)
def test_wilson_interval(count, n, low, high):
    assert wilson_interval(count, n) == pytest.approx((low, high), abs=0.01)


def test_nothing_counted_knows_nothing():
    assert wilson_interval(0, 0) == (0.0, 100.0)


def test_more_than_all_is_an_error():
    with pytest.raises(ValueError, match="not a proportion"):
        wilson_interval(3, 2)


def test_a_parent_includes_its_children():
    lines = {
        line.cell_class: line
        for line in differential_of(
            calls(neutrophil=2, neutrophil_segmented=5, neutrophil_band=3, lymphocyte=10)
        ).classes
    }
    assert lines[CellClass.NEUTROPHIL].count == 10
    assert lines[CellClass.NEUTROPHIL].percent == 50.0
    assert lines[CellClass.NEUTROPHIL_BAND].percent == 15.0


def test_erythroblasts_are_counted_beside_the_leukocytes():
    differential = differential_of(calls(lymphocyte=50, erythroblast=5, platelet=7))
    lines = {line.cell_class: line for line in differential.classes}
    assert differential.n_leukocytes == 50
    assert lines[CellClass.ERYTHROBLAST].percent == 10.0
    assert lines[CellClass.ERYTHROBLAST].denominator is Denominator.PER_100_LEUKOCYTES
    assert lines[CellClass.PLATELET].percent is None


@given(CALLS)
def test_every_call_is_in_one_count(found):
    differential = differential_of(found)
    own = own_counts(differential)
    assert differential.n_found == len(found)
    assert sum(own.values()) + differential.n_unidentified + differential.n_artefacts == len(found)
    assert sum(count for c, count in own.items() if is_leukocyte(c)) == differential.n_leukocytes


@given(CALLS, CALLS)
def test_pooling_is_counting_together(one, other):
    assert pooled([differential_of(one), differential_of(other)]) == differential_of(one + other)


def test_cells_that_only_a_parent_names_have_a_line_of_their_own():
    differential = differential_of(calls(neutrophil=2, neutrophil_segmented=5, neutrophil_band=3, blast=10))
    (line,) = not_told_apart(differential)
    assert (line.cell_class, line.count, line.percent) == (CellClass.NEUTROPHIL, 2, 10.0)
    assert line.ci95_percent == pytest.approx(wilson_interval(2, 20))
    assert not_told_apart(differential_of(calls(neutrophil_band=3))) == ()
