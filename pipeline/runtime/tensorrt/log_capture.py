"""Collects what TensorRT reports as errors: it says why in its log only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pipeline.runtime.tensorrt.bindings import Logger, Named, TensorRt

_KEPT = 20
_LONGEST = 300


class LogCapture:
    """The latest errors that TensorRT logged."""

    def __init__(self) -> None:
        self._sentences: tuple[str, ...] = ()

    def add(self, severity: Named, text: str) -> None:
        """Keep `text` where it is an error. Threads of TensorRT's own may call."""
        if severity.name in ("ERROR", "INTERNAL_ERROR"):
            self._sentences = (*self._sentences, " ".join(text.split())[:_LONGEST])[-_KEPT:]

    def forget(self) -> None:
        """Begin anew, before a call whose errors are wanted."""
        self._sentences = ()

    @property
    def first(self) -> str:
        """The first error, which is the cause of those after it, or that there is none."""
        return self._sentences[0] if self._sentences else "TensorRT gives no reason"


@dataclass(frozen=True, slots=True)
class LogListener:
    """A logger for TensorRT, which prints nothing, and where its errors go."""

    logger: Logger
    captured: LogCapture


@cache
def log_listener_of(trt: TensorRt) -> LogListener:
    """Return the listener of `trt`, one a process: TensorRT keeps the first logger it is given for good."""
    captured = LogCapture()

    class _CapturingLogger(trt.ILogger):  # type: ignore[misc, name-defined]  # a class of the injected module
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Named, text: str) -> None:
            captured.add(severity, text)

    return LogListener(_CapturingLogger(), captured)
