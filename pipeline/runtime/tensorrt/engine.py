"""Opens a graph on TensorRT: what the engine choice calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.tensorrt.libraries import find_gpu, find_tensorrt
from pipeline.runtime.tensorrt.shapes import Precision, ShapeProfile


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Which plan of a graph is run: its precision, its profile, and the folder where plans are kept."""

    shapes: ShapeProfile
    plans: Path
    precision: Precision = Precision.FP16


def require_tensorrt() -> None:
    """Return where TensorRT can run here.

    Raises: DeploymentError, which names the package, the library or the GPU that is missing.
    """
    find_tensorrt()
    find_gpu()


# Signatures that follow, for who builds on them:
#   open_tensorrt(graph: Path, request: PlanRequest) -> TensorRtEngine      (an Engine; DeploymentError)
#   fake_device.open_on_fake_device(graph: Path, shapes: ShapeProfile) -> TensorRtEngine   (contract suite)
#   libraries.what_is_missing() -> str | None      (for `auto` and its log)
