"""Watches an analysis: how far it is, seconds by stage, and whether it is to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from time import monotonic, perf_counter

from pipeline.model.ports import Stage

StageSpans = Callable[[Stage], AbstractContextManager[None]]
"""gives the context that a stage runs within"""


@dataclass(frozen=True, slots=True)
class AnalysisProgress:
    """How far an analysis is. A new stage keeps the counts of the one before until it has its own."""

    stage: Stage
    tiles_done: int = 0
    tiles_planned: int = 0
    cells_found: int = 0
    """before those that two tiles saw are counted once"""


class AnalysisMonitor:
    """An `Observer`: measures stages, keeps and reports the progress, and asks `check` whether to go on.

    Each stage runs within what `around` gives for it. `on_progress` is called as each stage begins and
    after each tile. Both are called in the thread that analyses; what they raise ends the analysis.
    """

    def __init__(
        self,
        check: Callable[[], None] = lambda: None,
        around: StageSpans = lambda _stage: nullcontext(),
        on_progress: Callable[[AnalysisProgress], None] = lambda _progress: None,
    ) -> None:
        self._check = check
        self._around = around
        self._on_progress = on_progress
        self._seconds: dict[Stage, float] = {}
        self._progress = AnalysisProgress(next(iter(Stage)))
        self._moved_s = monotonic()

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Measure the stage; raises what `check` and `on_progress` raise before it begins."""
        self._check()
        self._progress = replace(self._progress, stage=stage)
        self._moved_s = monotonic()
        self._on_progress(self._progress)
        start = perf_counter()
        try:
            with self._around(stage):
                yield
        finally:
            self._moved_s = monotonic()
            self._seconds[stage] = self._seconds.get(stage, 0.0) + perf_counter() - start

    def advanced(self, tiles_done: int, tiles_planned: int, cells_found: int) -> None:
        """Note the progress; raises what `check` and `on_progress` raise."""
        self._progress = AnalysisProgress(self._progress.stage, tiles_done, tiles_planned, cells_found)
        self._moved_s = monotonic()
        self._check()
        self._on_progress(self._progress)

    @property
    def progress(self) -> AnalysisProgress:
        return self._progress

    @property
    def without_progress_s(self) -> float:
        """Seconds since a stage began or ended, or the progress changed."""
        return monotonic() - self._moved_s

    @property
    def timings_s(self) -> tuple[tuple[str, float], ...]:
        """Seconds by stage, in the order of the stages."""
        return tuple((stage.value, self._seconds[stage]) for stage in Stage if stage in self._seconds)
