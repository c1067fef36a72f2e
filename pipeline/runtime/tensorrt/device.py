"""What the loop needs of a GPU. Two implementations: torch_device.py on CUDA, fake_device.py on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pipeline.model.domain import Probabilities, Rgb


class DeviceBuffer(Protocol):
    """Memory on the device, given back when the object is dropped."""

    @property
    def address(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...


class HostBuffer(Protocol):
    """Pinned memory on the host: what the device copies from and to without the CPU."""

    @property
    def address(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    def write(self, batch: Rgb) -> None:
        """Copy `batch` to the buffer's start. No copy from the buffer may be under way."""
        ...

    def read(self, shape: tuple[int, ...]) -> Probabilities:
        """Return a copy of the float32 values at its start. No copy to the buffer may be under way."""
        ...


class Stream(Protocol):
    """A queue of work on the device, done in its order. Two streams overlap."""

    @property
    def handle(self) -> int:
        """A cudaStream_t"""
        ...


class Event(Protocol):
    """A point in a stream."""

    def wait(self) -> None:
        """Return when the stream's work up to the point is done. Raises: DeploymentError, where it failed."""
        ...


class Captured(Protocol):
    """Work that was captured in a CUDA graph, with its addresses and shapes: launched at once."""

    def launch(self, stream: Stream) -> None: ...


class Device(Protocol):
    """A GPU."""

    @property
    def name(self) -> str: ...

    @property
    def compute_capability(self) -> str:
        """As 8.9"""
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

    def record(self, stream: Stream) -> Event: ...

    def capture(self, stream: Stream, work: Callable[[], None]) -> Captured:
        """Return what `work` enqueues on `stream`, which is not run."""
        ...
