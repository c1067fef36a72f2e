from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from worker.processing.shared_exclusive_lock import SharedExclusiveLock

DEADLINE_S = 20


class Holder:
    """A thread that is inside until it is told to go."""

    def __init__(self, lock: SharedExclusiveLock, way: str) -> None:
        self.inside, self._go = threading.Event(), threading.Event()
        self._way = getattr(lock, way)
        self._thread = threading.Thread(target=self._hold)
        self._thread.start()

    def _hold(self) -> None:
        with self._way():
            self.inside.set()
            assert self._go.wait(DEADLINE_S)

    def leave(self) -> None:
        self._go.set()
        self._thread.join(DEADLINE_S)


@contextmanager
def holders(lock: SharedExclusiveLock, *ways: str) -> Iterator[list[Holder]]:
    held = [Holder(lock, way) for way in ways]
    try:
        yield held
    finally:
        for holder in held:
            holder.leave()


def test_scans_are_inside_together():
    with holders(SharedExclusiveLock(), "shared", "shared", "shared") as held:
        assert all(holder.inside.wait(DEADLINE_S) for holder in held)


def test_a_suspect_waits_until_everybody_left_and_who_comes_later_waits_for_it():
    lock = SharedExclusiveLock()
    with holders(lock, "shared") as (first,):
        assert first.inside.wait(DEADLINE_S)
        with holders(lock, "exclusive") as (suspect,):
            assert not suspect.inside.wait(0.05)
            with holders(lock, "shared") as (late,):
                assert not late.inside.wait(0.05)
                first.leave()
                assert suspect.inside.wait(DEADLINE_S)
                assert not late.inside.wait(0.05)
                suspect.leave()
                assert late.inside.wait(DEADLINE_S)


def test_suspects_are_never_together():
    lock, inside, most = SharedExclusiveLock(), [0], [0]

    def visit(number: int) -> None:
        with lock.exclusive() if number % 2 else lock.shared():
            if number % 2:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(400)))
    assert most == [1]


def test_who_raises_leaves():
    lock = SharedExclusiveLock()
    for enter in (lock.exclusive, lock.shared):
        with pytest.raises(ValueError, match="broken"), enter():
            raise ValueError("broken")
    with holders(lock, "exclusive") as (holder,):
        assert holder.inside.wait(DEADLINE_S)
