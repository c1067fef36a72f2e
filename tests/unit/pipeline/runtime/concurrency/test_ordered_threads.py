"""Several things at once: same answers, same order, bounded, and nothing at work once it is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.ports import OrderedPool
from pipeline.runtime.concurrency.ordered_threads import OrderedThreadPool
from tests.support.serial_pool import SerialPool

DEADLINE_S = 20
SCAN: ContextVar[str] = ContextVar("scan", default="none")
WAYS = [
    pytest.param(SerialPool, id="alone"),
    pytest.param(lambda: OrderedThreadPool(1), id="1"),
    pytest.param(lambda: OrderedThreadPool(4), id="4"),
]


@pytest.fixture(params=WAYS)
def pool(request: pytest.FixtureRequest) -> Iterator[OrderedPool]:
    with request.param() as pool:
        yield pool


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("pool")]


def _collect(items: Iterator[int]) -> tuple[list[int], BaseException | None]:
    seen: list[int] = []
    try:
        for item in items:
            seen.append(item)  # noqa: PERF402 - what was seen counts when the iterator raises
    except ValueError as error:
        return seen, error
    return seen, None


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25, deadline=None)
@given(items=st.lists(st.integers(), max_size=30))
def test_an_answer_to_each_item_in_their_order(way: Callable[[], OrderedPool], items: list[int]) -> None:
    with way() as pool:  # type: ignore[attr-defined]
        assert list(pool.map(lambda item: item + 1, items)) == [item + 1 for item in items]
    assert _threads() == []


def test_one_map_feeds_another(pool: OrderedPool) -> None:
    assert list(pool.map(abs, pool.map(lambda item: -item, range(100)))) == list(range(100))


def test_an_error_of_an_item_comes_after_the_answers_before_it(pool: OrderedPool) -> None:
    def halved(item: int) -> int:
        if item == 3:
            raise ValueError("damaged here")
        return item

    seen, error = _collect(pool.map(halved, range(10)))
    assert seen == [0, 1, 2]
    assert "damaged here" in str(error)


def test_an_error_of_the_source_comes_after_the_answers_before_it(pool: OrderedPool) -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("damaged here")

    seen, error = _collect(pool.map(lambda item: item, source()))
    assert seen == [1, 2]
    assert "damaged here" in str(error)


def test_what_is_begun_is_answered_when_it_is_asked_for(pool: OrderedPool) -> None:
    answer = pool.begin(lambda: 42)
    assert answer() == 42
    assert answer() == 42


def test_what_is_begun_raises_where_it_is_asked_for(pool: OrderedPool) -> None:
    def fail() -> int:
        raise ValueError("damaged here")

    answer = pool.begin(fail)
    with pytest.raises(ValueError, match="damaged here"):
        answer()


def test_no_more_than_ahead_are_taken() -> None:
    taken = [0]

    def source() -> Iterator[int]:
        for item in range(100):
            taken[0] += 1
            yield item

    with OrderedThreadPool(3) as pool:
        answers = pool.map(lambda item: item, source())
        assert next(answers) == 0
        assert taken[0] == 4  # one answered, three ahead of it
        assert next(answers) == 1
        assert taken[0] == 5


def test_items_are_at_work_at_once() -> None:
    meeting = threading.Barrier(3)

    def meet(item: int) -> int:
        meeting.wait(DEADLINE_S)
        return item

    with OrderedThreadPool(3) as pool:
        assert list(pool.map(meet, range(6))) == list(range(6))


def test_a_map_that_is_left_begins_nothing_more() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        assert item == 0 or gate.wait(DEADLINE_S)
        return item

    with OrderedThreadPool(2) as pool:
        answers = pool.map(work, range(10**9))
        next(answers)
        answers.close()
        gate.set()
    assert set(begun) <= {0, 1, 2}


def test_nobody_is_at_work_once_it_is_closed() -> None:
    working, gate, done = threading.Event(), threading.Event(), threading.Event()

    def work(_item: int) -> int:
        working.set()
        assert gate.wait(DEADLINE_S)
        done.set()
        return 0

    def interrupted() -> None:
        with OrderedThreadPool(2) as pool:
            answers = pool.map(work, range(1))
            threading.Thread(target=lambda: (working.wait(DEADLINE_S), gate.set())).start()
            pool.begin(lambda: next(answers))
            assert working.wait(DEADLINE_S)
            raise RuntimeError("the lease was lost")

    with pytest.raises(RuntimeError, match="lease"):
        interrupted()
    assert done.is_set()
    assert _threads() == []


def test_what_is_done_for_somebody_is_done_in_their_context(pool: OrderedPool) -> None:
    before = SCAN.set("this one")
    try:
        assert list(pool.map(lambda _number: SCAN.get(), range(5))) == ["this one"] * 5
        assert pool.begin(SCAN.get)() == "this one"
    finally:
        SCAN.reset(before)
    assert list(pool.map(lambda _number: SCAN.get(), range(2))) == ["none"] * 2
