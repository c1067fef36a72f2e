"""The watchdog: who leaves work lying is found, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from worker.observability.watchdog import MAX_MISSED_CHECKS, Watchdog
from worker.queue.slots import Slots

AFTER_S, EVERY_S = 60.0, 5.0


@dataclass
class Consumer:
    is_ending: bool = False
    reserved: int = 0


class Worker:
    """A worker of two slots whose clock is ours."""

    def __init__(self, after_s: float = AFTER_S) -> None:
        self.now_s = 1000.0
        self.slots = Slots(2)
        self.consumer = Consumer()
        self.watchdog = Watchdog(self.slots, self.consumer, after_s, EVERY_S, lambda: self.now_s)

    def look(self, messages: int | None, seconds: float = EVERY_S) -> None:
        self.now_s += seconds
        self.watchdog.check(messages)

    def look_for(self, seconds: float, messages: int | None) -> None:
        for _ in range(round(seconds / EVERY_S)):
            self.look(messages)

    @property
    def is_stalled(self) -> bool:
        return self.watchdog.is_stalled


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def busy() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_who_takes_nothing_while_work_waits_is_stalled_after_its_time(worker: Worker) -> None:
    worker.look_for(AFTER_S + EVERY_S, messages=1)
    assert not worker.is_stalled
    assert worker.watchdog.idle_s == AFTER_S
    worker.look(1)
    assert worker.is_stalled


def test_an_empty_queue_is_no_stall(worker: Worker) -> None:
    worker.look_for(10 * AFTER_S, messages=0)
    assert not worker.is_stalled


def test_a_queue_that_another_worker_empties_now_and_then_is_no_stall(worker: Worker) -> None:
    for _ in range(10):
        worker.look_for(AFTER_S - EVERY_S, messages=3)
        worker.look(0)
    assert not worker.is_stalled


def test_who_is_busy_in_every_slot_is_not_stalled(worker: Worker, busy: ExitStack) -> None:
    busy.enter_context(worker.slots.taken())
    busy.enter_context(worker.slots.taken())
    worker.look_for(10 * AFTER_S, messages=50)
    assert not worker.is_stalled


def test_who_is_busy_in_one_slot_of_two_and_leaves_the_other_is_stalled(
    worker: Worker, busy: ExitStack
) -> None:
    busy.enter_context(worker.slots.taken())
    worker.look_for(2 * AFTER_S, messages=1)
    assert worker.is_stalled


def test_work_that_is_short_is_work_too(worker: Worker) -> None:
    for _ in range(20):
        worker.look_for(AFTER_S / 2, messages=9)
        with worker.slots.taken():
            pass
    assert not worker.is_stalled


@pytest.mark.parametrize("away_for", [1, 3])
def test_a_broker_that_does_not_answer_ends_the_count(worker: Worker, away_for: int) -> None:
    for _ in range(5):
        worker.look_for(AFTER_S - EVERY_S, messages=1)
        worker.look_for(away_for * EVERY_S, messages=None)
    assert not worker.is_stalled
    assert worker.watchdog.idle_s == 0


def test_who_was_told_to_rest_is_not_stalled_and_is_judged_again_afterwards(worker: Worker) -> None:
    worker.consumer.is_ending = True
    worker.look_for(10 * AFTER_S, messages=1)
    assert not worker.is_stalled
    worker.consumer.is_ending = False
    worker.look_for(AFTER_S, messages=1)
    assert not worker.is_stalled
    worker.look_for(2 * EVERY_S, messages=1)
    assert worker.is_stalled


def test_a_process_that_stood_still_is_not_blamed_for_the_time(worker: Worker) -> None:
    worker.look(1)
    worker.look(1, seconds=10 * AFTER_S)
    assert not worker.is_stalled
    worker.look(1, seconds=MAX_MISSED_CHECKS * EVERY_S)
    assert worker.watchdog.idle_s == MAX_MISSED_CHECKS * EVERY_S


def test_messages_that_were_taken_and_never_begun_are_work_too(worker: Worker) -> None:
    worker.consumer.reserved = 1
    worker.look_for(2 * AFTER_S, messages=0)
    assert worker.is_stalled


def test_a_message_that_is_worked_on_is_not_one_that_waits(worker: Worker, busy: ExitStack) -> None:
    busy.enter_context(worker.slots.taken())
    worker.consumer.reserved = 1
    worker.look_for(10 * AFTER_S, messages=0)
    assert not worker.is_stalled


def test_who_recovers_is_not_stalled(worker: Worker) -> None:
    worker.look_for(2 * AFTER_S, messages=1)
    assert worker.is_stalled
    with worker.slots.taken():
        worker.look(1)
    assert not worker.is_stalled


def test_nobody_is_stalled_where_nobody_asked() -> None:
    worker = Worker(after_s=0)
    worker.look_for(10 * AFTER_S, messages=1)
    assert not worker.is_stalled
    assert worker.watchdog.idle_s > AFTER_S
