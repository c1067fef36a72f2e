"""The Python API: from a picture to its cells and its differential.

It asks no service and reads no LEUKOFLOW_ variable. Importing it loads no engine; `Analyser.open` does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Self, TypeVar

from pipeline.bundle.manifest import Profile
from pipeline.model.domain import Cell, Differential, Rgb, SlideResult, SlideStatus
from pipeline.model.errors import UsageError
from pipeline.output.pictures import overview_picture
from pipeline.output.report import JsonObject, slide_document
from pipeline.output.rows import CellRow, DifferentialRow, cell_rows, differential_rows
from pipeline.runtime.analysis_monitor import AnalysisMonitor, AnalysisProgress
from pipeline.runtime.concurrency.closing import Closing
from pipeline.runtime.concurrency.machine import ParallelismOverrides
from pipeline.runtime.engines.engine_port import EngineName
from pipeline.runtime.readers.scan_source import ScanLike, ScanSource, scan_source
from pipeline.runtime.slide_analyser import AnalyserOptions, SlideAnalyser, open_slide_analyser

__all__ = ["Analyser", "AnalysisProgress", "Result"]
_Choice = TypeVar("_Choice", Profile, EngineName)


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """What was found on one scan. Coordinates are pixels of level 0, the picture as it is stored."""

    slide: SlideResult
    """everything: `analysis` with its reasons, flags and quality, and `provenance`"""
    source: ScanSource

    def __repr__(self) -> str:
        counts = self.differential
        return (
            f"<Result {self.source.name}: {self.status}, n={counts.n_leukocytes} of {counts.n_found} cells>"
        )

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell that was found, top to bottom, then left to right."""
        return self.slide.analysis.cells

    @property
    def differential(self) -> Differential:
        """Counts and percentages by class, with 95 % intervals."""
        return self.slide.analysis.differential

    @property
    def status(self) -> SlideStatus:
        """Whether the differential may be read."""
        return self.slide.analysis.status

    def rows(self) -> tuple[DifferentialRow, ...]:
        """Return the differential as plain records, one a class: `pandas.DataFrame(result.rows())`."""
        return differential_rows(self.differential)

    def cell_rows(self) -> tuple[CellRow, ...]:
        """Return the cells as plain records, in the order of `cells`."""
        return cell_rows(self.cells)

    def document(self) -> JsonObject:
        """Return what `leukoflow analyse --json` prints for the scan, ready for `json.dumps`."""
        return slide_document(self.source.name, self.slide)

    def overview(self) -> Rgb:
        """Return the scan with each cell outlined and named: uint8 (H, W, 3) RGB, at most 2,048 px a side.

        The scan is read again for it. Raises: InputError, where the file is gone or damaged.
        """
        with self.source.opened() as reader:
            return overview_picture(reader, self.cells)


class Analyser(Closing):
    """A model bundle, loaded. Threads may share it; `close` it, or use it in a `with` statement."""

    def __init__(self, slides: SlideAnalyser, held: ExitStack) -> None:
        self._slides: SlideAnalyser | None = slides
        self._held = held

    @classmethod
    def open(
        cls,
        *,
        bundle: str | PathLike[str] | None = None,
        profile: Profile | str = Profile.FAST,
        engine: EngineName | str = EngineName.AUTO,
        threads: int | None = None,
    ) -> Self:
        """Return an analyser of the model bundle in a folder, or of the shipped one.

        `profile` is `fast` or `accurate`; `engine` is `auto`, `openvino`, `onnxruntime` or `tensorrt`. The
        networks compute with `threads`; None: one for each core.

        Raises: UsageError, where an option is unknown; DeploymentError, where the bundle or engine is unfit.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}: give 1 or more, or leave it out.", code="bad_threads")
        options = AnalyserOptions(
            bundle=None if bundle is None else Path(bundle),
            profile=_chosen(Profile, profile),
            engine=_chosen(EngineName, engine),
            parallelism=ParallelismOverrides(threads=threads),
        )
        held = ExitStack()
        return cls(held.enter_context(open_slide_analyser(options)), held)

    def analyse(
        self,
        scan: ScanLike,
        *,
        mpp_um: float | None = None,
        progress: Callable[[AnalysisProgress], None] | None = None,
    ) -> Result:
        """Return what was found on a file, or on an array: uint8 (H, W, 3) RGB, not copied.

        `mpp_um` is the scale of an array in µm per pixel; without it the scale is estimated from the cells.
        OpenCV reads BGR, which cannot be told from RGB: turn it with `array[..., ::-1]`. `progress` is called
        in this thread, as each stage begins and after each tile; what it raises ends the analysis.

        Raises: UsageError, where there is no such file, the array is of another kind, or the analyser is
        closed; InputError, where the file is no scan, or is damaged.
        """
        if self._slides is None:
            raise UsageError("This analyser is closed: open another.", code="closed")
        source = scan_source(scan, mpp_um, self._slides.limits)
        monitor = AnalysisMonitor() if progress is None else AnalysisMonitor(on_progress=progress)
        with source.opened() as reader:
            return Result(self._slides.analyse(reader, source.digest(), monitor), source)

    def close(self) -> None:
        """Give the networks back; a second time is fine. Do not close it while a scan is analysed."""
        self._slides = None
        self._held.close()


def _chosen(choices: type[_Choice], name: str) -> _Choice:
    try:
        return choices(name)
    except ValueError as error:
        raise UsageError(f"'{name}' is none of {', '.join(choices)}.", code="bad_choice") from error
