"""The plan of an ONNX file for a GPU: found on disk, or prepared, built and kept there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pipeline.model.domain import Rgb
from pipeline.model.errors import DeploymentError
from pipeline.runtime.tensorrt.batch_shapes import Precision, ShapeProfile
from pipeline.runtime.tensorrt.bindings import TensorRt
from pipeline.runtime.tensorrt.builder import Graph, Target, build
from pipeline.runtime.tensorrt.plan_cache import PlanCache, PlanKey

_Prepare = Callable[[bytes, Precision, Iterable[Rgb]], bytes]


@dataclass(frozen=True, eq=False, slots=True)
class PlanRequest:
    """Which plan of a graph is run: its precision, its profile, and the folder where plans are kept."""

    shapes: ShapeProfile
    plans: Path
    precision: Precision = Precision.FP16
    calibration: Sequence[Rgb] = ()
    """uint8 (N, H, W, 3) batches such as the graph will see; int8 needs them"""


def plan_of(trt: TensorRt, file: Path, request: PlanRequest, gpu: str, is_here: bool = True) -> bytes:
    """Return the plan of an ONNX file for GPUs of the compute capability `gpu`, as 8.9.

    Where the GPU is not in the machine, the plan is built ahead, which TensorRT-RTX does.
    Raises: DeploymentError, where the file cannot be read, or TensorRT cannot make a plan of it.
    """
    try:
        stored = file.read_bytes()
    except OSError as error:
        raise DeploymentError(f"The model bundle lacks {file.name}.", code="bundle_incomplete") from error
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
        calibration_sha256=_digest(request.calibration) if request.precision is Precision.INT8 else "",
    )


def version_of(trt: TensorRt) -> str:
    """Return the version of TensorRT; of TensorRT-RTX, whose plans are others, with its name."""
    return f"rtx {trt.__version__}" if "rtx" in trt.__name__ else trt.__version__


def _digest(calibration: Sequence[Rgb]) -> str:
    whole = hashlib.sha256()
    for batch in calibration:
        whole.update(str(batch.shape).encode())
        whole.update(batch.tobytes())
    return whole.hexdigest()


def _preparation() -> _Prepare:
    """Return what makes the graph of a precision. It needs the package onnx; running a plan does not."""
    try:
        prepare: _Prepare = import_module("pipeline.runtime.tensorrt.precision_graphs").prepared
    except ImportError as error:
        raise DeploymentError(
            f"Plans need the package {error.name}, which is missing.",
            code="onnx_missing",
        ) from error
    return prepare
