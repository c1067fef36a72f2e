"""How near the engines come to the machine's peak: their operations a second over a plain product's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.bundle.int8_figures import Precision
from pipeline.model.domain import Rgb
from pipeline.runtime.concurrency.machine import ParallelismOverrides, available_cores, parallelism
from pipeline.runtime.engines.engine_port import GraphFile
from pipeline.runtime.engines.openvino_engine import StreamCounts, openvino
from pipeline.runtime.engines.openvino_without_telemetry import ov
from pipeline.runtime.slide_analyser import SlideAnalyser
from tests.bench.measure import Measure, seconds
from tests.bench.torch_twins import torch_classifier, torch_segmenter

SIDE = 2048
"""of the square matrices whose product is taken for the peak"""
TILE_PX, TILES = 1024, 2
CROPS = 64
SHARE_TARGET = 0.7
_OPSET = 20


def peak(analyser: SlideAnalyser, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield the peak of products in floats and in bytes, and which share of it OpenVINO's networks reach."""
    peaks = {Precision.FP32: _float_peak(), Precision.INT8: _byte_peak(folder)}
    for precision, gops in peaks.items():
        yield f"gemm_{precision}_peak", Measure(gops, "GOP/s")
    _, segmenter = torch_segmenter(analyser.bundle)
    _, classifiers = torch_classifier(analyser.bundle)
    side = analyser.models.classifier.crop_px
    tiles, crops = _noise(TILES, TILE_PX, TILE_PX), _noise(CROPS, side.height, side.width)
    for precision, gops in peaks.items():
        told = replace(analyser.bundle, precision=precision)
        asked = [("segmentation_engine", told.segmenter_graphs[0], segmenter, tiles)]
        asked += [
            (f"classifier_{number}", graph, network, crops)
            for number, (graph, network) in enumerate(
                zip(told.classifier_graphs, classifiers, strict=True), start=1
            )
        ]
        for name, graph, network, pictures in asked:
            if graph.precision is precision:
                share = _gops(graph, network, pictures) / gops
                target = (
                    SHARE_TARGET if (name, precision) == ("segmentation_engine", Precision.INT8) else None
                )
                yield f"{name}_share_of_the_{precision}_gemm_peak", Measure(share, "of the peak", target)


def _gops(graph: GraphFile, network: nn.Module, pictures: Rgb) -> float:
    """Return 10⁹ operations a second, as torch counts them: two for a product and its addition."""
    wide = parallelism(available_cores(), ParallelismOverrides())
    with openvino(StreamCounts(wide.threads, wide.streams))(graph) as engine:
        taken_s = seconds(lambda: engine.run(pictures))
    return _operations(network, pictures) / 1e9 / taken_s


def _operations(network: nn.Module, pictures: Rgb) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.from_numpy(pictures[:1]))
    return float(counter.get_total_flops()) * len(pictures)


def _float_peak() -> float:
    left, right = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    return _rate(lambda: torch.matmul(left, right))


def _byte_peak(folder: Path) -> float:
    """Return the rate of a product of bytes through OpenVINO, weights held, as in a network."""
    file = folder / "product.onnx"
    onnx.save(_byte_product(), file)
    compiled = ov.Core().compile_model(ov.Core().read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    left = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    return _rate(lambda: request.infer({0: left}))


def _rate(product: Callable[[], object]) -> float:
    return 2 * SIDE**3 / 1e9 / seconds(product)


def _byte_product() -> onnx.ModelProto:
    """Return a graph that makes bytes of its input and multiplies them with a matrix of bytes."""
    weights = np.random.default_rng(1).integers(-127, 128, (SIDE, SIDE)).astype(np.int8)
    held = [
        onnx.numpy_helper.from_array(weights, "weights"),
        onnx.numpy_helper.from_array(np.float32(1 / 127), "weights_scale"),
        onnx.numpy_helper.from_array(np.int8(0), "weights_zero"),
        onnx.numpy_helper.from_array(np.float32(1 / 255), "scale"),
        onnx.numpy_helper.from_array(np.uint8(0), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["left", "scale", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["stepped"]),
        helper.make_node("DequantizeLinear", ["weights", "weights_scale", "weights_zero"], ["right"]),
        helper.make_node("MatMul", ["stepped", "right"], ["product"]),
    ]
    square = [SIDE, SIDE]
    takes = helper.make_tensor_value_info("left", TensorProto.FLOAT, square)
    gives = helper.make_tensor_value_info("product", TensorProto.FLOAT, square)
    graph = helper.make_graph(nodes, "product", [takes], [gives], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])


def _noise(count: int, height: int, width: int) -> Rgb:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)
