"""The batcher: who asked gets the answers to what was asked, whatever else was in the batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.errors import CapacityError
from pipeline.runtime.concurrency.batcher import (
    BatchClient,
    Batcher,
    BatchingLimits,
    Load,
    ScansInFlight,
    Urgency,
)

DEADLINE_S = 20


def _items(*values: int) -> Rgb:
    return np.array(values, np.uint8).reshape(-1, 1)


class Doubling:
    """A network that doubles, and remembers how large its batches were."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.seen: list[int] = []

    def __call__(self, items: Rgb) -> Probabilities:
        self.sizes.append(len(items))
        self.seen += items[:, 0].tolist()
        return items.astype(np.float32) * 2


class Gate(Doubling):
    """Holds its first batch until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.inside = 0

    def __call__(self, items: Rgb) -> Probabilities:
        self.inside += 1
        self.entered.set()
        assert self.opened.wait(DEADLINE_S)
        return super().__call__(items)


@settings(max_examples=30, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(0, 255), max_size=9), min_size=1, max_size=20),
    max_batch=st.integers(1, 6),
    wait_ms=st.integers(0, 3),
)
def test_each_gets_its_own_answers(requests: list[list[int]], max_batch: int, wait_ms: int) -> None:
    run = Doubling()
    batcher = Batcher(run, max_batch, wait_ms / 1000)
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda values: batcher.submit(_items(*values)), requests))
    batcher.close()
    assert [answer[:, 0].tolist() for answer in answers] == [
        [2 * value for value in values] for values in requests
    ]
    assert sum(run.sizes) == sum(map(len, requests))
    assert max(run.sizes, default=0) <= max_batch


def test_who_is_alone_does_not_wait() -> None:
    in_flight = ScansInFlight()
    batcher = Batcher(
        Doubling(), max_batch=8, max_wait_s=10 * DEADLINE_S, limits=BatchingLimits(1, in_flight)
    )
    with ThreadPoolExecutor(1) as pool, in_flight.scan():
        assert pool.submit(batcher.submit, _items(3)).result(DEADLINE_S).tolist() == [[6.0]]
    batcher.close()


def test_two_in_flight_wait_for_each_other() -> None:
    in_flight, run = ScansInFlight(), Doubling()
    batcher = Batcher(run, max_batch=8, max_wait_s=10 * DEADLINE_S, limits=BatchingLimits(1, in_flight))
    with ThreadPoolExecutor(2) as pool, in_flight.scan(), in_flight.scan():
        answers = list(pool.map(lambda value: batcher.submit(_items(value, value)), (1, 2)))
    batcher.close()
    assert [answer.tolist() for answer in answers] == [[[2.0], [2.0]], [[4.0], [4.0]]]
    assert run.sizes == [4]
    assert in_flight.scans == 0


def test_a_scan_that_asks_twice_is_no_company_of_its_own() -> None:
    in_flight, run, one, other = ScansInFlight(), Doubling(), BatchClient(), BatchClient()
    batcher = Batcher(run, max_batch=8, max_wait_s=10 * DEADLINE_S, limits=BatchingLimits(1, in_flight))
    with ThreadPoolExecutor(3) as pool, in_flight.scan(), in_flight.scan():
        twice = [pool.submit(batcher.submit, _items(value), one) for value in (1, 2)]
        assert _eventually(lambda: batcher.waiting_items == 2)
        assert run.sizes == []
        answers = [*twice, pool.submit(batcher.submit, _items(3), other)]
        assert [answer.result(DEADLINE_S).item() for answer in answers] == [2, 4, 6]
    batcher.close()
    assert run.sizes == [3]


def test_who_comes_while_all_others_are_served_does_not_wait() -> None:
    gate, in_flight = Gate(), ScansInFlight()
    batcher = Batcher(gate, max_batch=1, max_wait_s=10 * DEADLINE_S, limits=BatchingLimits(2, in_flight))
    with ThreadPoolExecutor(2) as pool, in_flight.scan(), in_flight.scan():
        answers = [pool.submit(batcher.submit, _items(value)) for value in (1, 2)]
        assert _eventually(lambda: gate.inside == 2)
        gate.opened.set()
        assert [answer.result(DEADLINE_S).item() for answer in answers] == [2, 4]
    batcher.close()


def test_one_server_runs_one_batch_at_a_time() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=1, max_wait_s=0.0)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(batcher.submit, _items(value)) for value in (1, 2)]
        assert gate.entered.wait(DEADLINE_S)
        assert _eventually(lambda: batcher.waiting_items == 1)
        assert gate.inside == 1
        gate.opened.set()
        assert [answer.result(DEADLINE_S).item() for answer in answers] == [2, 4]
    batcher.close()


def test_requests_that_wait_together_run_together() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=8, max_wait_s=5.0)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(batcher.submit, _items(*range(8)))
        assert gate.entered.wait(DEADLINE_S)
        rest = [pool.submit(batcher.submit, _items(value)) for value in range(8)]
        gate.opened.set()
        assert first.result(DEADLINE_S).shape == (8, 1)
        assert [answer.result(DEADLINE_S).item() for answer in rest] == [2 * value for value in range(8)]
    batcher.close()
    assert gate.sizes == [8, 8]


def test_pictures_of_other_sizes_run_apart() -> None:
    shapes: list[tuple[int, ...]] = []

    def run(items: Rgb) -> Probabilities:
        shapes.append(items.shape[1:])
        return items.astype(np.float32)

    batcher = Batcher(run, max_batch=8, max_wait_s=0.05)
    with ThreadPoolExecutor(4) as pool:
        batches = [np.full((1, side, 2), side, np.uint8) for side in (2, 3, 2, 3)]
        answers = list(pool.map(batcher.submit, batches))
    batcher.close()
    assert [answer.shape for answer in answers] == [batch.shape for batch in batches]
    assert set(shapes) == {(2, 2), (3, 2)}


def test_an_error_goes_to_its_own_batch_only() -> None:
    def run(items: Rgb) -> Probabilities:
        if (items == 13).any():
            raise ValueError("thirteen")
        return items.astype(np.float32)

    batcher = Batcher(run, max_batch=1, max_wait_s=0.0)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(batcher.submit, _items(value)) for value in (12, 13, 14)]
        assert answers[0].result(DEADLINE_S).item() == 12
        with pytest.raises(ValueError, match="thirteen"):
            answers[1].result(DEADLINE_S)
        assert answers[2].result(DEADLINE_S).item() == 14
    batcher.close()


def test_a_batch_without_room_is_halved_once() -> None:
    sizes: list[int] = []

    def run(items: Rgb) -> Probabilities:
        sizes.append(len(items))
        if len(items) > 4:
            raise CapacityError("There is no memory for this batch.", code="batch_too_large")
        return items.astype(np.float32)

    batcher = Batcher(run, max_batch=16, max_wait_s=0.0)
    assert batcher.submit(_items(*range(7)))[:, 0].tolist() == list(range(7))
    assert sizes == [7, 3, 4]
    with pytest.raises(CapacityError):
        batcher.submit(_items(*range(16)))
    batcher.close()


def test_a_network_that_loses_a_picture_is_found_out() -> None:
    batcher = Batcher(lambda items: items[1:].astype(np.float32), max_batch=4, max_wait_s=0.0)
    with pytest.raises(RuntimeError, match="3 pictures in, 2 outputs out"):
        batcher.submit(_items(1, 2, 3))
    batcher.close()


def test_closing_answers_what_was_asked_and_accepts_no_more() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=2, max_wait_s=5.0)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batcher.submit, _items(1, 2))
        assert gate.entered.wait(DEADLINE_S)
        second = pool.submit(batcher.submit, _items(3))
        closing = pool.submit(batcher.close)
        gate.opened.set()
        closing.result(DEADLINE_S)
        assert first.result(DEADLINE_S)[:, 0].tolist() == [2, 4]
        # the second was either asked before the close, and answered, or refused
        error = second.exception(DEADLINE_S)
        assert second.result().item() == 6 if error is None else isinstance(error, RuntimeError)
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(_items(1))


def test_more_askers_than_room_are_all_answered() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=1, max_wait_s=0.0)
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(batcher.submit, _items(value)) for value in range(20)]
        assert gate.entered.wait(DEADLINE_S)
        gate.opened.set()
        assert [answer.result(DEADLINE_S).item() for answer in answers] == [2 * value for value in range(20)]
    batcher.close()
    assert gate.sizes == [1] * 20


def _asked_in_turn(batcher: Batcher, pool: ThreadPoolExecutor, *asked: tuple[int, Urgency]) -> list[Future]:
    """Return the answers to requests that were made one after the other while the network is held."""
    answers = []
    for value, urgency in asked:
        answers.append(pool.submit(batcher.submit, _items(value), BatchClient(urgency)))
        assert _eventually(lambda: batcher.waiting_items == len(answers))
    return answers


def _eventually(true: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + DEADLINE_S
    while not true():
        if time.monotonic() > deadline_s:
            return False
        threading.Event().wait(0.001)
    return True


def test_an_urgent_request_overtakes_those_that_wait() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=1, max_wait_s=0.0)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, _items(1))
        assert gate.entered.wait(DEADLINE_S)
        routine, stat = Urgency.ROUTINE, Urgency.STAT
        rest = _asked_in_turn(batcher, pool, (2, routine), (3, routine), (4, stat), (5, stat))
        gate.opened.set()
        assert [answer.result(DEADLINE_S).item() for answer in (first, *rest)] == [2, 4, 6, 8, 10]
    batcher.close()
    assert gate.seen == [1, 4, 5, 2, 3]


def test_an_urgent_request_does_not_wait_for_room_that_others_took() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=1, max_wait_s=0.0)
    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(batcher.submit, _items(0))
        assert gate.entered.wait(DEADLINE_S)
        crowd = [pool.submit(batcher.submit, _items(value)) for value in range(1, 10)]
        assert _eventually(lambda: batcher.waiting_items == 4)  # the others wait for room
        stat = pool.submit(batcher.submit, _items(200), BatchClient(Urgency.STAT))
        assert _eventually(lambda: batcher.waiting_items == 5)
        gate.opened.set()
        assert stat.result(DEADLINE_S).item() == 400
        assert [answer.result(DEADLINE_S).item() for answer in (first, *crowd)] == list(range(0, 20, 2))
    batcher.close()
    assert gate.seen[1] == 200


def test_urgent_and_routine_requests_share_a_batch_that_has_room() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=4, max_wait_s=5.0)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, _items(0, 0, 0, 0))
        assert gate.entered.wait(DEADLINE_S)
        routine, stat = Urgency.ROUTINE, Urgency.STAT
        rest = _asked_in_turn(batcher, pool, (1, routine), (2, routine), (3, stat), (4, routine))
        gate.opened.set()
        assert [answer.result(DEADLINE_S).item() for answer in rest] == [2, 4, 6, 8]
        assert first.result(DEADLINE_S).shape == (4, 1)
    batcher.close()
    assert gate.sizes == [4, 4]
    assert gate.seen[4:] == [3, 1, 2, 4]


def test_what_was_asked_is_counted_with_the_time_it_took() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch=4, max_wait_s=0.0)
    assert batcher.load == Load(0, 0, 0.0, 0, max_batch=4, parallel_batches=1)
    with ThreadPoolExecutor(8) as pool:
        begun_s = time.monotonic()
        first = pool.submit(batcher.submit, _items(1, 2, 3))
        assert gate.entered.wait(DEADLINE_S)
        answers = _asked_in_turn(batcher, pool, (1, Urgency.ROUTINE), (2, Urgency.STAT))
        assert (batcher.load.batches, batcher.load.waiting_items) == (0, 2)
        gate.opened.set()
        for answer in (first, *answers):
            answer.result(DEADLINE_S)
    batcher.close()
    load, passed_s = batcher.load, time.monotonic() - begun_s
    assert (load.batches, load.items, load.waiting_items) == (2, 5, 0)
    assert 0 < load.busy_s <= passed_s


def test_a_batch_that_failed_kept_the_network_busy_too() -> None:
    def fail(_items: Rgb) -> Probabilities:
        raise RuntimeError("broken")

    batcher = Batcher(fail, max_batch=4, max_wait_s=0.0)
    with pytest.raises(RuntimeError, match="broken"):
        batcher.submit(_items(1, 2))
    batcher.close()
    assert (batcher.load.batches, batcher.load.items) == (1, 2)
