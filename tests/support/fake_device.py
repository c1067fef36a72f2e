"""A device without a GPU, for tests: it defers work as a GPU does, and objects to whatever would race on one.

Work is done no sooner than somebody waits for it, so that an answer that is read too early, or a buffer that
is written again too early, is wrong here every time, and not once in a thousand.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.errors import CapacityError
from pipeline.runtime.tensorrt.device import DeviceBuffer, HostBuffer, Stream

_FIRST_ADDRESS, _ALIGNMENT_BYTES = 1 << 32, 256

Bytes = npt.NDArray[np.uint8]


class DeviceMisuse(RuntimeError):
    """What a GPU would answer with wrong numbers, or not at all."""


class FakeMemory:
    """Memory of host or device, and how much of it has been written."""

    def __init__(self, address: int, size_bytes: int) -> None:
        self.address = address
        self.size_bytes = size_bytes
        self.content: Bytes = np.full(size_bytes, 0xAB, np.uint8)
        self.written_bytes = 0

    def put(self, content: Bytes) -> None:
        if content.size > self.size_bytes:
            raise DeviceMisuse(f"{content.size} bytes into a buffer of {self.size_bytes}")
        self.content[: content.size] = content
        self.written_bytes = content.size

    def get(self, size_bytes: int) -> Bytes:
        if size_bytes > self.written_bytes:
            raise DeviceMisuse(f"{size_bytes} bytes are read where {self.written_bytes} were written")
        return self.content[:size_bytes]


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of work in a stream; which addresses it reads and writes."""

    work: Callable[[], None]
    reads: tuple[int, ...]
    writes: tuple[int, ...]


@dataclass(eq=False, slots=True)
class FakeStream:
    """Implements `device.Stream`."""

    handle: int
    waiting: deque[Step] = field(default_factory=deque)
    captures: list[Step] | None = None
    done: int = 0
    enqueued: int = 0


class FakeDevice:
    """Implements `device.Device`. `memory_bytes` is all that can be allocated at a time."""

    name = "fake device"
    compute_capability = "8.9"

    def __init__(self, memory_bytes: int = 1 << 30) -> None:
        self.memory: WeakValueDictionary[int, FakeMemory] = WeakValueDictionary()
        self.streams: dict[int, FakeStream] = {}
        self.peak_under_way = 0
        """streams that had work at one time: 2 is overlap"""
        self.launches = 0
        """of captured graphs"""
        self._memory_bytes = memory_bytes
        self._next_address = _FIRST_ADDRESS
        self._handles = count(1)
        self._lock = threading.RLock()

    def allocate(self, size_bytes: int) -> FakeMemory:
        """Return device memory full of rubbish. Raises: CapacityError."""
        with self._lock:
            if sum(held.size_bytes for held in self.memory.values()) + size_bytes > self._memory_bytes:
                raise CapacityError("The fake device has no memory left.", code="batch_too_large")
            address = self._next_address
            self._next_address += size_bytes + -size_bytes % _ALIGNMENT_BYTES + _ALIGNMENT_BYTES
            memory = FakeMemory(address, size_bytes)
            self.memory[address] = memory
            return memory

    def pin(self, size_bytes: int) -> FakeHostBuffer:
        """Return host memory. Raises: CapacityError."""
        return FakeHostBuffer(self, self.allocate(size_bytes))

    def open_stream(self) -> FakeStream:
        with self._lock:
            stream = FakeStream(next(self._handles))
            self.streams[stream.handle] = stream
            return stream

    def upload(self, source: HostBuffer, target: DeviceBuffer, size_bytes: int, stream: Stream) -> None:
        self._copy(source.address, target.address, size_bytes, stream)

    def download(self, source: DeviceBuffer, target: HostBuffer, size_bytes: int, stream: Stream) -> None:
        self._copy(source.address, target.address, size_bytes, stream)

    def _copy(self, source: int, target: int, size_bytes: int, stream: Stream) -> None:
        def copy() -> None:
            self.at(target).put(self.at(source).get(size_bytes))

        self.enqueue(stream.handle, Step(copy, (source,), (target,)))

    def record(self, stream: Stream) -> FakeEvent:
        with self._lock:
            own = self.streams[stream.handle]
            return FakeEvent(self, own, own.enqueued)

    def capture(self, stream: Stream, work: Callable[[], None]) -> FakeGraph:
        """Return what `work` enqueues; nothing else may be captured on the stream meanwhile."""
        own = self.streams[stream.handle]
        own.captures = []
        try:
            work()
            return FakeGraph(self, tuple(own.captures))
        finally:
            own.captures = None

    def at(self, address: int) -> FakeMemory:
        """Return the memory that begins at `address`. Raises: DeviceMisuse, where there is none."""
        memory = self.memory.get(address)
        if memory is None:
            raise DeviceMisuse(f"there is no memory at {address:#x}")
        return memory

    def enqueue(self, handle: int, step: Step) -> None:
        """Add work to the stream `handle`, or to what is captured of it.

        Raises: DeviceMisuse, where another stream's waiting work uses the same memory, and one writes.
        """
        with self._lock:
            stream = self.streams[handle]
            if stream.captures is not None:
                stream.captures.append(step)
                return
            for other in self.streams.values():
                if other is not stream and any(_conflict(step, waiting) for waiting in other.waiting):
                    raise DeviceMisuse("two streams use one buffer at the same time")
            stream.waiting.append(step)
            stream.enqueued += 1
            under_way = sum(bool(each.waiting) for each in self.streams.values())
            self.peak_under_way = max(self.peak_under_way, under_way)

    def is_touched(self, address: int) -> bool:
        """Return whether work that reads or writes the memory is still waiting."""
        with self._lock:
            steps = (step for stream in self.streams.values() for step in stream.waiting)
            return any(address in (*step.reads, *step.writes) for step in steps)

    def do(self, stream: FakeStream, until: int) -> None:
        """Do the stream's work up to a point."""
        while stream.done < until:
            stream.waiting[0].work()
            with self._lock:
                stream.waiting.popleft()
                stream.done += 1


def _conflict(first: Step, second: Step) -> bool:
    return bool(
        set(first.writes) & {*second.reads, *second.writes}
        or set(second.writes) & {*first.reads, *first.writes}
    )


@dataclass(frozen=True, slots=True)
class FakeHostBuffer:
    """Implements `device.HostBuffer`."""

    device: FakeDevice
    memory: FakeMemory

    @property
    def address(self) -> int:
        return self.memory.address

    @property
    def size_bytes(self) -> int:
        return self.memory.size_bytes

    def write(self, batch: Rgb) -> None:
        self._check_idle()
        self.memory.put(batch.reshape(-1))

    def read(self, shape: tuple[int, ...]) -> Probabilities:
        self._check_idle()
        size_bytes = int(np.prod(shape)) * np.dtype(np.float32).itemsize
        return self.memory.get(size_bytes).copy().view(np.float32).reshape(shape)

    def _check_idle(self) -> None:
        if self.device.is_touched(self.memory.address):
            raise DeviceMisuse("the host uses a buffer that a copy is still waiting for")


@dataclass(frozen=True, slots=True)
class FakeEvent:
    """Implements `device.StreamEvent`."""

    device: FakeDevice
    stream: FakeStream
    after: int

    def wait(self) -> None:
        self.device.do(self.stream, self.after)


@dataclass(frozen=True, slots=True)
class FakeGraph:
    """Implements `device.CapturedGraph`."""

    device: FakeDevice
    steps: tuple[Step, ...]

    def launch(self, stream: Stream) -> None:
        self.device.launches += 1
        for step in self.steps:
            self.device.enqueue(stream.handle, step)
