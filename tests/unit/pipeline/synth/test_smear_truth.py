from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.model.errors import InputError
from pipeline.model.geometry import Size
from pipeline.synth.smear import draw_smear, truth_document
from pipeline.synth.smear_spec import EVEN, SmearSpec
from pipeline.synth.truth import parse_truth


@pytest.fixture(scope="module")
def smear():
    return draw_smear(SmearSpec(Size(700, 600), seed=3, leukocytes=6, mix=EVEN, touching_fraction=0.4))


def test_a_document_gives_back_the_truth(smear):
    parsed = parse_truth(truth_document(smear))
    assert (parsed.size_px0, parsed.mpp, parsed.seed) == (Size(700, 600), smear.spec.mpp, 3)
    assert len(parsed.cells) == len(smear.truth)
    for read, drawn in zip(parsed.cells, smear.truth, strict=True):
        assert (read.cell_class, read.centre_px0, read.touching) == (
            drawn.cell_class,
            drawn.centre_px0,
            drawn.touching,
        )
        assert np.array_equal(read.outline_px0, drawn.outline_px0)
        assert len(read.nuclei_px0) == len(drawn.nuclei_px0)
        assert all(map(np.array_equal, read.nuclei_px0, drawn.nuclei_px0))


def test_the_document_of_a_smear_is_the_same_every_time(smear):
    assert truth_document(draw_smear(smear.spec)) == truth_document(smear)


def broken(smear, **changes):
    return json.dumps({**json.loads(truth_document(smear)), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 99},
        {"format": "other"},
        {"cells": [{}]},
        {"cells": 3},
        {"size_px0": [1]},
        {"um_per_px0": -1},
    ],
)
def test_another_document_is_refused(smear, changes):
    with pytest.raises(InputError):
        parse_truth(broken(smear, **changes))


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{"])
def test_what_is_no_document_is_refused(text):
    with pytest.raises(InputError):
        parse_truth(text)
