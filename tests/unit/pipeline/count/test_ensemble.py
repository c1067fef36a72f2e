"""The call of a cell: averaged, named as finely as it is sure, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.count.ensemble import call_cell
from pipeline.model.domain import CallStatus
from pipeline.model.spec import PipelineSpec
from pipeline.model.taxonomy import LEAVES, CellClass

SPEC = PipelineSpec()
SMALL_UM2, WHOLE_UM2 = 20.0, 25.0


def member(**probabilities):
    row = np.full(len(LEAVES), 1e-4, np.float32)
    for name, p in probabilities.items():
        row[LEAVES.index(CellClass(name))] = p
    return row / row.sum()


def call(*members):
    return call_cell(np.stack(members), SMALL_UM2, SPEC)


def test_members_are_averaged():
    answer = call(member(lymphocyte=1), member(lymphocyte=1), member(lymphocyte=0.7, monocyte=0.3))
    assert answer.cell_class is CellClass.LYMPHOCYTE
    assert answer.probability == pytest.approx(0.9, abs=0.01)
    assert sum(answer.probabilities.values()) == pytest.approx(1)


def test_a_sure_leaf_is_named():
    assert call(*[member(neutrophil_band=0.95)] * 3).cell_class is CellClass.NEUTROPHIL_BAND


def test_leaves_that_cannot_be_told_apart_give_their_parent():
    answer = call(*[member(neutrophil_band=0.5, neutrophil_segmented=0.48)] * 3)
    assert answer.cell_class is CellClass.NEUTROPHIL
    assert answer.status is CallStatus.ACCEPTED


def test_children_together_outvote_a_single_class():
    answer = call(*[member(neutrophil_band=0.3, neutrophil_segmented=0.32, monocyte=0.36)] * 3)
    assert answer.cell_class is CellClass.NEUTROPHIL


def test_members_that_disagree_leave_the_cell_unidentified():
    answer = call(member(lymphocyte=1), member(monocyte=1), member(blast=1))
    assert answer.status is CallStatus.UNIDENTIFIED
    assert answer.disagreement == pytest.approx(2 / 3, abs=0.01)


def test_an_unsure_mean_leaves_the_cell_unidentified():
    answer = call(*[member(lymphocyte=0.5, monocyte=0.45)] * 3)
    assert answer.status is CallStatus.UNIDENTIFIED


def test_debris_is_an_artefact():
    assert call(*[member(artefact=0.9)] * 3).status is CallStatus.ARTEFACT


def test_immature_cells_are_called_at_the_odds_that_a_smear_has():
    torn = [member(blast=0.55, monocyte=0.45)] * 3
    assert (
        call_cell(np.stack(torn), SMALL_UM2, replace(SPEC, immature_odds=1.0)).cell_class is CellClass.BLAST
    )
    answer = call_cell(np.stack(torn), SMALL_UM2, replace(SPEC, immature_odds=0.5))
    assert answer.cell_class is CellClass.MONOCYTE
    assert answer.probability == pytest.approx(0.45 / (0.45 + 0.275), abs=0.01)
    assert sum(answer.probabilities.values()) == pytest.approx(1)


def test_a_sure_blast_stays_a_blast():
    answer = call(*[member(blast=0.97, monocyte=0.03)] * 3)
    assert answer.cell_class is CellClass.BLAST
    assert answer.status is CallStatus.ACCEPTED


def test_odds_do_not_make_members_disagree():
    assert call(*[member(blast=0.6, monocyte=0.4)] * 3).disagreement == pytest.approx(0, abs=1e-6)


def test_what_has_a_whole_nucleus_is_hardly_an_artefact():
    torn = np.stack([member(artefact=0.6, lymphocyte=0.4)] * 3)
    assert call_cell(torn, SMALL_UM2, SPEC).status is CallStatus.ARTEFACT
    answer = call_cell(torn, WHOLE_UM2, SPEC)
    assert answer.cell_class is CellClass.LYMPHOCYTE
    assert answer.probability == pytest.approx(0.4 / (0.4 + 0.15), abs=0.01)


def test_a_sure_artefact_stays_one_whatever_was_outlined():
    assert call_cell(np.stack([member(artefact=0.95)] * 3), WHOLE_UM2, SPEC).status is CallStatus.ARTEFACT


def test_what_has_a_whole_nucleus_is_no_platelet_unless_nothing_else_is_likely():
    torn = np.stack([member(platelet=0.92, lymphocyte=0.08)] * 3)
    assert call_cell(torn, SMALL_UM2, SPEC).cell_class is CellClass.PLATELET
    assert call_cell(torn, WHOLE_UM2, SPEC).cell_class is CellClass.LYMPHOCYTE
    clump = np.stack([member(platelet=0.995, lymphocyte=0.005)] * 3)
    assert call_cell(clump, WHOLE_UM2, SPEC).cell_class is CellClass.PLATELET
