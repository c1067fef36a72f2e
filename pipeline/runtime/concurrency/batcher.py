"""One queue before each network: what several scans ask at the same time is answered in common batches."""

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
"""(N, …) pictures → (N, …) answers, each answer depending on its own picture only"""

TILES_AT_ONCE = 8
CROPS_AT_ONCE = 64
WAIT_S = 0.004
_WAITING_BATCHES = 4
"""Batches' worth of items that may wait; whoever asks beyond it, waits before asking"""


class Urgency(IntEnum):
    """Who is served first."""

    STAT = 0
    ROUTINE = 1


@dataclass(frozen=True, slots=True, eq=False)
class BatchClient:
    """One that asks, several things at once if it likes: a scan."""

    urgency: Urgency = Urgency.ROUTINE


class ScansInFlight:
    """How many scans are being analysed: nobody waits for company that cannot come."""

    def __init__(self) -> None:
        self._count = 0
        self._changing = threading.Lock()

    @property
    def scans(self) -> int:
        return self._count

    @contextmanager
    def scan(self) -> Iterator[None]:
        """Return a context that spans the analysis of one scan."""
        with self._changing:
            self._count += 1
        try:
            yield
        finally:
            with self._changing:
                self._count -= 1


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who shares a network: how many batches run at once, and the scans that may ask."""

    servers: int
    in_flight: ScansInFlight


@dataclass(frozen=True, slots=True)
class Load:
    """What a network was asked since it was opened, and how much it could take."""

    batches: int
    items: int
    busy_s: float
    """the time of its batches; of several that run at once each counts"""
    waiting_items: int
    max_batch: int
    servers: int


ALONE = Sharing(1, ScansInFlight())
"""One batch at a time, of askers that nobody counts."""


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    items: Rgb
    client: BatchClient
    asked_at_s: float
    answer: Future[Probabilities] = field(default_factory=Future)


class Batcher:
    """Joins the requests of several threads into batches of one network.

    A batch is run when it is full, when every scan in flight waits or is served, or when its first request
    has waited `max_wait_s`; as many at once as there are `Sharing.servers`. Urgent
    requests are served first, equally urgent ones in their order; one that does not fit (another picture
    size, too many items) begins the next batch.
    """

    def __init__(self, run: Run, max_batch: int, max_wait_s: float, sharing: Sharing = ALONE) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._in_flight = sharing.in_flight
        self._served: list[_Request] = []
        self._waiting: dict[Urgency, deque[_Request]] = {urgency: deque() for urgency in Urgency}
        self._changed = threading.Condition()
        self._closed = False
        self._batches, self._items, self._busy_s = 0, 0, 0.0
        self._threads = [
            threading.Thread(target=self._serve, name="batcher", daemon=True) for _ in range(sharing.servers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, items: Rgb, client: BatchClient | None = None) -> Probabilities:
        """Return the answers to `items` (N, …), N ≥ 0, in their order; blocks until they are there.

        Without an `client` it is one that asks nothing else.

        Raises: what the network raised for a batch with these items; RuntimeError, where closed.
        """
        if not len(items):
            return self._run(items)
        parts = [items[start : start + self._max_batch] for start in range(0, len(items), self._max_batch)]
        client = client or BatchClient()
        answers = [self._ask(part, client) for part in parts]
        return joined(answer.result() for answer in answers)

    @property
    def waiting_items(self) -> int:
        """How many items wait to be asked, of every urgency."""
        with self._changed:
            return _items_of(self._in_order())

    @property
    def load(self) -> Load:
        """What was asked so far; a batch counts once it is answered."""
        with self._changed:
            return Load(
                batches=self._batches,
                items=self._items,
                busy_s=self._busy_s,
                waiting_items=self.waiting_items,
                max_batch=self._max_batch,
                servers=len(self._threads),
            )

    def close(self) -> None:
        """Answer what was asked, accept nothing more, end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _ask(self, items: Rgb, client: BatchClient) -> Future[Probabilities]:
        queue, room = self._waiting[client.urgency], _WAITING_BATCHES * self._max_batch
        with self._changed:
            self._changed.wait_for(lambda: self._closed or _items_of(queue) < room)
            if self._closed:
                raise RuntimeError("the batcher is closed")
            request = _Request(items, client, time.monotonic())
            queue.append(request)
            self._changed.notify_all()
        return request.answer

    def _serve(self) -> None:
        while batch := self._next_batch():
            begun_s = time.monotonic()
            self._answer(batch)
            with self._changed:
                self._busy_s += time.monotonic() - begun_s
                self._batches += 1
                self._items += _items_of(batch)
                for request in batch:
                    self._served.remove(request)
                self._changed.notify_all()

    def _next_batch(self) -> list[_Request]:
        """Return the requests of the next batch; none when closed and all is answered."""
        with self._changed:
            while (first := self._awaited_first()) is not None:
                left_s = first.asked_at_s + self._max_wait_s - time.monotonic()
                self._changed.wait_for(
                    lambda first=first: self._closed or self._first() is not first or self._is_full(),  # type: ignore[misc]
                    max(0.0, left_s),
                )
                if self._first() is first:
                    return self._taken()
            return []

    def _awaited_first(self) -> _Request | None:
        self._changed.wait_for(lambda: self._first() is not None or self._closed)
        return self._first()

    def _taken(self) -> list[_Request]:
        """Return the requests that fit into one batch; they wait no more."""
        batch = list(self._joinable())
        for request in batch:
            next(queue for queue in self._waiting.values() if queue and queue[0] is request).popleft()
        self._served += batch
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
        return self._nobody_else_comes() or _items_of(joinable) >= self._max_batch

    def _nobody_else_comes(self) -> bool:
        askers = {request.client for request in chain(self._in_order(), self._served)}
        return 0 < self._in_flight.scans <= len(askers)

    def _answer(self, batch: list[_Request]) -> None:
        try:
            answers = self._run_or_halve(joined(request.items for request in batch))
        except BaseException as error:  # noqa: BLE001 - raised again by each thread that waits for it
            for request in batch:
                request.answer.set_exception(error)
            return
        start = 0
        for request in batch:
            request.answer.set_result(answers[start : start + len(request.items)])
            start += len(request.items)

    def _run_or_halve(self, items: Rgb) -> Probabilities:
        try:
            answers = self._run(items)
        except CapacityError:
            if len(items) < 2:
                raise
            half = len(items) // 2
            answers = np.concatenate([self._run(items[:half]), self._run(items[half:])])
        if len(answers) != len(items):
            raise RuntimeError(f"{len(items)} pictures in, {len(answers)} answers out")
        return answers


def _items_of(requests: Iterable[_Request]) -> int:
    return sum(len(request.items) for request in requests)


class _Batched(Closing):
    """What threads share: a batcher, and who asks it."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._asker: BatchClient | None = None

    def for_client(self, client: BatchClient) -> Self:
        """Return the same, asked by a scan; closing either closes both."""
        other = copy(self)
        other._asker = client
        return other

    @property
    def load(self) -> Load:
        """What the network was asked so far, by whomever."""
        return self._batcher.load

    def close(self) -> None:
        self._batcher.close()


class BatchedSegmenter(_Batched):
    """A segmenter shared by threads. Implements `ports.Segmenter`; a context manager that closes it."""

    def __init__(
        self,
        segmenter: Segmenter,
        max_batch: int = TILES_AT_ONCE,
        max_wait_s: float = WAIT_S,
        sharing: Sharing = ALONE,
    ) -> None:
        super().__init__(Batcher(segmenter.segment, max_batch, max_wait_s, sharing))
        self._segmenter = segmenter

    @property
    def stride_px(self) -> int:
        return self._segmenter.stride_px

    def segment(self, batch: Rgb) -> Probabilities:
        """Return float32 (N, 3, H, W): see `ports.Segmenter`."""
        return self._batcher.submit(batch, self._asker)


class BatchedClassifier(_Batched):
    """An ensemble shared by threads. Implements `ports.Classifier`; a context manager that closes it."""

    def __init__(
        self,
        classifier: Classifier,
        max_batch: int = CROPS_AT_ONCE,
        max_wait_s: float = WAIT_S,
        sharing: Sharing = ALONE,
    ) -> None:
        super().__init__(
            Batcher(lambda crops: _crops_first(classifier, crops), max_batch, max_wait_s, sharing)
        )
        self._classifier = classifier

    @property
    def crop_px(self) -> Size:
        return self._classifier.crop_px

    @property
    def crop_mpp_um(self) -> float:
        return self._classifier.crop_mpp_um

    def classify(self, batch: Rgb) -> Probabilities:
        """Return float32 (M, N, L): see `ports.Classifier`."""
        return np.ascontiguousarray(np.swapaxes(self._batcher.submit(batch, self._asker), 0, 1))


def _crops_first(classifier: Classifier, batch: Rgb) -> Probabilities:
    return np.swapaxes(classifier.classify(batch), 0, 1)
