"""Graphs with convolutions, small enough to be quantised and run in a test; their weights never change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
WIDTH = 16
STRIDE_PX = 2


def write_segmenter(file: Path, outputs: int = 3) -> Path:
    """Write a graph of three convolutions over pictures of any even size; return its file."""
    nodes = [
        *_normalised(),
        *_convolution("rgb_first", "one"),
        helper.make_node("MaxPool", ["one"], ["half"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        *_convolution("half", "two"),
        helper.make_node("Resize", ["two", "", "scales"], ["whole"], name="grow", mode="nearest"),
        helper.make_node("Concat", ["one", "whole"], ["both"], name="join", axis=1),
        *_convolution("both", "scores", last=True),
        helper.make_node("Softmax", ["scores"], ["probabilities"], name="shares", axis=1),
    ]
    weights = [
        *_weights("one", 3, WIDTH, 1),
        *_weights("two", WIDTH, WIDTH, 2),
        *_weights("scores", 2 * WIDTH, outputs, 3),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
    ]
    return _write(file, nodes, weights, ["n", "h", "w", 3], ["n", outputs, "h", "w"])


def write_classifier(file: Path, side_px: int, outputs: int) -> Path:
    """Write a graph of two convolutions over pictures of one size, balanced first; return its file."""
    nodes = [
        *_normalised("plain"),
        helper.make_node("ReduceMax", ["plain", "sides"], ["brightest"], name="brightest"),
        helper.make_node("Clip", ["brightest", "darkest"], ["light"], name="light"),
        helper.make_node("Div", ["plain", "light"], ["rgb_first"], name="balance"),
        *_convolution("rgb_first", "one"),
        *_convolution("one", "two"),
        helper.make_node("ReduceMean", ["two", "sides"], ["mean"], name="mean", keepdims=0),
        helper.make_node("Gemm", ["mean", "gemm.weight", "gemm.bias"], ["scores"], name="gemm"),
        helper.make_node("Softmax", ["scores"], ["probabilities"], name="shares", axis=1),
    ]
    drawn = np.random.default_rng(5)
    weights = [
        *_weights("one", 3, WIDTH, 1),
        *_weights("two", WIDTH, WIDTH, 2),
        numpy_helper.from_array(np.array([2, 3], np.int64), "sides"),
        numpy_helper.from_array(np.float32(0.2), "darkest"),
        numpy_helper.from_array(drawn.normal(0, 2, (WIDTH, outputs)).astype(np.float32), "gemm.weight"),
        numpy_helper.from_array(drawn.normal(0, 1, outputs).astype(np.float32), "gemm.bias"),
    ]
    return _write(file, nodes, weights, ["n", side_px, side_px, 3], ["n", outputs])


def _normalised(to: str = "rgb_first") -> list[onnx.NodeProto]:
    return [
        helper.make_node("Transpose", ["rgb"], ["channels"], name="channels", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["channels"], ["numbers"], name="numbers", to=TensorProto.FLOAT),
        helper.make_node("Div", ["numbers", "range"], [to], name="unit"),
    ]


def _convolution(of: str, to: str, *, last: bool = False) -> list[onnx.NodeProto]:
    sums = to if last else f"{to}.sums"
    convolution = helper.make_node(
        "Conv", [of, f"{to}.weight", f"{to}.bias"], [sums], name=f"{to}.conv", pads=[1, 1, 1, 1]
    )
    if last:
        return [convolution]
    return [convolution, helper.make_node("Clip", [sums, "zero", "six"], [to], name=f"{to}.relu6")]


def _weights(name: str, inputs: int, outputs: int, seed: int) -> list[onnx.TensorProto]:
    drawn = np.random.default_rng(seed)
    weight = drawn.normal(0, np.sqrt(2 / (9 * inputs)), (outputs, inputs, 3, 3)).astype(np.float32)
    bias = drawn.normal(0, 0.1, outputs).astype(np.float32)
    return [numpy_helper.from_array(weight, f"{name}.weight"), numpy_helper.from_array(bias, f"{name}.bias")]


def _write(
    file: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    takes: list[str | int],
    gives: list[str | int],
) -> Path:
    constants = [
        numpy_helper.from_array(np.float32(255), "range"),
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.float32(6), "six"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("rgb", TensorProto.UINT8, takes)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, gives)],
        [*constants, *weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())
    return file
