"""Collects the errors in TensorRT's log, the only place where it states a reason."""

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
        """Keep `text` if it is an error. TensorRT calls this from its own threads."""
        if severity.name in ("ERROR", "INTERNAL_ERROR"):
            self._sentences = (*self._sentences, " ".join(text.split())[:_LONGEST])[-_KEPT:]

    def forget(self) -> None:
        """Clear the errors, before a call whose errors are of interest."""
        self._sentences = ()

    @property
    def first(self) -> str:
        """The first error, which caused the others, or a sentence saying that there is none."""
        return self._sentences[0] if self._sentences else "TensorRT gave no reason"


@dataclass(frozen=True, slots=True)
class LogListener:
    """A logger for TensorRT that prints nothing, and the errors it captured."""

    logger: Logger
    captured: LogCapture


@cache
def log_listener_of(trt: TensorRt) -> LogListener:
    """Return the one listener of this process: TensorRT keeps the first logger that it is given."""
    captured = LogCapture()

    class _CapturingLogger(trt.ILogger):  # type: ignore[misc, name-defined]  # a class of the injected module
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Named, text: str) -> None:
            captured.add(severity, text)

    return LogListener(_CapturingLogger(), captured)
