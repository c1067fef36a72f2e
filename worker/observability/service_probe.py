"""Probes a service periodically in a thread, and records when it last responded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

import structlog

from pipeline.model.errors import LeukoflowError

T_co = TypeVar("T_co", covariant=True)


def _ignore(_answer: object) -> None:
    """Do nothing."""


class ServiceProbe(Generic[T_co]):
    """The probe of one service: its last response, and how long ago that was.

    `on_answer` is called with each response, and with None if there was none.
    """

    def __init__(
        self,
        service: str,
        probe: Callable[[], T_co],
        interval_s: float,
        on_answer: Callable[[T_co | None], None] = _ignore,
    ) -> None:
        self.service = service
        self._probe = probe
        self._interval_s = interval_s
        self._on_answer = on_answer
        self._answer: T_co | None = None
        self._answered_s: float | None = None
        self._answers = 0
        self._is_unreachable = False
        self._stop = threading.Event()

    @property
    def answer(self) -> T_co | None:
        """The last response; None if there was none yet."""
        return self._answer

    @property
    def answers(self) -> int:
        """How often it has responded."""
        return self._answers

    @property
    def since_answer_s(self) -> float:
        """Seconds since the last response; infinite if there was none yet."""
        return float("inf") if self._answered_s is None else monotonic() - self._answered_s

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=f"probe-{self.service}", daemon=True).start()

    def stop(self) -> None:
        """Stop probing; returns at once, even while a probe is running."""
        self._stop.set()

    def probe_once(self) -> None:
        """Probe once and record the result."""
        log = structlog.get_logger().bind(service=self.service)
        try:
            answer = self._probe()
        except LeukoflowError as error:
            self._failed(error.code)
            return
        except Exception:
            # An uncaught error would end the thread unnoticed; a missing response is noticed.
            log.exception("probe_failed")
            self._on_answer(None)
            return
        self._answer, self._answered_s = answer, monotonic()
        self._answers += 1
        if self._is_unreachable:
            self._is_unreachable = False
            log.info("service_reachable")
        self._on_answer(answer)

    def _failed(self, code: str) -> None:
        if not (self._is_unreachable or self._stop.is_set()):
            self._is_unreachable = True
            structlog.get_logger().warning("service_unreachable", service=self.service, code=code)
        self._on_answer(None)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.probe_once()
            self._stop.wait(self._interval_s)
