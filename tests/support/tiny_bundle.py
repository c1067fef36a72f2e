"""A bundle of networks so small that a test makes it, and whose answers can be worked out by hand.

Every tissue or class has a weight per colour; its score is the weighted mean colour, and the softmax of the
scores is the answer. A segmenter scores pixels, a classifier whole crops.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.bundle.int8_figures import Int8Entry
from pipeline.bundle.manifest import (
    FILE_NAME,
    BundleManifest,
    ClassifierEntry,
    MemberEntry,
    Profile,
    ProfileEntry,
    SegmenterEntry,
    SegmenterMember,
)
from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.taxonomy import LEAVES

OPSET = 18
CROP_PX = 12
SEGMENTERS = {"light": (1, 8), "wide": (5, 12), "deep": (6, 16)}
"""seed and stride by name"""
PROFILES = {Profile.FAST: ("light",), Profile.ACCURATE: ("wide", "deep", "light")}
STRIDES_PX = {Profile.FAST: 8, Profile.ACCURATE: 48}
MEMBER_SEEDS = (2, 3, 4)
COMPARTMENTS = 3


def weights(seed: int, outputs: int) -> np.ndarray:
    """Return float32 (3, outputs)."""
    return np.random.default_rng(seed).normal(0, 3, (3, outputs)).astype(np.float32)


def expected_tissues(batch: Rgb, profile: Profile) -> Probabilities:
    """Return the mean of what the profile's tiny segmenters give."""
    seeds = [SEGMENTERS[name][0] for name in PROFILES[profile]]
    members = [_softmax(batch / np.float32(255) @ weights(seed, COMPARTMENTS)) for seed in seeds]
    return np.moveaxis(np.mean(members, axis=0), 3, 1)


def expected_classes(batch: Rgb) -> Probabilities:
    """Return what the tiny ensemble gives."""
    colours = (batch / np.float32(255)).mean((1, 2))
    return np.stack([_softmax(colours @ weights(seed, len(LEAVES))) for seed in MEMBER_SEEDS])


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def segmenter_model(seed: int = SEGMENTERS["light"][0], outputs: int = COMPARTMENTS) -> onnx.ModelProto:
    """Return a graph that names the tissue of each pixel by its colour."""
    nodes = [
        helper.make_node("Cast", ["rgb"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["whole", "range"], ["unit"]),
        helper.make_node("MatMul", ["unit", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["last"], axis=-1),
        helper.make_node("Transpose", ["last"], ["probabilities"], perm=[0, 3, 1, 2]),
    ]
    return _model(nodes, ["n", "h", "w", 3], ["n", outputs, "h", "w"], weights(seed, outputs))


def member_model(seed: int, outputs: int = len(LEAVES)) -> onnx.ModelProto:
    """Return a graph that names a crop by its mean colour."""
    nodes = [
        helper.make_node("Cast", ["rgb"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["whole", "range"], ["unit"]),
        helper.make_node("ReduceMean", ["unit", "sides"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
    ]
    return _model(nodes, ["n", CROP_PX, CROP_PX, 3], ["n", outputs], weights(seed, outputs))


def _model(
    nodes: list[onnx.NodeProto], takes: list[str | int], gives: list[str | int], weight: np.ndarray
) -> onnx.ModelProto:
    constants = [
        numpy_helper.from_array(np.float32(255), "range"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "sides"),
        numpy_helper.from_array(weight, "weights"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("rgb", TensorProto.UINT8, takes)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, gives)],
        [constant for constant in constants if any(constant.name in node.input for node in nodes)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def write_bundle(folder: Path) -> BundleManifest:
    """Write a whole bundle into `folder`, and return its manifest."""
    segmenters = tuple(
        SegmenterMember(
            name,
            f"{name}.onnx",
            _write(segmenter_model(seed), folder / f"{name}.onnx"),
            9,
            "r",
            "w",
            stride_px,
        )
        for name, (seed, stride_px) in SEGMENTERS.items()
    )
    profiles = tuple(ProfileEntry(profile, names) for profile, names in PROFILES.items())
    members = tuple(
        MemberEntry(
            f"member-{seed}",
            f"{seed}.onnx",
            _write(member_model(seed), folder / f"{seed}.onnx"),
            39,
            "r",
            "w",
        )
        for seed in MEMBER_SEEDS
    )
    manifest = BundleManifest(
        name="tiny",
        version="1",
        classes=tuple(leaf.value for leaf in LEAVES),
        opset=OPSET,
        segmenter=SegmenterEntry(0.25, segmenters, profiles),
        classifier=ClassifierEntry(CROP_PX, 0.2, 1, members),
        data_sets=(),
        recipes=(),
        thresholds=None,
        figures=(),
        timings=(),
        trained_on="2026-11-22",
        software=(),
    )
    write_manifest(folder, manifest)
    return manifest


def write_int8(folder: Path) -> BundleManifest:
    """Write a whole bundle; its light segmenter has an int8 file, its first classifier was refused one."""
    manifest = write_bundle(folder)
    light, *segmenters = manifest.segmenter.members
    first, *classifiers = manifest.classifier.members
    kept = Int8Entry("light.int8.onnx", _write(segmenter_model(99), folder / "light.int8.onnx"), "minmax", ())
    refused = Int8Entry(None, None, "entropy", ())
    told = replace(
        manifest,
        segmenter=replace(manifest.segmenter, members=(replace(light, int8=kept), *segmenters)),
        classifier=replace(manifest.classifier, members=(replace(first, int8=refused), *classifiers)),
    )
    write_manifest(folder, told)
    return told


def write_manifest(folder: Path, manifest: BundleManifest) -> None:
    (folder / FILE_NAME).write_text(manifest.render(), encoding="utf-8")


def swap_segmenter(folder: Path, manifest: BundleManifest, model: onnx.ModelProto) -> BundleManifest:
    """Put another graph in place of the light segmenter, with a manifest that names it truly."""
    swapped = with_light_digest(manifest, _write(model, folder / manifest.segmenter.members[0].file))
    write_manifest(folder, swapped)
    return swapped


def with_light_digest(manifest: BundleManifest, sha256: str) -> BundleManifest:
    """Return the manifest with another digest for the light segmenter's file."""
    light, *others = manifest.segmenter.members
    members = (replace(light, sha256=sha256), *others)
    return replace(manifest, segmenter=replace(manifest.segmenter, members=members))


def _write(model: onnx.ModelProto, file: Path) -> str:
    onnx.checker.check_model(model)
    body = model.SerializeToString()
    file.write_bytes(body)
    return sha256_of(body)


def sha256_of(body: bytes) -> str:
    """Return the hex sha256 that a manifest names."""
    return hashlib.sha256(body).hexdigest()
