"""ONNX Runtime, kept from talking: it gives the machine an identifier and reports its use to its maker.

Import it from here and nowhere else.
"""

from __future__ import annotations

import os

# Looked at once, when the library is loaded. Child processes inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

__all__ = ["ort", "ort_errors"]
