"""Makes graphs compute with bytes: int8 weights by channel, uint8 activations, ranges from real pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import onnx

from pipeline.model.domain import Rgb
from pipeline.runtime.engines.calibration_batches import CalibrationBatches
from pipeline.runtime.engines.quantisation_without_telemetry import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)
from pipeline.training.export.weight_storage import clean, drop_zero_points, share_weights

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BETWEEN = ("Clip", "Relu", "Add", "Concat", "MaxPool", "Resize")
"""What lies between products: left in floats, each would cost a turn there and back."""
_PERCENTILE = 99.99
_HISTOGRAM_STEP = 4
"""one batch in so many: a histogram's calibration holds every activation of every batch in memory"""


class Calibration(StrEnum):
    """How the range of an activation is found among what it takes on the calibration's pictures."""

    MINMAX = "minmax"
    """all of it"""
    PERCENTILE = "percentile"
    """without the outermost 0.01 %"""
    ENTROPY = "entropy"
    """what keeps its distribution best. Source: Migacz, 8-bit inference with TensorRT, GTC 2017"""


_METHODS = {
    Calibration.MINMAX: CalibrationMethod.MinMax,
    Calibration.PERCENTILE: CalibrationMethod.Percentile,
    Calibration.ENTROPY: CalibrationMethod.Entropy,
}


def quantise(source: Path, target: Path, batches: Sequence[Rgb], calibration: Calibration) -> None:
    """Write into `target`, a file beside `source`, its graph in int8 from the first to the last product.

    It holds no large weights of its own: it reads those of `source`.
    `batches`, uint8 (N, H, W, 3) each, are such as the graph will see. What comes before the first product,
    where colours are balanced, and behind the last, the softmax, stays in floats.
    """
    seen = batches if calibration is Calibration.MINMAX else _thinned(batches)
    with tempfile.TemporaryDirectory() as folder:
        folded, quantised = Path(folder) / "folded.onnx", Path(folder) / "quantised.onnx"
        # Folds the casts of weights that are stored as float16; what is quantised must be a constant.
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True, auto_merge=False)
        quantize_static(
            folded,
            quantised,
            CalibrationBatches(seen),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*_PRODUCTS, *_BETWEEN],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(outside_products(onnx.load(folded).graph)),
            calibrate_method=_METHODS[calibration],
            extra_options={"CalibPercentile": _PERCENTILE, "WeightSymmetric": True},
        )
        model = onnx.load(quantised)
    clean(model)
    drop_zero_points(model)
    share_weights(model, source)
    target.write_bytes(model.SerializeToString())


def _thinned(batches: Sequence[Rgb]) -> list[Rgb]:
    """Return one batch in `_HISTOGRAM_STEP`, of those as large as the first: histograms need equal ones."""
    alike = [batch for batch in batches if batch.shape == batches[0].shape]
    return alike[::_HISTOGRAM_STEP]


def outside_products(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the nodes with no product before them, and of those with none behind them."""
    nodes = [_Step(node.name, node.op_type, set(node.input), set(node.output)) for node in graph.node]
    turned = [_Step(step.name, step.kind, step.gives, step.takes) for step in reversed(nodes)]
    return _unreached(nodes) | _unreached(turned)


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    kind: str
    takes: set[str]
    gives: set[str]


def _unreached(steps: Sequence[_Step]) -> set[str]:
    """Return the names of the steps that no product leads to; `steps` are in an order of computing."""
    reached: set[str] = set()
    outside: set[str] = set()
    for step in steps:
        if step.kind in _PRODUCTS or step.takes & reached:
            reached |= step.gives
        else:
            outside.add(step.name)
    return outside
