"""Converts a graph to float16 except for named nodes; a value is cast once, where it passes between the
types.

onnxruntime.transformers.float16 is no alternative: it rounds values to float16 even between two nodes that
are to stay float32. Imports onnx.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

_HALF = ".half"
_FLOAT32_INPUTS = {"Resize": (1, 2)}
"""positions of inputs that are always float32, by operator. Source: ONNX, Resize-19"""
_KEPT = ("Cast", "Constant", "ConstantOfShape", "Range", "RandomNormal")
"""operators whose output type is an attribute"""


def converted_to_float16(model: ModelProto, exact: Set[str]) -> ModelProto:
    """Return the graph in float16 except for the nodes named in `exact`; inputs and outputs keep their
    types.
    """
    return _Float16Conversion(model, exact).converted()


class _Float16Conversion:
    """Each value exists as `name` (float32), as `name.half` (float16), or as both with a cast between
    them.
    """

    def __init__(self, model: ModelProto, exact: Set[str]) -> None:
        self._model = model
        self._exact = exact
        inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self._float_values = {
            value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self._weights = {
            tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT
        }
        self._present: set[str] = {value.name for value in model.graph.input}
        self._nodes: list[NodeProto] = []
        self._converted_weights: dict[str, TensorProto] = {}

    def converted(self) -> ModelProto:
        graph = self._model.graph
        for node in graph.node:
            self._add(node)
        for value in graph.output:
            self._reference(value.name, value.name)
        others = [tensor for tensor in graph.initializer if tensor.name not in self._weights]
        for field in ("node", "initializer", "value_info"):
            graph.ClearField(field)
        graph.node.extend(self._nodes)
        graph.initializer.extend([*others, *self._converted_weights.values()])
        return self._model

    def _add(self, node: NodeProto) -> None:
        half = node.name not in self._exact and node.op_type not in _KEPT
        for place, name in enumerate(node.input):
            single = not half or place in _FLOAT32_INPUTS.get(node.op_type, ())
            node.input[place] = self._reference(name, name if single else name + _HALF)
        for place, name in enumerate(node.output):
            if half and name in self._float_values:
                node.output[place] = name + _HALF
            self._present.add(node.output[place])
        self._nodes.append(node)

    def _reference(self, name: str, wanted: str) -> str:
        """Return `wanted`, the float32 or float16 form of the value `name`; a cast is added if it is
        missing.
        """
        if name in self._weights:
            self._keep_weight(name, wanted)
            return wanted
        if name not in self._float_values:
            return name
        if wanted not in self._present:
            source, kind = (
                (name + _HALF, TensorProto.FLOAT) if wanted == name else (name, TensorProto.FLOAT16)
            )
            self._nodes.append(helper.make_node("Cast", [source], [wanted], name=f"{wanted}.cast", to=kind))
            self._present.add(wanted)
        return wanted

    def _keep_weight(self, name: str, wanted: str) -> None:
        if wanted == name:
            self._converted_weights[wanted] = self._weights[name]
        elif wanted not in self._converted_weights:
            most = np.finfo(np.float16).max
            weights = np.clip(numpy_helper.to_array(self._weights[name]), -most, most)
            self._converted_weights[wanted] = numpy_helper.from_array(weights.astype(np.float16), wanted)
