"""Which engine runs a bundle's graphs here, and why: nothing is replaced in silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle.int8_figures import Precision
from pipeline.model.errors import DeploymentError
from pipeline.model.geometry import Size
from pipeline.model.spec import PipelineSpec
from pipeline.runtime.concurrency.batcher import CROPS_AT_ONCE, TILES_AT_ONCE
from pipeline.runtime.concurrency.machine import Parallelism
from pipeline.runtime.engines.engine_port import Engine, EngineIdentity, EngineName, GraphFile, Opener
from pipeline.runtime.engines.onnxruntime_engine import onnx_runtime
from pipeline.runtime.graph_networks import PIXELS_AT_ONCE
from pipeline.runtime.tensorrt.batch_shapes import BatchShape, ShapeProfile, squares
from pipeline.runtime.tensorrt.libraries import find_gpu, find_tensorrt, what_is_missing

ASKED = "asked for"
IN_FLOATS = "in floats, for this processor clips sums of bytes"


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What opens the graphs, which of a bundle's files it is given, and why it was taken."""

    name: EngineName
    why: str
    precision: Precision
    opener: Opener


@dataclass(frozen=True, slots=True)
class EngineResources:
    """What an engine may use of the machine."""

    parallelism: Parallelism
    plans: Path
    """folder where TensorRT keeps its plans between starts"""
    supports_int8: bool = True
    """whether the processor adds products of bytes without clipping them: see `machine.supports_int8`"""


def choose_engine(asked: EngineName, resources: EngineResources) -> EngineChoice:
    """Return the engine that was asked for; with `auto` the one that suits the machine.

    Raises: DeploymentError, which names what is missing for the engine.
    """
    name, why = _resolved(asked)
    precision = _precision(name, resources.supports_int8)
    if name is EngineName.TENSORRT:
        return EngineChoice(name, why, precision, _tensorrt(resources))
    if name is EngineName.ONNXRUNTIME:
        return EngineChoice(name, why, precision, onnx_runtime(resources.parallelism.threads))
    if precision is Precision.FP32:
        why = f"{why}; {IN_FLOATS}"
    return EngineChoice(name, why, precision, _openvino(resources))


def precision_in_use(asked: EngineName, supports_int8: bool) -> Precision:
    """Return the precision of `choose_engine`'s choice, without loading an engine."""
    name, _ = _resolved(asked)
    return _precision(name, supports_int8)


def _resolved(asked: EngineName) -> tuple[EngineName, str]:
    """Return the engine, which is never `auto`, and why it was taken."""
    if asked is not EngineName.AUTO:
        return asked, ASKED
    missing = what_is_missing()
    if missing is None:
        return EngineName.TENSORRT, "auto: a GPU and TensorRT are here"
    return EngineName.OPENVINO, f"auto: {missing.rstrip('.')}"


def _precision(name: EngineName, supports_int8: bool) -> Precision:
    """Return which of a bundle's files an engine is given: TensorRT and ONNX Runtime those of FP32."""
    return Precision.INT8 if name is EngineName.OPENVINO and supports_int8 else Precision.FP32


def engine_text(choice: EngineChoice, ran: Iterable[EngineIdentity]) -> str:
    """Return what log and provenance say: each engine that runs a graph, once, and why it was taken."""
    names = dict.fromkeys(str(identity) for identity in ran)
    return f"{' + '.join(names)} ({choice.why})"


def _openvino(resources: EngineResources) -> Opener:
    try:
        # Loading it takes a second, which the other engines need not wait for.
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
    """Return the batches that a plan of a graph takes: crops of their one size, or what tiles can be."""
    if graph.fixed_px is not None:
        return squares(graph.fixed_px.width, CROPS_AT_ONCE, CROPS_AT_ONCE)
    spec = PipelineSpec()
    widest_px = spec.tile_core_px + 2 * spec.halo_px
    least, tile = Size(graph.stride_px, graph.stride_px), Size(widest_px, widest_px)
    usual = max(1, PIXELS_AT_ONCE // tile.area)
    return ShapeProfile(BatchShape(1, least), BatchShape(usual, tile), BatchShape(TILES_AT_ONCE, tile))
