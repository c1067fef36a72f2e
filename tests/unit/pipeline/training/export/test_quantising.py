"""Graphs that compute with bytes, and the gate that lets them into a bundle or does not."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

from pipeline.bundle.int8_figures import GateFigure, Precision
from pipeline.bundle.manifest import (
    BundleManifest,
    ClassifierEntry,
    MemberEntry,
    SegmenterEntry,
    SegmenterMember,
)
from pipeline.model.errors import UsageError
from pipeline.model.taxonomy import LEAVES, CellClass
from pipeline.runtime.bundle_loader import load_bundle
from pipeline.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from pipeline.training.data.targets import leaf_set
from pipeline.training.data.training_samples import CropSample, FieldSample, MapKind
from pipeline.training.export import int8_gate
from pipeline.training.export.int8_gate import Pictures, passes, quantise_bundle, tile
from pipeline.training.export.static_quantisation import Calibration, outside_products, quantise
from tests.support import tiny_bundle, tiny_networks

CROP_PX = 24
DRAWN = np.random.default_rng(0)


def _drawn(count: int, side_px: int) -> np.ndarray:
    return DRAWN.integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return tiny_networks.write_classifier(tmp_path / "plain.onnx", CROP_PX, len(LEAVES))


def test_balance_and_softmax_stay_in_floats(classifier: Path) -> None:
    outside = outside_products(onnx.load(classifier).graph)
    assert outside == {"channels", "numbers", "unit", "brightest", "light", "balance", "shares"}


@pytest.mark.parametrize("calibration", list(Calibration))
def test_bytes_answer_nearly_as_floats(classifier: Path, tmp_path: Path, calibration: Calibration) -> None:
    target = tmp_path / "bytes.onnx"
    quantise(classifier, target, [_drawn(8, CROP_PX) for _ in range(8)], calibration)
    graph = onnx.load(target, load_external_data=False).graph
    weights = [one for one in graph.initializer if len(one.dims) == 4]
    assert weights
    assert all(_is_int8_or_made_so(graph, one) for one in weights)
    zero_points = {one.data_type for one in graph.initializer if one.name.endswith("_zero_point")}
    assert onnx.TensorProto.UINT8 in zero_points
    batch = _drawn(16, CROP_PX)
    with OnnxRuntimeEngine(classifier, 1) as whole, OnnxRuntimeEngine(target, 1) as bytes_:
        difference = np.abs(whole.run(batch) - bytes_.run(batch)).max()
    assert 0 < difference < 0.1


@pytest.mark.parametrize("calibration", list(Calibration))
def test_the_last_batch_may_be_smaller(classifier: Path, tmp_path: Path, calibration: Calibration) -> None:
    batches = [_drawn(8, CROP_PX) for _ in range(8)] + [_drawn(3, CROP_PX)]
    quantise(classifier, tmp_path / "bytes.onnx", batches, calibration)
    assert (tmp_path / "bytes.onnx").exists()


def test_weights_stored_as_float16_are_quantised_too(classifier: Path, tmp_path: Path) -> None:
    model = onnx.load(classifier)
    weight = next(one for one in model.graph.initializer if one.name == "two.weight")
    halved = onnx.numpy_helper.to_array(weight).astype(np.float16)
    weight.CopyFrom(onnx.numpy_helper.from_array(halved, "two.weight.float16"))
    cast = onnx.helper.make_node("Cast", ["two.weight.float16"], ["two.weight"], to=onnx.TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    onnx.save(model, classifier)
    quantise(classifier, tmp_path / "bytes.onnx", [_drawn(8, CROP_PX)], Calibration.MINMAX)
    graph = onnx.load(tmp_path / "bytes.onnx", load_external_data=False).graph
    weights = [one for one in graph.initializer if len(one.dims) == 4]
    assert "two.weight.float16" in {one.name for one in weights}
    assert all(_is_int8_or_made_so(graph, one) for one in weights)


def _is_int8_or_made_so(graph: onnx.GraphProto, weight: onnx.TensorProto) -> bool:
    """Return whether a weight is int8, or lies in the FP32 file and is divided, rounded and cast."""
    name, steps = weight.name, []
    while node := next((one for one in graph.node if name in one.input), None):
        if node.op_type == "DequantizeLinear":
            break
        steps.append(node.op_type)
        name = node.output[0]
    external = weight.data_location == onnx.TensorProto.EXTERNAL
    return (external and steps[-3:] == ["Div", "Round", "Cast"]) or (
        weight.data_type == onnx.TensorProto.INT8 and not steps
    )


@pytest.mark.parametrize(
    ("int8", "let"),
    [((0.9, 0.9), True), ((0.895, 0.95), True), ((0.8949, 0.95), False), ((1.0, 0.894), False)],
)
def test_no_figure_may_fall_far(int8: tuple[float, float], let: bool) -> None:
    assert passes(GateFigure(name, 0.9, value) for name, value in zip("ab", int8, strict=True)) is let


def test_a_tile_is_the_middle_on_white_glass() -> None:
    picture = np.zeros((6, 20, 3), np.uint8)
    picture[:, 6:14] = 9
    cut = tile(picture, 8)
    assert cut.shape == (8, 8, 3)
    assert (cut[:6] == 9).all()
    assert (cut[6:] == 255).all()


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, BundleManifest]:
    folder = tmp_path / "bundle"
    folder.mkdir()
    found = tiny_networks.write_segmenter(folder / "found.onnx")
    named = tiny_networks.write_classifier(folder / "named.onnx", CROP_PX, len(LEAVES))
    manifest = tiny_bundle.write_bundle(tmp_path)
    segmenter = SegmenterMember("light", found.name, _digest(found), 9, "r", "w", 8)
    profiles = (replace(manifest.segmenter.profiles[0], members=("light",)),)
    told = replace(
        manifest,
        opset=tiny_networks.OPSET,
        segmenter=SegmenterEntry(0.25, (segmenter,), profiles),
        classifier=ClassifierEntry(
            CROP_PX, 0.2, 1, (MemberEntry("only", named.name, _digest(named), 9, "r", "w"),)
        ),
    )
    tiny_bundle.write_manifest(folder, told)
    return folder, told


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _pictures() -> Pictures:
    classes = (CellClass.LYMPHOCYTE, CellClass.MONOCYTE, CellClass.BASOPHIL)
    crops = tuple(CropSample("bccd", one, leaf_set(one), _drawn(1, 38)[0]) for one in classes * 4)
    tissue = np.tile(np.array([0, 1, 2, 2], np.uint8), (32, 8))
    fields = tuple(FieldSample("bccd", MapKind.EXACT, _drawn(1, 32)[0], tissue) for _ in range(4))
    return Pictures(crops, fields, crops, fields)


def test_a_bundle_gets_bytes_where_the_gate_lets_them(
    bundle: tuple[Path, BundleManifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = bundle
    monkeypatch.setattr(int8_gate, "ALLOWED_LOSS", 1.0)
    heard: list[str] = []
    told = quantise_bundle(folder, _pictures(), heard.append)
    assert load_bundle(folder).manifest == told
    assert told.digest_of(told.segmenter.profiles[0].profile) == before.digest_of(
        before.segmenter.profiles[0].profile
    )
    measures = []
    for member in told.members:
        assert member.stored(Precision.INT8).precision is Precision.INT8
        assert member.int8 is not None
        measures += [figure.measure for figure in member.int8.gate]
    assert measures == ["cell_dice", "nucleus_dice", "group_macro_f1"]
    assert len(heard) == 2


def test_what_loses_too_much_stays_in_floats_and_leaves_no_file(
    bundle: tuple[Path, BundleManifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = bundle
    monkeypatch.setattr(int8_gate, "ALLOWED_LOSS", -1.0)
    heard: list[str] = []
    told = quantise_bundle(folder, _pictures(), heard.append)
    for member in told.members:
        assert member.int8 is not None
        assert member.int8.file is None
        assert member.int8.gate
        assert member.stored(Precision.INT8) == member.stored(Precision.FP32)
    assert told.digest == before.digest
    assert list(folder.glob("*.int8.onnx")) == []
    assert sum("stays fp32" in line for line in heard) == 2


def test_a_gate_without_pictures_lets_nothing_pass(bundle: tuple[Path, BundleManifest]) -> None:
    folder, before = bundle
    with pytest.raises(UsageError) as caught:
        quantise_bundle(folder, replace(_pictures(), val_fields=()), [].append)
    assert caught.value.code == "no_pictures"
    assert load_bundle(folder).manifest == before
