"""What labels, masks and boxes say."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.model.errors import UsageError
from pipeline.model.taxonomy import LEAVES, CellClass
from pipeline.training.data.label_tables import LabelledBox
from pipeline.training.data.targets import (
    Tissue,
    class_of,
    leaf_set,
    map_of_boxes,
    map_of_centre,
    map_of_mask,
    unmasked_boxes_ignored,
)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("neutrophil", CellClass.NEUTROPHIL),
        ("neutrophil_band", CellClass.NEUTROPHIL_BAND),
        ("smudge", CellClass.ARTEFACT),
        ("promyelocyte_bilobed", CellClass.PROMYELOCYTE),
        ("monoblast", CellClass.BLAST),
        ("myeloblast", CellClass.BLAST),
        ("lymphocyte_atypical", CellClass.LYMPHOCYTE),
        ("Platelets", CellClass.PLATELET),
        ("mixed", None),
        ("wbc_unspecified", None),
        ("not_identifiable", None),
    ],
)
def test_labels_of_the_data_sets(label: str, expected: CellClass | None) -> None:
    assert class_of(label) is expected


def test_a_label_nobody_thought_about_is_refused() -> None:
    with pytest.raises(UsageError, match="plasma_cell"):
        class_of("plasma_cell")


@pytest.mark.parametrize(
    ("cell_class", "leaves"),
    [
        (CellClass.NEUTROPHIL, {"neutrophil_segmented", "neutrophil_band"}),
        (CellClass.IMMATURE_GRANULOCYTE, {"metamyelocyte", "myelocyte", "promyelocyte"}),
        (CellClass.BASOPHIL, {"basophil"}),
    ],
)
def test_a_parent_allows_its_leaves(cell_class: CellClass, leaves: set[str]) -> None:
    allowed = leaf_set(cell_class)
    assert {str(leaf) for leaf, yes in zip(LEAVES, allowed, strict=True) if yes} == leaves


def test_mask_levels_and_the_soft_rim_around_a_bare_nucleus() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:12, 2:12] = 128
    mask[4:8, 4:8] = 255
    mask[15, 15:19] = 100  # one pixel thin: the edge of a nucleus that touches the ground
    tissue = map_of_mask(mask)
    assert tissue[0, 0] == Tissue.BACKGROUND
    assert tissue[10, 10] == Tissue.CYTOPLASM
    assert tissue[5, 5] == Tissue.NUCLEUS
    assert (tissue[15, 15:19] == Tissue.IGNORED).all()


def test_boxes_are_cell_inside_unknown_at_the_rim_and_ground_outside() -> None:
    boxes = [LabelledBox("WBC", 20, 20, 20, 20), LabelledBox("RBC", 50, 50, 10, 10)]
    tissue = map_of_boxes(64, 64, boxes)
    assert tissue[30, 30] == Tissue.CELL
    assert tissue[21, 21] == Tissue.IGNORED
    assert tissue[55, 55] == tissue[5, 5] == Tissue.BACKGROUND


def test_the_centre_of_a_single_cell_image_is_cell_and_the_rest_unknown() -> None:
    tissue = map_of_centre(40, 60, mpp_um=0.5)
    assert tissue[20, 30] == Tissue.CELL
    assert tissue[20, 36] == Tissue.IGNORED
    assert not (tissue == Tissue.BACKGROUND).any()


def test_a_boxed_leukocyte_without_a_mask_is_not_called_ground() -> None:
    tissue = map_of_mask(np.zeros((30, 30), np.uint8))
    told = unmasked_boxes_ignored(
        tissue, [LabelledBox("WBC", 5, 5, 10, 10), LabelledBox("RBC", 20, 20, 5, 5)]
    )
    assert (told[5:15, 5:15] == Tissue.IGNORED).all()
    assert told[22, 22] == Tissue.BACKGROUND
