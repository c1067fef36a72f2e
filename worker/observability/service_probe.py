"""Asking a service again and again, in a thread of its own, and knowing when it last answered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

import structlog

from pipeline.model.errors import LeukoflowError

T_co = TypeVar("T_co", covariant=True)


def _unheard(_answer: object) -> None:
    """Nobody listens."""


class ServiceProbe(Generic[T_co]):
    """The probe of one service: what it last answered, and how long ago.

    `told` hears each answer, and None where there was none.
    """

    def __init__(
        self,
        service: str,
        ask: Callable[[], T_co],
        every_s: float,
        told: Callable[[T_co | None], None] = _unheard,
    ) -> None:
        self.service = service
        self._ask = ask
        self._every_s = every_s
        self._told = told
        self._answer: T_co | None = None
        self._answered_s: float | None = None
        self._answers = 0
        self._is_away = False
        self._stop = threading.Event()

    @property
    def answer(self) -> T_co | None:
        """What it answered last, None where it never did."""
        return self._answer

    @property
    def answers(self) -> int:
        """How often it answered so far."""
        return self._answers

    @property
    def silent_s(self) -> float:
        """Seconds since it last answered; infinite where it never did."""
        return float("inf") if self._answered_s is None else monotonic() - self._answered_s

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._run, name=f"probe-{self.service}", daemon=True).start()

    def stop(self) -> None:
        """Ask no more; returns at once, also while an answer is awaited."""
        self._stop.set()

    def ask_once(self) -> None:
        """Ask once, and remember what came of it."""
        log = structlog.get_logger().bind(service=self.service)
        try:
            answer = self._ask()
        except LeukoflowError as error:
            self._missed(error.code)
            return
        except Exception:
            # Nobody would notice the end of this thread: silence is noticed.
            log.exception("probe_failed")
            self._told(None)
            return
        self._answer, self._answered_s = answer, monotonic()
        self._answers += 1
        if self._is_away:
            self._is_away = False
            log.info("service_back")
        self._told(answer)

    def _missed(self, code: str) -> None:
        if not (self._is_away or self._stop.is_set()):
            self._is_away = True
            structlog.get_logger().warning("service_away", service=self.service, code=code)
        self._told(None)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.ask_once()
            self._stop.wait(self._every_s)
