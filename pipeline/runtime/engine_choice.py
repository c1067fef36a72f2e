"""Chooses the engine that runs a bundle's graphs on this machine, and says why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle.int8_figures import Precision
from pipeline.model.errors import DeploymentError
from pipeline.model.geometry import Size
from pipeline.model.spec import PipelineSpec
from pipeline.runtime.concurrency.batcher import MAX_CROPS, MAX_TILES
from pipeline.runtime.concurrency.machine import Parallelism
from pipeline.runtime.engines.engine_port import Engine, EngineIdentity, EngineName, GraphFile, Opener
from pipeline.runtime.graph_networks import MAX_BATCH_PIXELS
from pipeline.runtime.tensorrt.batch_shapes import BatchShape, ShapeProfile, squares
from pipeline.runtime.tensorrt.libraries import find_gpu, find_tensorrt, what_is_missing

REQUESTED = "requested"
IN_FP32 = "in FP32, because this processor saturates int8 sums"


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine: how it opens graphs, in which precision, and why it was chosen."""

    name: EngineName
    why: str
    precision: Precision
    opener: Opener


@dataclass(frozen=True, slots=True)
class EngineResources:
    """What an engine may use of the machine."""

    parallelism: Parallelism
    plans: Path
    """folder in which TensorRT stores its plans"""
    supports_int8: bool = True
    """whether the processor sums int8 products without saturation: see `machine.supports_int8`"""


def choose_engine(requested: EngineName, resources: EngineResources) -> EngineChoice:
    """Return the requested engine; for `auto`, the one that suits the machine.

    Raises: DeploymentError, naming what the engine lacks.
    """
    name, why = _resolved(requested)
    precision = _precision(name, resources.supports_int8)
    if name is EngineName.TENSORRT:
        return EngineChoice(name, why, precision, _tensorrt(resources))
    if name is EngineName.ONNXRUNTIME:
        return EngineChoice(name, why, precision, _onnx_runtime(resources))
    if precision is Precision.FP32:
        why = f"{why}; {IN_FP32}"
    return EngineChoice(name, why, precision, _openvino(resources))


def precision_in_use(requested: EngineName, supports_int8: bool) -> Precision:
    """Return the precision of `choose_engine`'s choice, without loading an engine."""
    name, _ = _resolved(requested)
    return _precision(name, supports_int8)


def _resolved(requested: EngineName) -> tuple[EngineName, str]:
    """Return the engine, which is never `auto`, and why it was chosen."""
    if requested is not EngineName.AUTO:
        return requested, REQUESTED
    missing = what_is_missing()
    if missing is None:
        return EngineName.TENSORRT, "auto: GPU and TensorRT found"
    return EngineName.OPENVINO, f"auto: {missing.rstrip('.')}"


def _precision(name: EngineName, supports_int8: bool) -> Precision:
    """Return which of a bundle's files an engine loads: TensorRT and ONNX Runtime those of FP32."""
    return Precision.INT8 if name is EngineName.OPENVINO and supports_int8 else Precision.FP32


def engine_text(choice: EngineChoice, used: Iterable[EngineIdentity]) -> str:
    """Return the text for log and provenance: each engine in use, once, and why it was chosen."""
    names = dict.fromkeys(str(identity) for identity in used)
    return f"{' + '.join(names)} ({choice.why})"


def _onnx_runtime(resources: EngineResources) -> Opener:
    # Importing the pipeline loads no engine; opening one does.
    from pipeline.runtime.engines.onnxruntime_engine import onnx_runtime

    return onnx_runtime(resources.parallelism.threads)


def _openvino(resources: EngineResources) -> Opener:
    try:
        # Imported here, because it takes a second and only this engine needs it.
        from pipeline.runtime.engines.openvino_engine import StreamCounts, openvino
    except (ImportError, OSError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise DeploymentError(f"OpenVINO cannot be loaded: {first_line}.", code="openvino_missing") from error
    return openvino(StreamCounts(resources.parallelism.threads, resources.parallelism.streams))


def _tensorrt(resources: EngineResources) -> Opener:
    find_tensorrt()
    find_gpu()
    from pipeline.runtime.tensorrt.tensorrt_engine import PlanRequest, open_tensorrt

    def opened(graph: GraphFile) -> Engine:
        return open_tensorrt(graph.path, PlanRequest(shapes_of(graph), resources.plans))

    return opened


def shapes_of(graph: GraphFile) -> ShapeProfile:
    """Return the batches that the plan of a graph accepts: crops of one size, or tiles of all sizes."""
    if graph.fixed_px is not None:
        return squares(graph.fixed_px.width, MAX_CROPS, MAX_CROPS)
    spec = PipelineSpec()
    widest_px = spec.tile_core_px + 2 * spec.halo_px
    minimum, tile = Size(graph.stride_px, graph.stride_px), Size(widest_px, widest_px)
    optimum = max(1, MAX_BATCH_PIXELS // tile.area)
    return ShapeProfile(BatchShape(1, minimum), BatchShape(optimum, tile), BatchShape(MAX_TILES, tile))
