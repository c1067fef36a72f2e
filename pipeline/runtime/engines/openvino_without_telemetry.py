"""OpenVINO without telemetry: its package sends an event to Google Analytics whenever it is imported.

Import OpenVINO only from this module.
"""

from __future__ import annotations

import sys

# The sender is a separate package; OpenVINO works without it.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino as ov  # noqa: E402

__all__ = ["ov"]
