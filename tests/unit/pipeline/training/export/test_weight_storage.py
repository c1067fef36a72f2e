"""Weights that are stored once, for a network's FP32 and its int8 graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from pipeline.bundle.int8_figures import Precision
from pipeline.runtime.engines.calibration_batches import CalibrationBatches
from pipeline.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from pipeline.runtime.engines.openvino_engine import OpenVinoEngine, StreamCounts
from pipeline.training.export import weight_storage
from pipeline.training.export.weight_storage import (
    SHARED_LEAST,
    Storage,
    clean,
    drop_zero_points,
    halve,
    share_weights,
)
from tests.support import tiny_networks

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(params=list(Storage))
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tiny_networks.write_segmenter(tmp_path / "plain.onnx")
    if request.param is Storage.FLOAT16:
        monkeypatch.setattr(weight_storage, "HALVED_LEAST", SHARED_LEAST)
        model = onnx.load(file)
        halve(model)
        onnx.save(model, file)
        assert any(one.data_type == TensorProto.FLOAT16 for one in model.graph.initializer)
    return file


@pytest.fixture
def int8(source: Path) -> Path:
    """As onnxruntime makes it: with int8 weights of its own."""
    folded, target = source.with_name("folded.onnx"), source.with_name("own.int8.onnx")
    quant_pre_process(str(source), str(folded), skip_symbolic_shape=True, auto_merge=False)
    quantize_static(
        folded,
        target,
        CalibrationBatches([PICTURES]),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    folded.unlink()
    return target


@pytest.fixture
def shared(source: Path, int8: Path) -> Path:
    model = onnx.load(int8)
    clean(model)
    drop_zero_points(model)
    share_weights(model, source)
    target = source.with_name("shared.int8.onnx")
    target.write_bytes(model.SerializeToString())
    return target


def test_both_engines_give_the_very_same_answers(int8: Path, shared: Path) -> None:
    for run in (
        lambda file: OnnxRuntimeEngine(file, 1).run(PICTURES),
        lambda file: OpenVinoEngine(file, StreamCounts(1, 1), Precision.INT8).run(PICTURES),
    ):
        assert np.array_equal(run(shared), run(int8))


def test_large_weights_are_only_in_the_fp32_file(source: Path, shared: Path) -> None:
    graph = onnx.load(shared, load_external_data=False).graph
    referring = [one for one in graph.initializer if one.data_location == TensorProto.EXTERNAL]
    assert referring
    for tensor in referring:
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert place["location"] == source.name
        assert not tensor.raw_data
    others = [one for one in graph.initializer if one.data_location != TensorProto.EXTERNAL]
    assert all(np.prod(one.dims) < SHARED_LEAST for one in others)
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(source).graph.initializer}
    for tensor in onnx.load(shared).graph.initializer:
        if tensor.name in {one.name for one in referring}:
            assert np.array_equal(numpy_helper.to_array(tensor), stored[tensor.name])


def test_weights_that_other_steps_were_made_of_stay(source: Path, int8: Path) -> None:
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) >= SHARED_LEAST:
            other = numpy_helper.to_array(tensor) * np.float16(0.9)
            tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
    retrained = source.with_name("retrained.onnx")
    onnx.save(model, retrained)
    int8_model = onnx.load(int8)
    share_weights(int8_model, retrained)
    assert all(one.data_location != TensorProto.EXTERNAL for one in int8_model.graph.initializer)
    onnx.checker.check_model(int8_model)


def test_nothing_of_this_machine_is_left_and_no_operator_set_without_a_node(shared: Path) -> None:
    model = onnx.load(shared)
    assert [entry.domain for entry in model.opset_import] == [""]
    assert not model.metadata_props
    assert str(shared.parent).encode() not in shared.read_bytes()
