"""One queue for each network: requests of several scans are run in common batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain
from typing import Self

import numpy as np

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.errors import CapacityError
from pipeline.model.geometry import Size
from pipeline.model.ports import Classifier, Segmenter
from pipeline.runtime.concurrency.closing import Closing
from pipeline.runtime.concurrency.joining import joined

Run = Callable[[Rgb], Probabilities]
"""(N, …) pictures → (N, …) outputs, each of which depends on its own picture only"""

MAX_TILES = 8
MAX_CROPS = 64
WAIT_S = 0.004
_QUEUED_BATCHES = 4
"""the queue's capacity in batches; a full queue blocks its callers"""


class Urgency(IntEnum):
    """The priority of a request: lower values run first."""

    STAT = 0
    ROUTINE = 1


@dataclass(frozen=True, slots=True, eq=False)
class BatchClient:
    """The identity of a caller, a scan, which may have several requests at once."""

    urgency: Urgency = Urgency.ROUTINE


class ScansInFlight:
    """Counts the scans being analysed: once all of them wait, a batch cannot grow any more."""

    def __init__(self) -> None:
        self._count = 0
        self._changing = threading.Lock()

    @property
    def scans(self) -> int:
        return self._count

    @contextmanager
    def scan(self) -> Iterator[None]:
        """Return a context around the analysis of one scan."""
        with self._changing:
            self._count += 1
        try:
            yield
        finally:
            with self._changing:
                self._count -= 1


@dataclass(frozen=True, slots=True)
class BatchingLimits:
    """How a network is shared: how many batches run at once, and the scans that use it."""

    parallel_batches: int
    in_flight: ScansInFlight


@dataclass(frozen=True, slots=True)
class Load:
    """The work of a network since it was opened, and its capacity."""

    batches: int
    items: int
    busy_s: float
    """total duration of its batches, whether they overlapped or not"""
    waiting_items: int
    max_batch: int
    parallel_batches: int


UNSHARED = BatchingLimits(1, ScansInFlight())
"""One batch at a time, without counting the scans."""


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    items: Rgb
    client: BatchClient
    submitted_at_s: float
    output: Future[Probabilities] = field(default_factory=Future)


class Batcher:
    """Joins the requests of several threads into batches of one network.

    A batch runs when it is full, when every scan in flight is waiting or running, or when its first request
    has waited `max_wait_s`. `BatchingLimits.parallel_batches` of them run at once. Urgent requests run first,
    others in order of arrival. A request that does not fit (another picture size, too many items) starts the
    next batch.
    """

    def __init__(
        self, run: Run, max_batch: int, max_wait_s: float, limits: BatchingLimits = UNSHARED
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._in_flight = limits.in_flight
        self._running: list[_Request] = []
        self._waiting: dict[Urgency, deque[_Request]] = {urgency: deque() for urgency in Urgency}
        self._changed = threading.Condition()
        self._closed = False
        self._batches, self._items, self._busy_s = 0, 0, 0.0
        self._threads = [
            threading.Thread(target=self._run_batches, name="batcher", daemon=True)
            for _ in range(limits.parallel_batches)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, items: Rgb, client: BatchClient | None = None) -> Probabilities:
        """Return the outputs for `items` (N, …), N ≥ 0, in their order; blocks until they are ready.

        Without a `client` the caller counts as one that has no other request.

        Raises: what the network raised for a batch with these items; RuntimeError, where closed.
        """
        if not len(items):
            return self._run(items)
        parts = [items[start : start + self._max_batch] for start in range(0, len(items), self._max_batch)]
        client = client or BatchClient()
        futures = [self._enqueue(part, client) for part in parts]
        return joined(future.result() for future in futures)

    @property
    def waiting_items(self) -> int:
        """How many items are waiting, of every urgency."""
        with self._changed:
            return _items_of(self._in_order())

    @property
    def load(self) -> Load:
        """The work so far; a batch counts once it is finished."""
        with self._changed:
            return Load(
                batches=self._batches,
                items=self._items,
                busy_s=self._busy_s,
                waiting_items=self.waiting_items,
                max_batch=self._max_batch,
                parallel_batches=len(self._threads),
            )

    def close(self) -> None:
        """Finish the waiting requests, accept no new ones, end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _enqueue(self, items: Rgb, client: BatchClient) -> Future[Probabilities]:
        queue, capacity = self._waiting[client.urgency], _QUEUED_BATCHES * self._max_batch
        with self._changed:
            self._changed.wait_for(lambda: self._closed or _items_of(queue) < capacity)
            if self._closed:
                raise RuntimeError("the batcher is closed")
            request = _Request(items, client, time.monotonic())
            queue.append(request)
            self._changed.notify_all()
        return request.output

    def _run_batches(self) -> None:
        while batch := self._next_batch():
            started_s = time.monotonic()
            self._run_batch(batch)
            with self._changed:
                self._busy_s += time.monotonic() - started_s
                self._batches += 1
                self._items += _items_of(batch)
                for request in batch:
                    self._running.remove(request)
                self._changed.notify_all()

    def _next_batch(self) -> list[_Request]:
        """Return the requests of the next batch; empty once closed and all are finished."""
        with self._changed:
            while (first := self._wait_for_first()) is not None:
                left_s = first.submitted_at_s + self._max_wait_s - time.monotonic()
                self._changed.wait_for(
                    lambda first=first: self._closed or self._first() is not first or self._is_full(),  # type: ignore[misc]
                    max(0.0, left_s),
                )
                if self._first() is first:
                    return self._dequeue()
            return []

    def _wait_for_first(self) -> _Request | None:
        self._changed.wait_for(lambda: self._first() is not None or self._closed)
        return self._first()

    def _dequeue(self) -> list[_Request]:
        """Return the requests of one batch, removed from the queue."""
        batch = list(self._joinable())
        for request in batch:
            next(queue for queue in self._waiting.values() if queue and queue[0] is request).popleft()
        self._running += batch
        self._changed.notify_all()
        return batch

    def _in_order(self) -> Iterator[_Request]:
        return chain.from_iterable(self._waiting[urgency] for urgency in Urgency)

    def _first(self) -> _Request | None:
        return next(self._in_order(), None)

    def _joinable(self) -> Iterator[_Request]:
        """Yield the first requests that fit into one batch."""
        shape, items = None, 0
        for request in self._in_order():
            items += len(request.items)
            if items > self._max_batch or request.items.shape[1:] != (shape or request.items.shape[1:]):
                return
            shape = request.items.shape[1:]
            yield request

    def _is_full(self) -> bool:
        joinable = list(self._joinable())
        if len(joinable) < sum(map(len, self._waiting.values())):
            return True
        return self._all_scans_are_waiting() or _items_of(joinable) >= self._max_batch

    def _all_scans_are_waiting(self) -> bool:
        clients = {request.client for request in chain(self._in_order(), self._running)}
        return 0 < self._in_flight.scans <= len(clients)

    def _run_batch(self, batch: list[_Request]) -> None:
        try:
            outputs = self._run_or_halve(joined(request.items for request in batch))
        except BaseException as error:  # noqa: BLE001 - raised again in each waiting thread
            for request in batch:
                request.output.set_exception(error)
            return
        start = 0
        for request in batch:
            request.output.set_result(outputs[start : start + len(request.items)])
            start += len(request.items)

    def _run_or_halve(self, items: Rgb) -> Probabilities:
        try:
            outputs = self._run(items)
        except CapacityError:
            if len(items) < 2:
                raise
            half = len(items) // 2
            outputs = np.concatenate([self._run(items[:half]), self._run(items[half:])])
        if len(outputs) != len(items):
            raise RuntimeError(f"{len(items)} pictures in, {len(outputs)} outputs out")
        return outputs


def _items_of(requests: Iterable[_Request]) -> int:
    return sum(len(request.items) for request in requests)


class _Batched(Closing):
    """A batcher that threads share, and the client on whose behalf it is called."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._client: BatchClient | None = None

    def for_client(self, client: BatchClient) -> Self:
        """Return the same network for the requests of one client; closing either closes both."""
        other = copy(self)
        other._client = client
        return other

    @property
    def load(self) -> Load:
        """The work of the network so far, for all clients."""
        return self._batcher.load

    def close(self) -> None:
        self._batcher.close()


class BatchedSegmenter(_Batched):
    """A segmenter shared by threads. Implements `ports.Segmenter`; a context manager that closes it."""

    def __init__(
        self,
        segmenter: Segmenter,
        max_batch: int = MAX_TILES,
        max_wait_s: float = WAIT_S,
        limits: BatchingLimits = UNSHARED,
    ) -> None:
        super().__init__(Batcher(segmenter.segment, max_batch, max_wait_s, limits))
        self._segmenter = segmenter

    @property
    def stride_px(self) -> int:
        return self._segmenter.stride_px

    def segment(self, batch: Rgb) -> Probabilities:
        """Return float32 (N, 3, H, W): see `ports.Segmenter`."""
        return self._batcher.submit(batch, self._client)


class BatchedClassifier(_Batched):
    """An ensemble shared by threads. Implements `ports.Classifier`; a context manager that closes it."""

    def __init__(
        self,
        classifier: Classifier,
        max_batch: int = MAX_CROPS,
        max_wait_s: float = WAIT_S,
        limits: BatchingLimits = UNSHARED,
    ) -> None:
        super().__init__(Batcher(lambda crops: _by_crop(classifier, crops), max_batch, max_wait_s, limits))
        self._classifier = classifier

    @property
    def crop_px(self) -> Size:
        return self._classifier.crop_px

    @property
    def crop_mpp_um(self) -> float:
        return self._classifier.crop_mpp_um

    def classify(self, batch: Rgb) -> Probabilities:
        """Return float32 (M, N, L): see `ports.Classifier`."""
        return np.ascontiguousarray(np.swapaxes(self._batcher.submit(batch, self._client), 0, 1))


def _by_crop(classifier: Classifier, batch: Rgb) -> Probabilities:
    return np.swapaxes(classifier.classify(batch), 0, 1)
