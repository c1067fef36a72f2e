"""The interface to a GPU. torch_device.py implements it on CUDA, a test double on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pipeline.model.domain import Probabilities, Rgb


class DeviceBuffer(Protocol):
    """Memory on the device, freed with the object."""

    @property
    def address(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...


class HostBuffer(Protocol):
    """Pinned memory on the host, which the device copies from and to without the CPU."""

    @property
    def address(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    def write(self, batch: Rgb) -> None:
        """Copy `batch` to the buffer's start. No device copy from the buffer may be running."""
        ...

    def read(self, shape: tuple[int, ...]) -> Probabilities:
        """Return a copy of the float32 values at its start. No device copy to the buffer may be running."""
        ...


class Stream(Protocol):
    """A CUDA stream: work on the device, done in order. Two streams overlap."""

    @property
    def handle(self) -> int:
        """A cudaStream_t"""
        ...


class StreamEvent(Protocol):
    """A point in a stream."""

    def wait(self) -> None:
        """Return when the stream's work up to the point is done. Raises: DeploymentError, where it failed."""
        ...


class CapturedGraph(Protocol):
    """Work captured as a CUDA graph, with its addresses and shapes."""

    def launch(self, stream: Stream) -> None: ...


class Device(Protocol):
    """A GPU."""

    @property
    def name(self) -> str: ...

    @property
    def compute_capability(self) -> str:
        """For example `8.9`"""
        ...

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """Raises: CapacityError, where the device has no memory for it."""
        ...

    def pin(self, size_bytes: int) -> HostBuffer:
        """Raises: CapacityError, where the host has no memory for it."""
        ...

    def open_stream(self) -> Stream: ...

    def upload(self, source: HostBuffer, target: DeviceBuffer, size_bytes: int, stream: Stream) -> None: ...

    def download(self, source: DeviceBuffer, target: HostBuffer, size_bytes: int, stream: Stream) -> None: ...

    def record(self, stream: Stream) -> StreamEvent: ...

    def capture(self, stream: Stream, work: Callable[[], None]) -> CapturedGraph:
        """Return what `work` enqueues on `stream` as a graph, without running it."""
        ...
