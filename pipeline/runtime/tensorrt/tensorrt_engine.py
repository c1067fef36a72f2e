"""Opens a graph on TensorRT: what the engine choice calls."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.errors import DeploymentError
from pipeline.runtime.concurrency.closing import Closing
from pipeline.runtime.engines.engine_port import (
    EngineIdentity,
    TensorSpec,
    require_fitting,
    require_ours,
    unfit,
)
from pipeline.runtime.tensorrt.bindings import Named, TensorRt
from pipeline.runtime.tensorrt.device import Device
from pipeline.runtime.tensorrt.inference_loop import InferenceLoop
from pipeline.runtime.tensorrt.libraries import find_gpu, find_tensorrt
from pipeline.runtime.tensorrt.log_capture import log_listener_of
from pipeline.runtime.tensorrt.plans import PlanRequest, plan_of, version_of
from pipeline.runtime.tensorrt.stream_executor import LoadedPlan

__all__ = ["PlanRequest", "TensorRtEngine", "open_tensorrt"]

_NUMPY_NAMES = {"UINT8": "uint8", "FLOAT": "float32"}


class Described(Protocol):
    """The part of `bindings.CudaEngine` that tells what goes in and out."""

    @property
    def num_io_tensors(self) -> int: ...

    def get_tensor_name(self, index: int) -> str: ...

    def get_tensor_mode(self, name: str) -> Named: ...

    def get_tensor_dtype(self, name: str) -> Named: ...

    def get_tensor_shape(self, name: str) -> tuple[int, ...]: ...


class TensorRtEngine(Closing):
    """One plan, loaded on a device. Implements `engine.Engine`."""

    def __init__(
        self, loop: InferenceLoop, identity: EngineIdentity, taken: TensorSpec, given: TensorSpec
    ) -> None:
        self._loop = loop
        self._identity = identity
        self._input = taken
        self._output = given

    @property
    def identity(self) -> EngineIdentity:
        return self._identity

    @property
    def input(self) -> TensorSpec:
        return self._input

    @property
    def output(self) -> TensorSpec:
        return self._output

    def run(self, batch: Rgb) -> Probabilities:
        """Return float32, what the graph makes of a uint8 (N, H, W, 3) batch, N ≥ 1.

        Threads may call at once. Raises: CapacityError, where there is no memory for it; BatchRefused,
        where the plan does not take pictures of that size; DeploymentError, where the GPU fails.
        """
        require_fitting(batch, self._input)
        return self._loop.run(batch)

    def close(self) -> None:
        """Wait for the batches under way and give back what the engine holds."""
        self._loop.close()


def open_tensorrt(graph: Path, request: PlanRequest) -> TensorRtEngine:
    """Return the engine of an ONNX file on this machine's GPU; its plan is built where there is none yet.

    Raises: DeploymentError, which names the package, the library or the GPU that is missing, or the node that
    TensorRT does not take; CapacityError, where the GPU has no memory left.
    """
    trt = cast(TensorRt, find_tensorrt())
    find_gpu()
    device = _open_device()
    plan = plan_of(trt, graph, request, device.compute_capability)
    return _loaded(trt, plan, graph, request, device)


def _open_device() -> Device:
    opener: Callable[[], Device] = import_module("pipeline.runtime.tensorrt.torch_device").open_torch_device
    return opener()


def _loaded(trt: TensorRt, plan: bytes, graph: Path, request: PlanRequest, device: Device) -> TensorRtEngine:
    listener = log_listener_of(trt)
    listener.captured.forget()
    runtime = trt.Runtime(listener.logger)
    cuda_engine = runtime.deserialize_cuda_engine(plan)
    if cuda_engine is None:
        raise DeploymentError(
            f"TensorRT cannot load its plan of {graph.name}: {listener.captured.first}.",
            code="plan_unloaded",
        )
    taken, given = specs_of(cuda_engine, graph)
    managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    # Contexts use the engine, and it the runtime, for as long as they are.
    kept = (runtime, cuda_engine)
    loaded = LoadedPlan(
        lambda: kept[1].create_execution_context(managed),
        cuda_engine.device_memory_size_v2,
        lambda: listener.captured.first,
    )
    identity = EngineIdentity("tensorrt", version_of(trt), device.name, request.precision.value)
    return TensorRtEngine(InferenceLoop(loaded, device, request.shapes), identity, taken, given)


def specs_of(plan: Described, graph: Path) -> tuple[TensorSpec, TensorSpec]:
    """Return what a plan takes and what it gives. Raises: DeploymentError, where it is no graph of ours."""
    names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
    taken = [_spec_of(plan, name) for name in names if plan.get_tensor_mode(name).name == "INPUT"]
    given = [_spec_of(plan, name) for name in names if plan.get_tensor_mode(name).name == "OUTPUT"]
    if len(taken) != 1 or len(given) != 1:
        raise unfit(graph, "does not take one tensor and give one")
    require_ours(graph, taken[0], given[0])
    return taken[0], given[0]


def _spec_of(plan: Described, name: str) -> TensorSpec:
    kind = plan.get_tensor_dtype(name).name
    shape = tuple(None if side < 0 else side for side in plan.get_tensor_shape(name))
    return TensorSpec(name, _NUMPY_NAMES.get(kind, kind.lower()), shape)
