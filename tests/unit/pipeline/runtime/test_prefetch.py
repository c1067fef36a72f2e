"""Reading ahead: same items, same order, bounded, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ports import Prefetch
from pipeline.runtime.prefetch import inline, prefetch

DEADLINE_S = 20
WAYS = [
    pytest.param(inline, id="inline"),
    pytest.param(prefetch(1), id="1"),
    pytest.param(prefetch(4), id="4"),
]


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("ahead", WAYS)
@settings(max_examples=25, deadline=None)
@given(items=st.lists(st.integers(), max_size=30))
def test_the_same_items_in_the_same_order(ahead: Prefetch, items: list[int]) -> None:
    assert list(ahead(items)) == items
    assert _threads() == []


@pytest.mark.parametrize("ahead", WAYS)
def test_an_error_comes_after_what_was_before_it(ahead: Prefetch) -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("damaged here")

    seen: list[int] = []
    with pytest.raises(ValueError, match="damaged here"):
        seen.extend(_collect(ahead(source()), seen))
    assert seen == [1, 2]
    assert _threads() == []


def _collect(items: Iterator[int], seen: list[int]) -> list[int]:
    for item in items:
        seen.append(item)  # noqa: PERF402 - what was seen counts when the iterator raises
    return []


def test_no_more_than_depth_are_ready() -> None:
    made = threading.Semaphore(0)
    count = [0]

    def source() -> Iterator[int]:
        for item in range(100):
            count[0] += 1
            made.release()
            yield item

    items = prefetch(3)(source())
    assert next(items) == 0
    for _ in range(5):  # one taken, three ready, one in hand
        assert made.acquire(timeout=DEADLINE_S)
    assert not made.acquire(timeout=0.1)
    assert count[0] == 5
    items.close()
    assert _threads() == []


def test_a_reader_that_stops_early_stops_the_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    for item in prefetch(2)(source()):
        if item == 5:
            break
    assert closed.wait(DEADLINE_S)
    assert _threads() == []


def test_reading_goes_on_while_the_reader_works() -> None:
    third = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        yield 2
        third.set()
        yield 3

    items = prefetch(2)(source())
    assert next(items) == 1
    assert third.wait(DEADLINE_S)
    assert list(items) == [2, 3]
