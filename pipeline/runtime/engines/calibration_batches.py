"""Feeds pictures to onnxruntime's int8 calibration. Imports onnx."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.bundle.manifest import INPUT_NAME
from pipeline.model.domain import Rgb
from pipeline.runtime.engines.quantisation_without_telemetry import CalibrationDataReader


class CalibrationBatches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Gives calibration one batch at a time."""

    def __init__(self, batches: Iterable[Rgb]) -> None:
        self._batches: Iterator[Rgb] = iter(batches)
        self._next = next(self._batches, None)

    @property
    def is_empty(self) -> bool:
        return self._next is None

    def get_next(self) -> dict[str, Rgb] | None:
        batch, self._next = self._next, next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}
