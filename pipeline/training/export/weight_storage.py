"""How ONNX files hold weights: large ones as float16, and once for a network's FP32 and its int8 graph."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

HALVED_LEAST = 4096
"""numbers in a tensor; smaller ones, and biases and norms, are stored as they are. With the first layers in
float16 too, 1.6 % of the weights, a MobileNetV2's probabilities move by up to 0.016, without by 0.001"""
SHARED_LEAST = 1024
"""numbers in a tensor; of fewer a reference takes more bytes than they do"""
_HALF = ".float16"
_QUANTISED = "_quantized"
"""what onnxruntime's quantiser puts behind the name of a weight"""
_INT8_MAX = 127
_NEGLIGIBLE = 1e-5
"""difference of a weight that is let pass: channels of weights near float16's least, 6e-8, lose steps"""

Floats: TypeAlias = "npt.NDArray[np.float32]"


class Storage(StrEnum):
    """As what a file holds its weights. Computed is in float32, always."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


def clean(model: ModelProto) -> None:
    """Remove notes, which hold paths of this machine, and operator sets that no node is of."""
    for noted in (model, model.graph, *model.graph.node, *model.graph.initializer):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.ClearField("metadata_props")
    used = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    model.ClearField("opset_import")
    model.opset_import.extend(imports)


def halve(model: ModelProto) -> None:
    """Store large tensors as float16, each with a cast to float32 behind it, which is folded at load."""
    casts: list[NodeProto] = []
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype != np.float32 or weights.ndim < 2 or weights.size < HALVED_LEAST:
            continue
        if np.abs(weights).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(weights.astype(np.float16), name + _HALF))
        casts.append(_to_float32(tensor.name, name))
    _put_first(model, casts)


def share_weights(model: ModelProto, source: Path) -> None:
    """Let an int8 graph read its weights from the file of the FP32 graph that it was made of.

    Each large int8 tensor gives way to a reference into `source` (ONNX's external data), and to nodes that
    divide by the scale, round and cast; engines fold them at load into the tensor that was there. One that
    they would not give again stays. The graph is to be saved beside `source`.
    """
    stored = _stored_weights(source)
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    shared: dict[str, TensorProto] = {}
    shapes: dict[str, TensorProto] = {}
    for node in model.graph.node:
        name = node.input[0] if node.op_type == "DequantizeLinear" else ""
        weight = stored.get(name.removesuffix(_QUANTISED))
        if name not in held or name in shared or weight is None:
            continue
        shape = _scale_shape(node, held[node.input[1]], weight.values.ndim)
        scale = numpy_helper.to_array(held[node.input[1]]).reshape(shape)
        if not _gives(weight.values, scale, numpy_helper.to_array(held[name])):
            continue
        broadcast = numpy_helper.from_array(np.array(shape, np.int64), f"shape_{'_'.join(map(str, shape))}")
        shapes[broadcast.name] = broadcast
        shared[name] = weight.reference
        nodes += _quantising(weight, node.input[1], broadcast.name, name)
    kept = [tensor for name, tensor in held.items() if name not in shared]
    model.graph.ClearField("initializer")
    model.graph.initializer.extend([*shared.values(), *shapes.values(), *kept])
    model.graph.ClearField("value_info")  # it may name a type that is another now
    _put_first(model, nodes)


def drop_zero_points(model: ModelProto) -> None:
    """Leave out the zero points of weights and biases, one a channel: they are 0, as those left out are."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in held or len(node.input) < 3:
            continue
        if not numpy_helper.to_array(held[node.input[2]]).any():
            del node.input[2]
    used = {name for node in model.graph.node for name in node.input}
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(tensor for name, tensor in held.items() if name in used)


@dataclass(frozen=True, slots=True)
class _StoredWeight:
    """A weight in a file: what is computed with, its name there, and a reference to its bytes."""

    name: str
    values: Floats
    reference: TensorProto


def _stored_weights(source: Path) -> dict[str, _StoredWeight]:
    """Return the large weights of a file, by the name of the float32 tensor in its graph."""
    body = source.read_bytes()
    graph = onnx.load_model_from_string(body).graph
    cast = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Cast"}
    found: dict[str, _StoredWeight] = {}
    for tensor in graph.initializer:
        # An equal tensor may be found in its stead: its bytes are the same.
        offset = body.find(tensor.raw_data) if tensor.raw_data else -1
        if offset < 0 or tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            continue
        name = tensor.name if tensor.data_type == TensorProto.FLOAT else cast.get(tensor.name, "")
        values = numpy_helper.to_array(tensor).astype(np.float32)
        if values.size >= SHARED_LEAST:
            found[name] = _StoredWeight(name, values, _reference(tensor, source.name, offset))
    return found


def _reference(tensor: TensorProto, file: str, offset: int) -> TensorProto:
    reference = TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", file), ("offset", offset), ("length", len(tensor.raw_data))):
        reference.external_data.add(key=key, value=str(value))
    return reference


def _scale_shape(dequantise: NodeProto, scale: TensorProto, axes: int) -> tuple[int, ...]:
    """Return the shape in which a scale of one number, or of one a channel, is a weight's divisor."""
    shape = [1] * axes
    if scale.dims:
        axis = next((int(entry.i) for entry in dequantise.attribute if entry.name == "axis"), 1)
        shape[axis] = scale.dims[0]
    return tuple(shape)


def _gives(weights: Floats, scale: Floats, int8: npt.NDArray[np.int8]) -> bool:
    """Return whether the weights, divided and rounded, are the int8 ones."""
    steps = np.rint(weights / scale)
    differences = np.abs(steps - int8) * scale
    return bool(np.abs(steps).max() <= _INT8_MAX and differences.max() <= _NEGLIGIBLE)


def _quantising(weight: _StoredWeight, scale: str, shape: str, target: str) -> list[NodeProto]:
    """Return the nodes that make int8 of a stored weight.

    Not QuantizeLinear: OpenVINO 2026.4 takes it for its own FakeQuantize and finds other steps (U-Net's
    probabilities move by 0.3).
    """
    name = weight.name
    steps, ratio, rounded = f"{name}.steps", f"{name}.ratio", f"{name}.rounded"
    casts = [] if weight.reference.name == name else [_to_float32(weight.reference.name, name)]
    return [
        *casts,
        helper.make_node("Reshape", [scale, shape], [steps]),
        helper.make_node("Div", [name, steps], [ratio]),
        helper.make_node("Round", [ratio], [rounded]),
        helper.make_node("Cast", [rounded], [target], to=TensorProto.INT8),
    ]


def _to_float32(source: str, target: str) -> NodeProto:
    return helper.make_node("Cast", [source], [target], to=TensorProto.FLOAT)


def _put_first(model: ModelProto, nodes: list[NodeProto]) -> None:
    others = list(model.graph.node)
    model.graph.ClearField("node")
    model.graph.node.extend([*nodes, *others])
