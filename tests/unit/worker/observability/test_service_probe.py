"""A probe: what a service said last, how long it has been silent, and who hears of it."""

from __future__ import annotations

import threading

from pipeline.model.errors import TransientError
from worker.observability.service_probe import ServiceProbe

DEADLINE_S = 20


class Service:
    """Answers with numbers, until it is told to fail."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = 0

    def ask(self) -> int:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.asked


def test_it_knows_the_last_answer_and_its_age() -> None:
    probe = ServiceProbe("store", Service().ask, interval_s=1)
    assert (probe.answer, probe.since_answer_s) == (None, float("inf"))
    probe.probe_once()
    probe.probe_once()
    assert probe.answer == 2
    assert 0 <= probe.since_answer_s < DEADLINE_S


def test_a_service_that_fails_leaves_the_old_answer_and_its_age_grows() -> None:
    service, heard = Service(), []
    probe = ServiceProbe("store", service.ask, interval_s=1, on_answer=heard.append)
    probe.probe_once()
    before_s = probe.since_answer_s
    service.error = TransientError("away", code="store_unreachable")
    probe.probe_once()
    assert probe.answer == 1
    assert probe.since_answer_s > before_s
    service.error = None
    probe.probe_once()
    assert heard == [1, None, 3]
    assert probe.answer == 3


def test_an_error_of_another_kind_is_no_answer_and_no_end() -> None:
    service, heard = Service(), []
    service.error = KeyError("unforeseen")
    probe = ServiceProbe("store", service.ask, interval_s=1, on_answer=heard.append)
    probe.probe_once()
    assert heard == [None]
    assert probe.since_answer_s == float("inf")


def test_started_it_asks_again_and_again_until_it_is_stopped() -> None:
    asked = threading.Semaphore(0)

    def ask() -> None:
        asked.release()

    probe = ServiceProbe("store", ask, interval_s=0.001)
    probe.start()
    assert all(asked.acquire(timeout=DEADLINE_S) for _ in range(5))
    probe.stop()
    assert _ends("probe-store")


def _ends(name: str) -> bool:
    for thread in [thread for thread in threading.enumerate() if thread.name == name]:
        thread.join(DEADLINE_S)
    return name not in {thread.name for thread in threading.enumerate()}
