"""A CUDA GPU through torch: its allocator, pinned memory, streams and graphs.

Imports torch: import this module only where a GPU was found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.errors import CapacityError, DeploymentError
from pipeline.runtime.tensorrt.device import DeviceBuffer, HostBuffer, Stream


@dataclass(frozen=True, eq=False, slots=True)
class TorchBuffer:
    """Implements `device.DeviceBuffer`."""

    bytes_: torch.Tensor

    @property
    def address(self) -> int:
        return int(self.bytes_.data_ptr())

    @property
    def size_bytes(self) -> int:
        return int(self.bytes_.numel())


@dataclass(frozen=True, eq=False, slots=True)
class TorchHostBuffer(TorchBuffer):
    """Implements `device.HostBuffer`."""

    def write(self, batch: Rgb) -> None:
        self.bytes_.numpy()[: batch.nbytes] = batch.reshape(-1)

    def read(self, shape: tuple[int, ...]) -> Probabilities:
        size_bytes = int(np.prod(shape)) * np.dtype(np.float32).itemsize
        return self.bytes_.numpy()[:size_bytes].copy().view(np.float32).reshape(shape)


@dataclass(frozen=True, eq=False, slots=True)
class TorchStream:
    """Implements `device.Stream`."""

    stream: torch.cuda.Stream

    @property
    def handle(self) -> int:
        return int(self.stream.cuda_stream)


@dataclass(frozen=True, eq=False, slots=True)
class TorchEvent:
    """Implements `device.StreamEvent`."""

    event: torch.cuda.Event

    def wait(self) -> None:
        try:
            self.event.synchronize()
        except RuntimeError as error:
            raise DeploymentError(
                "The GPU failed and is lost to this process; restart it.", code="gpu_failed"
            ) from error


@dataclass(frozen=True, eq=False, slots=True)
class TorchGraph:
    """Implements `device.CapturedGraph`."""

    graph: torch.cuda.CUDAGraph

    def launch(self, stream: Stream) -> None:
        with torch.cuda.stream(_cuda(stream)):
            self.graph.replay()


class TorchDevice:
    """Implements `device.Device`: the current GPU of the process."""

    def __init__(self) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device())

    @property
    def name(self) -> str:
        return str(torch.cuda.get_device_name(self._device))

    @property
    def compute_capability(self) -> str:
        major, minor = torch.cuda.get_device_capability(self._device)
        return f"{major}.{minor}"

    def allocate(self, size_bytes: int) -> TorchBuffer:
        try:
            return TorchBuffer(torch.empty(size_bytes, dtype=torch.uint8, device=self._device))
        except torch.cuda.OutOfMemoryError as error:
            raise CapacityError("The GPU has no memory for this batch.", code="batch_too_large") from error

    def pin(self, size_bytes: int) -> TorchHostBuffer:
        try:
            return TorchHostBuffer(torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True))
        except RuntimeError as error:
            raise CapacityError(
                "No memory of this batch's size can be pinned.", code="batch_too_large"
            ) from error

    def open_stream(self) -> TorchStream:
        return TorchStream(torch.cuda.Stream(self._device))  # type: ignore[no-untyped-call]

    def upload(self, source: HostBuffer, target: DeviceBuffer, size_bytes: int, stream: Stream) -> None:
        self._copy(_bytes(source), _bytes(target), size_bytes, stream)

    def download(self, source: DeviceBuffer, target: HostBuffer, size_bytes: int, stream: Stream) -> None:
        self._copy(_bytes(source), _bytes(target), size_bytes, stream)

    def _copy(self, source: torch.Tensor, target: torch.Tensor, size_bytes: int, stream: Stream) -> None:
        with torch.cuda.stream(_cuda(stream)):
            target[:size_bytes].copy_(source[:size_bytes], non_blocking=True)

    def record(self, stream: Stream) -> TorchEvent:
        # Blocking: a waiting thread leaves its core to the threads that decode.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(_cuda(stream))
        return TorchEvent(event)

    def capture(self, stream: Stream, work: Callable[[], None]) -> TorchGraph:
        """Return the graph of `work`. Other threads may use the device at the same time."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=_cuda(stream), capture_error_mode="thread_local"):
            work()
        return TorchGraph(graph)


def open_torch_device() -> TorchDevice:
    """Return the GPU of this process. This initialises CUDA, so never call it before a fork."""
    return TorchDevice()


def _cuda(stream: Stream) -> torch.cuda.Stream:
    if not isinstance(stream, TorchStream):
        raise TypeError(type(stream))
    return stream.stream


def _bytes(buffer: DeviceBuffer | HostBuffer) -> torch.Tensor:
    if not isinstance(buffer, TorchBuffer):
        raise TypeError(type(buffer))
    return buffer.bytes_
