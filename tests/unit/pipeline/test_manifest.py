"""A manifest says the same after it was written and read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pipeline.errors import DeploymentError
from pipeline.manifest import (
    BundleManifest,
    ClassifierEntry,
    DataEntry,
    Figure,
    MemberEntry,
    RecipeEntry,
    SegmenterEntry,
)

MANIFEST = BundleManifest(
    name="leukoflow",
    version="1",
    classes=("lymphocyte", "artefact"),
    opset=20,
    segmenter=SegmenterEntry("segmenter.onnx", "aa", 16, 0.25),
    classifier=ClassifierEntry(128, 0.18, (MemberEntry("lite0", "classifier_lite0.onnx", "bb", 7),)),
    data_sets=(DataEntry("bccd", "MIT", 3, 2),),
    recipes=(RecipeEntry("light-unet", "cc"),),
    figures=(Figure("bccd", "cell_dice", 0.95),),
    trained_on="2026-11-22",
    software=(("torch", "2.13.0"),),
)


def test_round_trip() -> None:
    assert BundleManifest.parse(MANIFEST.render()) == MANIFEST


def test_digest_follows_what_decides_results_and_nothing_else() -> None:
    told_more = replace(MANIFEST, figures=(), trained_on="2027-01-01", software=())
    assert told_more.digest == MANIFEST.digest
    other_weights = replace(MANIFEST, segmenter=replace(MANIFEST.segmenter, sha256="ab"))
    other_order = replace(MANIFEST, classes=tuple(reversed(MANIFEST.classes)))
    assert len({MANIFEST.digest, other_weights.digest, other_order.digest}) == 3
    assert len(MANIFEST.digest) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"classes": "lymphocyte"},
        {"opset": "20"},
        {"opset": True},
        {"segmenter": None},
        {"segmenter": {"file": "../x.onnx", "sha256": "a", "stride_px": 16, "working_mpp_um": 0.25}},
        {"segmenter": {"file": "x.onnx", "sha256": "a", "stride_px": 16}},
        {"classifier": {"crop_px": 128, "crop_mpp_um": 0.2, "members": []}},
        {"software": [["torch"]]},
        {"figures": [{"data_set": "bccd", "measure": "dice", "value": "high"}]},
    ],
)
def test_a_broken_manifest_is_a_deployment_error(change: dict[str, object]) -> None:
    document = json.loads(MANIFEST.render()) | change
    with pytest.raises(DeploymentError, match="manifest"):
        BundleManifest.parse(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "{", '"text"', "{}"])
def test_no_manifest_is_a_deployment_error(text: str) -> None:
    with pytest.raises(DeploymentError):
        BundleManifest.parse(text)
