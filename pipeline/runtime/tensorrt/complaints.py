"""Collects what TensorRT complains about: it says why in its log only."""

from __future__ import annotations

from pipeline.runtime.tensorrt.bindings import Logger, Named, TensorRt

_KEPT = 20
_LONGEST = 300


class Complaints:
    """The errors that TensorRT logged, the oldest first."""

    def __init__(self) -> None:
        self._sentences: list[str] = []

    def add(self, severity: Named, text: str) -> None:
        """Keep `text` where it is an error. Threads of TensorRT's own may call."""
        if severity.name in ("ERROR", "INTERNAL_ERROR"):
            self._sentences = [*self._sentences, text.strip()[:_LONGEST]][-_KEPT:]

    @property
    def last(self) -> str:
        """The last error, or that there is none."""
        return self._sentences[-1] if self._sentences else "TensorRT gives no reason"

    @property
    def first(self) -> str:
        """The first error, which is the cause of those after it, or that there is none."""
        return self._sentences[0] if self._sentences else "TensorRT gives no reason"


def logger(trt: TensorRt, complaints: Complaints) -> Logger:
    """Return a logger for `trt` that keeps errors in `complaints` and prints nothing."""

    class Keeping(trt.ILogger):  # type: ignore[misc, name-defined]  # a class of the injected module
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Named, text: str) -> None:
            complaints.add(severity, text)

    keeping: Logger = Keeping()
    return keeping
