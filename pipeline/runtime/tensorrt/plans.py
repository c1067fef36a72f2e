"""The plan of an ONNX file for a GPU: read from disk, or built and stored there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pipeline.model.domain import Rgb
from pipeline.model.errors import DeploymentError
from pipeline.runtime.tensorrt.batch_shapes import PlanPrecision, ShapeProfile
from pipeline.runtime.tensorrt.bindings import TensorRt
from pipeline.runtime.tensorrt.builder import Graph, Target, build
from pipeline.runtime.tensorrt.plan_cache import PlanCache, PlanKey

_Prepare = Callable[[bytes, PlanPrecision, Iterable[Rgb]], bytes]


@dataclass(frozen=True, eq=False, slots=True)
class PlanRequest:
    """Which plan of a graph to run: its precision, its profile, and the folder in which plans are stored."""

    shapes: ShapeProfile
    plans: Path
    precision: PlanPrecision = PlanPrecision.FP16
    calibration: Sequence[Rgb] = ()
    """uint8 (N, H, W, 3) batches like those in use, needed for int8"""


def plan_of(trt: TensorRt, file: Path, request: PlanRequest, gpu: str, is_here: bool = True) -> bytes:
    """Return the plan of an ONNX file for GPUs of the compute capability `gpu`, for example `8.9`.

    With `is_here` false the plan is for a GPU of another machine; only TensorRT-RTX builds such plans.
    Raises: DeploymentError, where the file cannot be read, or TensorRT cannot build its plan.
    """
    try:
        stored = file.read_bytes()
    except OSError as error:
        raise DeploymentError(
            f"{file.name} is missing from the model bundle.", code="bundle_incomplete"
        ) from error
    target = Target(request.shapes, None if is_here else gpu)

    def made(timing_cache: bytes) -> tuple[bytes, bytes]:
        graph = Graph(file.name, _preparation()(stored, request.precision, request.calibration))
        built = build(trt, graph, target, timing_cache)
        return built.plan, built.timing_cache

    return PlanCache(request.plans).plan(key_of(trt, stored, request, gpu), made)


def key_of(trt: TensorRt, stored: bytes, request: PlanRequest, gpu: str) -> PlanKey:
    """Return the key of the plan of `stored`, the bytes of an ONNX file."""
    return PlanKey(
        graph_sha256=hashlib.sha256(stored).hexdigest(),
        tensorrt=version_of(trt),
        compute_capability=gpu,
        profile=str(request.shapes),
        precision=request.precision.value,
        calibration_sha256=_digest(request.calibration) if request.precision is PlanPrecision.INT8 else "",
    )


def version_of(trt: TensorRt) -> str:
    """Return the version of TensorRT, marked `rtx` for TensorRT-RTX, whose plans differ."""
    return f"rtx {trt.__version__}" if "rtx" in trt.__name__ else trt.__version__


def _digest(calibration: Sequence[Rgb]) -> str:
    whole = hashlib.sha256()
    for batch in calibration:
        whole.update(str(batch.shape).encode())
        whole.update(batch.tobytes())
    return whole.hexdigest()


def _preparation() -> _Prepare:
    """Return the function that prepares a graph. Only building a plan needs the package onnx."""
    try:
        prepare: _Prepare = import_module("pipeline.runtime.tensorrt.precision_graphs").prepared
    except ImportError as error:
        raise DeploymentError(
            f"Building plans needs the package {error.name}, which is not installed.",
            code="onnx_missing",
        ) from error
    return prepare
