"""A plan without TensorRT, for tests: ONNX Runtime computes, on the fake device's memory and in its order."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.bundle.manifest import INPUT_NAME, OUTPUT_NAME
from pipeline.runtime.engines.engine_port import EngineIdentity
from pipeline.runtime.engines.onnxruntime_without_telemetry import ort
from pipeline.runtime.tensorrt.batch_shapes import ShapeProfile
from pipeline.runtime.tensorrt.inference_loop import InferenceLoop
from pipeline.runtime.tensorrt.stream_executor import LoadedPlan
from pipeline.runtime.tensorrt.tensorrt_engine import TensorRtEngine, specs_of
from tests.support.fake_device import DeviceMisuse, FakeDevice, Step

SCRATCH_BYTES = 4096
_TENSORRT_NAMES = {"tensor(uint8)": "UINT8", "tensor(float)": "FLOAT"}


@dataclass(frozen=True, slots=True)
class FakeValue:
    """Implements `bindings.Named`."""

    name: str

    def __int__(self) -> int:
        return 0


class FakeCudaEngine:
    """Implements `bindings.CudaEngine`: a graph, loaded by ONNX Runtime."""

    def __init__(self, graph: bytes, device: FakeDevice) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.device = device
        self.device_memory_size_v2 = SCRATCH_BYTES
        self._nodes = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self._nodes)

    def get_tensor_name(self, index: int) -> str:
        return str(self._nodes[index].name)

    def get_tensor_mode(self, name: str) -> FakeValue:
        taken = {node.name for node in self.session.get_inputs()}
        return FakeValue("INPUT" if name in taken else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> FakeValue:
        return FakeValue(_TENSORRT_NAMES.get(kind := self._node(name).type, kind))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(side if isinstance(side, int) else -1 for side in self._node(name).shape)

    def create_execution_context(self) -> FakeContext:
        return FakeContext(self)

    def _node(self, name: str) -> ort.NodeArg:
        return next(node for node in self._nodes if node.name == name)


@dataclass(slots=True)
class FakeContext:
    """Implements `bindings.ExecutionContext`. Raises: DeviceMisuse, where it is asked before it is told."""

    engine: FakeCudaEngine
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    scratch: int | None = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fixed = self.engine.get_tensor_shape(name)
        if len(fixed) != len(shape) or any(a not in (-1, b) for a, b in zip(fixed, shape, strict=True)):
            return False
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        count, height, width, _ = self._shape()
        fixed = self.engine.get_tensor_shape(name)
        return tuple(
            side if side >= 0 else given
            for side, given in zip(fixed, (count, 0, height, width)[: len(fixed)], strict=True)
        )

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        if size < SCRATCH_BYTES:
            raise DeviceMisuse(f"{size} bytes to compute in where {SCRATCH_BYTES} are needed")
        self.scratch = memory

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Enqueue the graph on the shape and the addresses of now."""
        shape = self._shape()
        if self.scratch is None or {INPUT_NAME, OUTPUT_NAME} - set(self.addresses):
            raise DeviceMisuse("computed before every address was set")
        taken, given, scratch = self.addresses[INPUT_NAME], self.addresses[OUTPUT_NAME], self.scratch
        session, device = self.engine.session, self.engine.device

        def compute() -> None:
            batch = device.at(taken).get(int(np.prod(shape))).reshape(shape)
            (answer,) = session.run([OUTPUT_NAME], {INPUT_NAME: batch})
            device.at(given).put(np.ascontiguousarray(answer, np.float32).reshape(-1).view(np.uint8))

        device.enqueue(stream_handle, Step(compute, (taken,), (given, scratch)))
        return True

    def _shape(self) -> tuple[int, ...]:
        if INPUT_NAME not in self.shapes:
            raise DeviceMisuse("computed before a shape was set")
        return self.shapes[INPUT_NAME]


def open_on_fake_device(
    graph: Path, shapes: ShapeProfile, device: FakeDevice | None = None
) -> TensorRtEngine:
    """Return TensorRT's loop over `graph`, run by ONNX Runtime on a device that is not there."""
    place = device or FakeDevice()
    cuda_engine = FakeCudaEngine(graph.read_bytes(), place)
    plan = LoadedPlan(cuda_engine.create_execution_context, SCRATCH_BYTES, lambda: "the fake gives no reason")
    identity = EngineIdentity("tensorrt", "fake", place.name, "fp32")
    taken, given = specs_of(cuda_engine, graph)
    return TensorRtEngine(InferenceLoop(plan, place, shapes), identity, taken, given)
