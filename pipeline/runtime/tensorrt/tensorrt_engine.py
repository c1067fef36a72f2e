"""Opens a graph with TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.errors import DeploymentError
from pipeline.runtime.engines.engine_port import (
    EngineIdentity,
    LoadedEngine,
    TensorSpec,
    bundle_graph_error,
    require_bundle_graph,
    require_matching,
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


class PlanDescription(Protocol):
    """The part of `bindings.CudaEngine` that describes the inputs and outputs."""

    @property
    def num_io_tensors(self) -> int: ...

    def get_tensor_name(self, index: int) -> str: ...

    def get_tensor_mode(self, name: str) -> Named: ...

    def get_tensor_dtype(self, name: str) -> Named: ...

    def get_tensor_shape(self, name: str) -> tuple[int, ...]: ...


class TensorRtEngine(LoadedEngine):
    """One plan, loaded on a device. Implements `engine_port.Engine`."""

    def __init__(
        self, loop: InferenceLoop, identity: EngineIdentity, input_spec: TensorSpec, output_spec: TensorSpec
    ) -> None:
        super().__init__(identity, input_spec, output_spec)
        self._loop = loop

    def run(self, batch: Rgb) -> Probabilities:
        """Return the float32 output for a uint8 (N, H, W, 3) batch, N ≥ 1.

        Several threads may call it at once. Raises: CapacityError, where there is no memory for it;
        BatchRefused, where the plan does not accept pictures of that size; DeploymentError, where the GPU
        fails.
        """
        require_matching(batch, self._input)
        return self._loop.run(batch)

    def close(self) -> None:
        """Wait for the running batches and free all memory."""
        self._loop.close()


def open_tensorrt(graph: Path, request: PlanRequest) -> TensorRtEngine:
    """Return the engine of an ONNX file on this machine's GPU; its plan is built if it is not stored yet.

    Raises: DeploymentError, which names the package, the library or the GPU that is missing, or the node that
    TensorRT cannot parse; CapacityError, where the GPU has no memory left.
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
            f"TensorRT cannot load the plan of {graph.name}: {listener.captured.first}.",
            code="plan_unloaded",
        )
    inputs, outputs = specs_of(cuda_engine, graph)
    managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    # Contexts use the engine, which uses the runtime: the closure below keeps both alive.
    kept = (runtime, cuda_engine)
    loaded = LoadedPlan(
        lambda: kept[1].create_execution_context(managed),
        cuda_engine.device_memory_size_v2,
        lambda: listener.captured.first,
    )
    identity = EngineIdentity("tensorrt", version_of(trt), device.name, request.precision.value)
    return TensorRtEngine(InferenceLoop(loaded, device, request.shapes), identity, inputs, outputs)


def specs_of(plan: PlanDescription, graph: Path) -> tuple[TensorSpec, TensorSpec]:
    """Return the input and output of a plan. Raises: DeploymentError, where it is not a graph of a bundle."""
    names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
    inputs = [_spec_of(plan, name) for name in names if plan.get_tensor_mode(name).name == "INPUT"]
    outputs = [_spec_of(plan, name) for name in names if plan.get_tensor_mode(name).name == "OUTPUT"]
    if len(inputs) != 1 or len(outputs) != 1:
        raise bundle_graph_error(graph, "does not have one input and one output")
    require_bundle_graph(graph, inputs[0], outputs[0])
    return inputs[0], outputs[0]


def _spec_of(plan: PlanDescription, name: str) -> TensorSpec:
    kind = plan.get_tensor_dtype(name).name
    shape = tuple(None if side < 0 else side for side in plan.get_tensor_shape(name))
    return TensorSpec(name, _NUMPY_NAMES.get(kind, kind.lower()), shape)
