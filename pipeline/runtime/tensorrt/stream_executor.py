"""One CUDA stream with its buffers and execution contexts. Two of them overlap copying and computing."""

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
from pipeline.runtime.tensorrt.device import CapturedGraph, Device, DeviceBuffer, HostBuffer, StreamEvent

MAX_CUDA_GRAPHS = 8
"""batch shapes whose CUDA graphs are kept: full batches, and the remainders that occur often"""
_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class LoadedPlan:
    """A plan on the device. Its contexts need `scratch_bytes` of device memory to compute in."""

    new_context: Callable[[], ExecutionContext | None]
    scratch_bytes: int
    last_error: Callable[[], str]
    """returns why the last call failed"""


@dataclass(slots=True)
class _Prepared:
    """A context with its shape and addresses set, and from its second batch on its CUDA graph."""

    context: ExecutionContext
    answer: tuple[int, ...]
    has_run: bool = False
    captured: CapturedGraph | None = None


@dataclass(frozen=True, slots=True)
class _Buffers:
    host_input: HostBuffer
    input: DeviceBuffer
    output: DeviceBuffer
    host_output: HostBuffer


class StreamExecutor:
    """Runs one batch at a time: `start`, then `finish`. Not for several threads at once."""

    def __init__(self, plan: LoadedPlan, device: Device) -> None:
        """Raises: CapacityError."""
        self._plan = plan
        self._device = device
        self._stream = device.open_stream()
        self._scratch = device.allocate(max(1, plan.scratch_bytes))
        self._buffers: _Buffers | None = None
        self._prepared: OrderedDict[tuple[int, ...], _Prepared] = OrderedDict()
        self._running: tuple[StreamEvent, tuple[int, ...]] | None = None

    def start(self, batch: Rgb) -> None:
        """Start a uint8 (N, H, W, 3) batch; its pixels are copied before the call returns.

        Raises: CapacityError; DeploymentError, where TensorRT refuses it.
        """
        prepared, buffers = self._prepare(batch)
        buffers.host_input.write(batch)
        try:
            self._device.upload(buffers.host_input, buffers.input, batch.nbytes, self._stream)
            self._compute(prepared)
            self._device.download(
                buffers.output, buffers.host_output, _bytes_of(prepared.answer), self._stream
            )
        except BaseException:
            self._device.record(self._stream).wait()  # the enqueued work still reads the buffers
            raise
        self._running = (self._device.record(self._stream), prepared.answer)

    def finish(self) -> Probabilities:
        """Return the output of the batch that was started."""
        if self._running is None or self._buffers is None:
            raise RuntimeError("no batch was started")
        event, answer = self._running
        self._running = None
        event.wait()
        return self._buffers.host_output.read(answer)

    def abandon(self) -> None:
        """Wait for the running batch, if any, and discard its output."""
        if self._running is not None:
            event, _ = self._running
            self._running = None
            with suppress(LeukoflowError):  # another error is on its way to the caller
                event.wait()

    def _prepare(self, batch: Rgb) -> tuple[_Prepared, _Buffers]:
        prepared = self._prepared.get(batch.shape) or self._new(batch.shape)
        buffers = self._buffers_for(batch.nbytes, _bytes_of(prepared.answer))
        if batch.shape not in self._prepared:
            self._bind(prepared, buffers)
            self._prepared[batch.shape] = prepared
        self._prepared.move_to_end(batch.shape)
        while len(self._prepared) > MAX_CUDA_GRAPHS:
            self._prepared.popitem(last=False)
        return prepared, buffers

    def _new(self, axes: tuple[int, ...]) -> _Prepared:
        """Return a context for this shape:

        a captured graph is valid only while its context keeps its shape.
        """
        context = self._plan.new_context()
        if context is None:
            raise CapacityError("The GPU has no memory for another batch shape.", code="batch_too_large")
        if not context.set_input_shape(INPUT_NAME, axes):
            raise self._refused(f"the shape {axes}")
        return _Prepared(context, tuple(context.get_tensor_shape(OUTPUT_NAME)))

    def _buffers_for(self, input_bytes: int, output_bytes: int) -> _Buffers:
        """Return buffers of at least these sizes, the present ones where they suffice."""
        if self._buffers is not None:
            held = (self._buffers.input.size_bytes, self._buffers.output.size_bytes)
            if held[0] >= input_bytes and held[1] >= output_bytes:
                return self._buffers
            input_bytes, output_bytes = max(input_bytes, held[0]), max(output_bytes, held[1])
        # CapturedGraph graphs hold addresses of the old buffers: they are dropped before new ones are
        # allocated.
        self._prepared.clear()
        self._buffers = None
        self._buffers = _Buffers(
            self._device.pin(input_bytes),
            self._device.allocate(input_bytes),
            self._device.allocate(output_bytes),
            self._device.pin(output_bytes),
        )
        return self._buffers

    def _bind(self, prepared: _Prepared, buffers: _Buffers) -> None:
        context = prepared.context
        context.set_device_memory(self._scratch.address, self._scratch.size_bytes)
        for name, buffer in ((INPUT_NAME, buffers.input), (OUTPUT_NAME, buffers.output)):
            if not context.set_tensor_address(name, buffer.address):
                raise self._refused(f"the address of `{name}`")

    def _compute(self, prepared: _Prepared) -> None:
        """Enqueue the work; from the second batch of a shape on as a CUDA graph (the first one sets TensorRT
        up).
        """
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
