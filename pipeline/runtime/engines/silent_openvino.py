"""OpenVINO, kept from talking: its package sends an event to Google Analytics whenever it is imported.

Import it from here and nowhere else.
"""

from __future__ import annotations

import sys

# What sends is a package of its own; out of reach, OpenVINO goes on without it.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino as ov  # noqa: E402

__all__ = ["ov"]
