"""ONNX Runtime's quantisation, kept from talking as the rest of it. Imports onnx.

Import it from here and nowhere else, and only where a graph is made.
"""

from __future__ import annotations

# isort: off
import pipeline.runtime.engines.onnxruntime_without_telemetry  # noqa: F401 - what follows loads the library
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
# isort: on

__all__ = [
    "CalibrationDataReader",
    "CalibrationMethod",
    "QuantFormat",
    "QuantType",
    "quant_pre_process",
    "quantize_static",
]
