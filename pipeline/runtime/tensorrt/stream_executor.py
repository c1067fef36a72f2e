"""One batch's way through the device: its own stream, buffers and contexts. Two executors overlap."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from pipeline.bundle.manifest import INPUT_NAME, OUTPUT_NAME
from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.errors import CapacityError, DeploymentError, LeukoflowError
from pipeline.runtime.tensorrt.bindings import ExecutionContext
from pipeline.runtime.tensorrt.device import Captured, Device, DeviceBuffer, Event, HostBuffer

MAX_CUDA_GRAPHS = 8
"""batch shapes of which a executor keeps a CUDA graph: the full batches, and the usual rests"""
_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class LoadedPlan:
    """A plan on the device. Each context needs `scratch_bytes` of its executor's memory to compute in."""

    new_context: Callable[[], ExecutionContext | None]
    scratch_bytes: int
    last_error: Callable[[], str]
    """why the last call failed"""


@dataclass(slots=True)
class _Prepared:
    """A context whose shape and addresses are set, and its work as a CUDA graph from its second batch on."""

    context: ExecutionContext
    answer: tuple[int, ...]
    has_run: bool = False
    captured: Captured | None = None


@dataclass(frozen=True, slots=True)
class _Buffers:
    host_input: HostBuffer
    input: DeviceBuffer
    output: DeviceBuffer
    host_output: HostBuffer


class StreamExecutor:
    """Takes a batch, gives its answer later. One thread at a time; `start` and `finish` alternate."""

    def __init__(self, plan: LoadedPlan, device: Device) -> None:
        """Raises: CapacityError."""
        self._plan = plan
        self._device = device
        self._stream = device.open_stream()
        self._scratch = device.allocate(max(1, plan.scratch_bytes))
        self._buffers: _Buffers | None = None
        self._prepared: OrderedDict[tuple[int, ...], _Prepared] = OrderedDict()
        self._under_way: tuple[Event, tuple[int, ...]] | None = None

    def start(self, batch: Rgb) -> None:
        """Begin with a uint8 (N, H, W, 3) batch, which is copied at once.

        Raises: CapacityError; DeploymentError, where TensorRT refuses it.
        """
        prepared, buffers = self._ready_for(batch)
        buffers.host_input.write(batch)
        try:
            self._device.upload(buffers.host_input, buffers.input, batch.nbytes, self._stream)
            self._compute(prepared)
            self._device.download(
                buffers.output, buffers.host_output, _bytes_of(prepared.answer), self._stream
            )
        except BaseException:
            self._device.record(self._stream).wait()  # what was enqueued still reads the buffers
            raise
        self._under_way = (self._device.record(self._stream), prepared.answer)

    def finish(self) -> Probabilities:
        """Return the answer to the batch that was started."""
        if self._under_way is None or self._buffers is None:
            raise RuntimeError("no batch is under way")
        event, answer = self._under_way
        self._under_way = None
        event.wait()
        return self._buffers.host_output.read(answer)

    def abandon(self) -> None:
        """Wait for the batch under way, if there is one, and forget its answer."""
        if self._under_way is not None:
            event, _ = self._under_way
            self._under_way = None
            with suppress(LeukoflowError):  # another error is on its way to the caller
                event.wait()

    def _ready_for(self, batch: Rgb) -> tuple[_Prepared, _Buffers]:
        prepared = self._prepared.get(batch.shape) or self._new(batch.shape)
        buffers = self._room_for(batch.nbytes, _bytes_of(prepared.answer))
        if batch.shape not in self._prepared:
            self._place(prepared, buffers)
            self._prepared[batch.shape] = prepared
        self._prepared.move_to_end(batch.shape)
        while len(self._prepared) > MAX_CUDA_GRAPHS:
            self._prepared.popitem(last=False)
        return prepared, buffers

    def _new(self, axes: tuple[int, ...]) -> _Prepared:
        """A context for each shape: a graph stays right only while its context is not given another one."""
        context = self._plan.new_context()
        if context is None:
            raise CapacityError("The GPU has no memory for another batch shape.", code="batch_too_large")
        if not context.set_input_shape(INPUT_NAME, axes):
            raise self._refused(f"the shape {axes}")
        return _Prepared(context, tuple(context.get_tensor_shape(OUTPUT_NAME)))

    def _room_for(self, input_bytes: int, output_bytes: int) -> _Buffers:
        """Return buffers of at least these sizes, the held ones where they suffice."""
        if self._buffers is not None:
            held = (self._buffers.input.size_bytes, self._buffers.output.size_bytes)
            if held[0] >= input_bytes and held[1] >= output_bytes:
                return self._buffers
            input_bytes, output_bytes = max(input_bytes, held[0]), max(output_bytes, held[1])
        # Graphs hold addresses: what was captured goes with the old buffers, before the new ones come.
        self._prepared.clear()
        self._buffers = None
        self._buffers = _Buffers(
            self._device.pin(input_bytes),
            self._device.allocate(input_bytes),
            self._device.allocate(output_bytes),
            self._device.pin(output_bytes),
        )
        return self._buffers

    def _place(self, prepared: _Prepared, buffers: _Buffers) -> None:
        context = prepared.context
        context.set_device_memory(self._scratch.address, self._scratch.size_bytes)
        for name, buffer in ((INPUT_NAME, buffers.input), (OUTPUT_NAME, buffers.output)):
            if not context.set_tensor_address(name, buffer.address):
                raise self._refused(f"the address of `{name}`")

    def _compute(self, prepared: _Prepared) -> None:
        """A shape's first batch runs as it is: TensorRT sets itself up in it. Its second is captured."""
        if prepared.has_run and prepared.captured is None:
            prepared.captured = self._device.capture(self._stream, lambda: self._enqueue(prepared))
        if prepared.captured is not None:
            prepared.captured.launch(self._stream)
        else:
            self._enqueue(prepared)
        prepared.has_run = True

    def _enqueue(self, prepared: _Prepared) -> None:
        if not prepared.context.execute_async_v3(self._stream.handle):
            raise self._refused("to compute")

    def _refused(self, what: str) -> DeploymentError:
        return DeploymentError(f"TensorRT refuses {what}: {self._plan.last_error()}.", code="engine_refused")


def _bytes_of(answer: tuple[int, ...]) -> int:
    return int(np.prod(answer)) * _FLOAT32_BYTES
