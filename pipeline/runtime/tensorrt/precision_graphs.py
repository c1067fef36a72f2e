"""Sets the precision of a graph before TensorRT parses it, because its networks are strongly typed.

Imports onnx: import this module where a plan is built, not where one is run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from pipeline.bundle.manifest import INPUT_NAME
from pipeline.model.domain import Rgb
from pipeline.model.errors import DeploymentError
from pipeline.runtime.engines.calibration_batches import CalibrationBatches
from pipeline.runtime.engines.quantisation_without_telemetry import QuantFormat, QuantType, quantize_static
from pipeline.runtime.tensorrt.batch_shapes import PlanPrecision
from pipeline.runtime.tensorrt.float16_conversion import converted_to_float16

_QUANTISED = ("Conv", "Gemm")
"""The operators with nearly all of the arithmetic. Their outputs are not quantised: the activation that
follows is fused into them, and the input of the next operator is quantised instead."""
_OPTIONS: Mapping[str, bool | list[str]] = {
    "ActivationSymmetric": True,  # TensorRT's parser rejects zero points other than 0 ...
    "WeightSymmetric": True,
    "QuantizeBias": False,  # ... and biases as int32
    "OpTypesToExcludeOutputQuantization": list(_QUANTISED),
}


def prepared(graph: bytes, precision: PlanPrecision, calibration: Iterable[Rgb] = ()) -> bytes:
    """Return the ONNX graph that computes in `precision`: uint8 in and float32 probabilities out, as before.

    `calibration`: uint8 (N, H, W, 3) batches like those in use; int8 needs them.
    Raises: DeploymentError, where `graph` is not an ONNX file, or int8 has no calibration pictures.
    """
    model = _cast_first(_folded(_parsed(graph)))
    if precision is PlanPrecision.FP16:
        model = _in_float16(model)
    if precision is PlanPrecision.INT8:
        model = _quantised(model, calibration)
    return bytes(model.SerializeToString())


def _parsed(graph: bytes) -> ModelProto:
    try:
        model = onnx.load_model_from_string(graph)
        onnx.checker.check_model(model)
    except (ValueError, onnx.checker.ValidationError, onnx.parser.ParseError) as error:
        raise DeploymentError("The file is not an ONNX graph.", code="bundle_graph") from error
    except Exception as error:
        if type(error).__name__ != "DecodeError":  # of protobuf, which is no dependency of leukoflow
            raise
        raise DeploymentError("The file is not an ONNX graph.", code="bundle_graph") from error
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{index}"  # nodes that stay float32 are listed by name
    return model


def _folded(model: ModelProto) -> ModelProto:
    """Return the graph with weights as float32 that are stored as float16 and cast (training/export)."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    kept: list[NodeProto] = []
    for node in model.graph.node:
        source = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if source is None or source.data_type != TensorProto.FLOAT16 or _cast_to(node) != TensorProto.FLOAT:
            kept.append(node)
            continue
        weights = numpy_helper.to_array(source).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
    model.graph.ClearField("node")
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    remaining = [tensor for tensor in model.graph.initializer if tensor.name in used]
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(remaining)
    return model


def _cast_first(model: ModelProto) -> ModelProto:
    """Return the graph with its uint8 input cast before it is transposed:

    casting is all TensorRT does with uint8.
    """
    for first, second in pairwise(model.graph.node):
        if (first.op_type, second.op_type) == ("Transpose", "Cast") and first.input[0] == INPUT_NAME:
            if list(second.input) != list(first.output):
                continue
            middle, last = first.output[0], second.output[0]
            transposed, cast = NodeProto(), NodeProto()
            transposed.CopyFrom(first)
            cast.CopyFrom(second)
            cast.input[0], cast.output[0] = INPUT_NAME, middle
            transposed.input[0], transposed.output[0] = middle, last
            first.CopyFrom(cast)
            second.CopyFrom(transposed)
            _forget_type(model, middle)
    return model


def _forget_type(model: ModelProto, name: str) -> None:
    kept = [value for value in model.graph.value_info if value.name != name]
    model.graph.ClearField("value_info")
    model.graph.value_info.extend(kept)


def _cast_to(node: NodeProto) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")


def _in_float16(model: ModelProto) -> ModelProto:
    """Return the graph in float16 from its first convolution to before its softmax, with casts at both ends.

    What precedes it stays float32: the colour balance (networks/colour_balance.py) computes with grey levels
    up to 255 and divides by their means, for which the 11 bits of float16 are too coarse.
    """
    return converted_to_float16(model, _before_first_convolution(model) | _after_last_product(model))


def _quantised(model: ModelProto, calibration: Iterable[Rgb]) -> ModelProto:
    """Return the graph with symmetric Q/DQ pairs at the inputs of convolutions and matrix products."""
    reader = CalibrationBatches(calibration)
    if reader.is_empty:
        raise DeploymentError("int8 needs calibration pictures; there are none.", code="calibration_empty")
    with tempfile.TemporaryDirectory() as folder:
        plain, target = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, plain)
        quantize_static(
            plain,
            target,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTISED),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options=dict(_OPTIONS),
        )
        return onnx.load(target)


def _before_first_convolution(model: ModelProto) -> set[str]:
    """Return the names of the nodes before the first convolution."""
    before: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Conv":
            break
        before.add(node.name)
    return before


def _after_last_product(model: ModelProto) -> set[str]:
    """Return the names of the nodes after the last convolution or matrix product: temperature and softmax."""
    after: set[str] = set()
    for node in reversed(model.graph.node):
        if node.op_type in _QUANTISED or node.op_type == "Resize":
            break
        after.add(node.name)
    return after
