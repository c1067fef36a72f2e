"""The part of a graph that may compute in float16 does so; every value is cast once, where it crosses over.

onnxruntime.transformers.float16 would not do: it rounds through float16 between any two nodes that it is told
to leave in float32. Imports onnx.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

_HALF = ".half"
_FLOAT32_INPUTS = {"Resize": (1, 2)}
"""inputs that are float32 whatever a node computes in: by operator, their places. Source: ONNX, Resize-19"""
_KEPT = ("Cast", "Constant", "ConstantOfShape", "Range", "RandomNormal")
"""operators that give the type that they name"""


def halved(model: ModelProto, exact: Set[str]) -> ModelProto:
    """Return the graph in float16 but for the nodes named in `exact`; inputs and outputs keep their types."""
    return _Halving(model, exact).whole()


class _Halving:
    """Each float value is `name`, float32, or `name.half`, or both with a cast between."""

    def __init__(self, model: ModelProto, exact: Set[str]) -> None:
        self._model = model
        self._exact = exact
        inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self._floats = {
            value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self._weights = {
            held.name: held for held in model.graph.initializer if held.data_type == TensorProto.FLOAT
        }
        self._there: set[str] = {value.name for value in model.graph.input}
        self._nodes: list[NodeProto] = []
        self._held: dict[str, TensorProto] = {}

    def whole(self) -> ModelProto:
        graph = self._model.graph
        for node in graph.node:
            self._add(node)
        for value in graph.output:
            self._fetched(value.name, value.name)
        others = [held for held in graph.initializer if held.name not in self._weights]
        for field in ("node", "initializer", "value_info"):
            graph.ClearField(field)
        graph.node.extend(self._nodes)
        graph.initializer.extend([*others, *self._held.values()])
        return self._model

    def _add(self, node: NodeProto) -> None:
        half = node.name not in self._exact and node.op_type not in _KEPT
        for place, name in enumerate(node.input):
            single = not half or place in _FLOAT32_INPUTS.get(node.op_type, ())
            node.input[place] = self._fetched(name, name if single else name + _HALF)
        for place, name in enumerate(node.output):
            if half and name in self._floats:
                node.output[place] = name + _HALF
            self._there.add(node.output[place])
        self._nodes.append(node)

    def _fetched(self, name: str, wanted: str) -> str:
        """Return `wanted`, the float32 or float16 form of the value `name`, once it is there."""
        if name in self._weights:
            self._hold(name, wanted)
            return wanted
        if name not in self._floats:
            return name
        if wanted not in self._there:
            source, kind = (
                (name + _HALF, TensorProto.FLOAT) if wanted == name else (name, TensorProto.FLOAT16)
            )
            self._nodes.append(helper.make_node("Cast", [source], [wanted], name=f"{wanted}.cast", to=kind))
            self._there.add(wanted)
        return wanted

    def _hold(self, name: str, wanted: str) -> None:
        if wanted == name:
            self._held[wanted] = self._weights[name]
        elif wanted not in self._held:
            most = np.finfo(np.float16).max
            weights = np.clip(numpy_helper.to_array(self._weights[name]), -most, most)
            self._held[wanted] = numpy_helper.from_array(weights.astype(np.float16), wanted)
