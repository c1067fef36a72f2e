"""A manifest says the same after it was written and read."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from pipeline.bundle.int8_figures import GateFigure, Int8Entry, Precision, StoredGraph
from pipeline.bundle.manifest import (
    BundleManifest,
    ClassifierEntry,
    DataEntry,
    Figure,
    MemberEntry,
    Profile,
    ProfileEntry,
    RecipeEntry,
    SegmenterEntry,
    SegmenterMember,
    Thresholds,
    Timing,
)
from pipeline.model.errors import DeploymentError
from pipeline.model.spec import PipelineSpec

LIGHT = SegmenterMember("light-unet", "light.onnx", "aa", 9, "cc", "dd", 16)
UNET = SegmenterMember("unet", "unet.onnx", "ab", 9, "ce", "de", 24)
PROFILES = (
    ProfileEntry(Profile.FAST, ("light-unet",)),
    ProfileEntry(Profile.ACCURATE, ("unet", "light-unet")),
)
KEPT = Int8Entry("light.int8.onnx", "8a", "minmax", (GateFigure("cell_dice", 0.95, 0.949),))
REFUSED = Int8Entry(None, None, "entropy", (GateFigure("group_macro_f1", 0.9, 0.8),))
LITE0 = MemberEntry("lite0", "classifier_lite0.onnx", "bb", 7, "cf", "df")

MANIFEST = BundleManifest(
    name="leukoflow",
    version="1",
    classes=("lymphocyte", "artefact"),
    opset=20,
    segmenter=SegmenterEntry(0.25, (LIGHT, UNET), PROFILES),
    classifier=ClassifierEntry(128, 0.18, 2, (LITE0,)),
    data_sets=(DataEntry("bccd", "MIT", 3, 2),),
    recipes=(RecipeEntry("light-unet", "cc"),),
    thresholds=Thresholds(0.5, 0.8, 0.3, 0.01),
    figures=(Figure("bccd", "cell_dice", 0.95),),
    timings=(Timing(Profile.FAST, "cpu_s_per_mpx", 0.4),),
    trained_on="2026-11-22",
    software=(("torch", "2.13.0"),),
)


def _quantised() -> BundleManifest:
    segmenter = replace(MANIFEST.segmenter, members=(replace(LIGHT, int8=KEPT), UNET))
    classifier = replace(MANIFEST.classifier, members=(replace(LITE0, int8=REFUSED),))
    return replace(MANIFEST, segmenter=segmenter, classifier=classifier)


@pytest.mark.parametrize("manifest", [MANIFEST, replace(MANIFEST, thresholds=None), _quantised()])
def test_round_trip(manifest: BundleManifest) -> None:
    assert BundleManifest.parse(manifest.render()) == manifest


def test_digest_follows_what_decides_results_and_nothing_else() -> None:
    told_more = replace(MANIFEST, figures=(), timings=(), trained_on="2027-01-01", software=())
    assert told_more.digest == MANIFEST.digest
    others = [
        _with_light(sha256="ac"),
        replace(MANIFEST, classes=tuple(reversed(MANIFEST.classes))),
        replace(MANIFEST, thresholds=None),
        replace(MANIFEST, classifier=replace(MANIFEST.classifier, members=(replace(LITE0, sha256="b"),))),
        replace(MANIFEST, segmenter=replace(MANIFEST.segmenter, working_mpp_um=0.3)),
    ]
    for profile in Profile:
        assert len({MANIFEST.digest_of(profile), *(other.digest_of(profile) for other in others)}) == 6
    assert len({MANIFEST.digest, *(other.digest for other in others)}) == 6
    assert len(MANIFEST.digest) == 64


def _with_light(**changes: str) -> BundleManifest:
    members = (replace(LIGHT, **changes), UNET)
    return replace(MANIFEST, segmenter=replace(MANIFEST.segmenter, members=members))


def test_a_profiles_digest_is_its_own_and_does_not_follow_networks_of_others() -> None:
    assert MANIFEST.digest_of(Profile.FAST) != MANIFEST.digest_of(Profile.ACCURATE)
    members = (LIGHT, replace(UNET, sha256="ad"))
    retrained = replace(MANIFEST, segmenter=replace(MANIFEST.segmenter, members=members))
    assert retrained.digest_of(Profile.FAST) == MANIFEST.digest_of(Profile.FAST)
    assert retrained.digest_of(Profile.ACCURATE) != MANIFEST.digest_of(Profile.ACCURATE)
    assert retrained.digest != MANIFEST.digest


def test_a_profile_has_its_networks_in_order_and_a_step_that_suits_all() -> None:
    assert MANIFEST.segmenters(Profile.ACCURATE) == (UNET, LIGHT)
    assert MANIFEST.segmenters(Profile.FAST) == (LIGHT,)
    assert MANIFEST.stride_px(Profile.ACCURATE) == 48
    light_only = replace(MANIFEST, segmenter=replace(MANIFEST.segmenter, profiles=PROFILES[:1]))
    with pytest.raises(DeploymentError, match="no profile 'accurate'; it has: fast"):
        light_only.segmenters(Profile.ACCURATE)


def test_thresholds_of_the_bundle_become_the_analysis_parameters() -> None:
    spec = MANIFEST.spec
    assert (spec.accept_probability, spec.leaf_probability, spec.max_disagreement) == (0.5, 0.8, 0.3)
    assert replace(MANIFEST, thresholds=None).spec == PipelineSpec()
    assert spec.digest != PipelineSpec().digest


def test_a_manifest_from_before_int8_is_read() -> None:
    document = json.loads(MANIFEST.render())
    for member in (*document["segmenter"]["members"], *document["classifier"]["members"]):
        del member["int8"]
    assert BundleManifest.parse(json.dumps(document)) == MANIFEST


def test_the_digest_of_a_precision_follows_the_files_that_run_in_it() -> None:
    told = _quantised()
    for profile in Profile:
        assert told.digest_of(profile) == MANIFEST.digest_of(profile)
        assert told.digest_of(profile, Precision.INT8) != MANIFEST.digest_of(profile)
        assert MANIFEST.digest_of(profile, Precision.INT8) == MANIFEST.digest_of(profile)
    assert told.digest != MANIFEST.digest


def test_an_int8_digest_follows_the_fp32_file_too_for_its_weights_are_there() -> None:
    told = _quantised()
    members = (replace(told.segmenter.members[0], sha256="ac"), UNET)
    retrained = replace(told, segmenter=replace(told.segmenter, members=members))
    assert retrained.digest_of(Profile.FAST, Precision.INT8) != told.digest_of(Profile.FAST, Precision.INT8)


def test_what_the_gate_refused_runs_in_floats() -> None:
    light, lite0 = replace(LIGHT, int8=KEPT), replace(LITE0, int8=REFUSED)
    assert light.stored(Precision.INT8) == StoredGraph("light.int8.onnx", "8a", Precision.INT8)
    assert light.stored(Precision.FP32) == StoredGraph("light.onnx", "aa", Precision.FP32)
    for precision in Precision:
        assert lite0.stored(precision) == StoredGraph(LITE0.file, "bb", Precision.FP32)


def test_an_int8_file_lies_in_the_bundles_folder() -> None:
    text = _quantised().render().replace("light.int8.onnx", "../light.int8.onnx")
    with pytest.raises(DeploymentError, match="outside its own folder"):
        BundleManifest.parse(text)


def _segmenter(**changes: object) -> dict[str, object]:
    return asdict(MANIFEST.segmenter) | changes


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"thresholds": {"accept_probability": 1.5, "leaf_probability": 0, "max_disagreement": 0, "risk": 0}},
        {"thresholds": {"accept_probability": 0.5}},
        {"timings": [{"profile": "slow", "measure": "cpu_s_per_mpx", "value": 1}]},
        {"classes": "lymphocyte"},
        {"opset": "20"},
        {"opset": True},
        {"segmenter": None},
        {"segmenter": _segmenter(members=[])},
        {"segmenter": _segmenter(members=[asdict(LIGHT) | {"file": "../x.onnx"}])},
        {"segmenter": _segmenter(members=[asdict(LIGHT) | {"stride_px": 0}])},
        {"segmenter": _segmenter(members=[asdict(LIGHT), asdict(LIGHT)])},
        {"segmenter": _segmenter(members=[{"name": "light-unet", "file": "x.onnx"}])},
        {"segmenter": _segmenter(profiles=[])},
        {"segmenter": _segmenter(profiles=[{"profile": "fast", "members": []}])},
        {"segmenter": _segmenter(profiles=[{"profile": "fast", "members": ["cenet"]}])},
        {"segmenter": _segmenter(profiles=[{"profile": "accurate", "members": ["unet"]}])},
        {"segmenter": _segmenter(profiles=[{"profile": "fast", "members": ["unet"]}] * 2)},
        {"classifier": {"crop_px": 128, "crop_mpp_um": 0.2, "views": 1, "members": []}},
        {"classifier": {"crop_px": 128, "crop_mpp_um": 0.2, "members": [asdict(LITE0)]}},
        {"segmenter": _segmenter(members=[asdict(replace(LIGHT, int8=replace(KEPT, sha256=None)))])},
        {"segmenter": _segmenter(members=[asdict(LIGHT) | {"licence": "MIT"}])},
        {"licences": []},
        {"software": [["torch"]]},
        {"figures": [{"data_set": "bccd", "measure": "dice", "value": "high"}]},
    ],
)
def test_a_broken_manifest_is_a_deployment_error(change: dict[str, object]) -> None:
    document = json.loads(MANIFEST.render()) | change
    with pytest.raises(DeploymentError, match="manifest"):
        BundleManifest.parse(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"opset": "20"}, "has no whole number as opset"),
        ({"segmenter": None}, "has no object as segmenter"),
        ({"classes": "lymphocyte"}, "has no list as classes"),
        ({"figures": [{"data_set": "bccd", "measure": "dice"}]}, "has no value in figures"),
        ({"thresholds": asdict(Thresholds(1.5, 0, 0, 0))}, "has no number from 0 to 1 as accept_probability"),
        ({"segmenter": _segmenter(members=[asdict(LIGHT) | {"file": 3}])}, "has no text as file"),
        (
            {"segmenter": _segmenter(members=[asdict(LIGHT) | {"file": "../x.onnx"}])},
            "names a file outside its own folder",
        ),
        ({"licences": []}, "has an unknown licences in manifest"),
        ({"format": 3}, "has format 3; this version of leukoflow reads format 2: export it anew"),
    ],
)
def test_a_sentence_says_what_is_wrong(change: dict[str, object], sentence: str) -> None:
    document = json.loads(MANIFEST.render()) | change
    with pytest.raises(DeploymentError) as caught:
        BundleManifest.parse(json.dumps(document))
    assert caught.value.sentence == f"The manifest of the model bundle {sentence}."


@pytest.mark.parametrize("text", ["", "[]", "{", '"text"', "{}"])
def test_no_manifest_is_a_deployment_error(text: str) -> None:
    with pytest.raises(DeploymentError):
        BundleManifest.parse(text)
