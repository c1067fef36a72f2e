"""models card, models time, models threshold: the figures that a bundle's manifest and card hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Annotated

import typer

from pipeline.bundle.manifest import FILE_NAME, BundleManifest, Profile, Thresholds, Timing
from pipeline.model.errors import UsageError
from pipeline.model.execution import Execution
from pipeline.model.geometry import Mpp, Size
from pipeline.model.ports import Stage
from pipeline.run import analyse_slide
from pipeline.runtime.concurrency.ordered_threads import OrderedThreadPool
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.synth.smear import draw_smear
from pipeline.synth.smear_spec import SmearSpec
from pipeline.training.evaluate.evaluation_file import read_evaluation
from pipeline.training.evaluate.probability_calibration import ScoredCells, choose_with_disagreement
from pipeline.training.evaluate.set_report import scored_cells
from worker.cli.bundles import asked_analyser, asked_bundle
from worker.cli.output_files import made_folder
from worker.cli.synth import write_slide
from worker.cli.training import require_training_extra

TIMED = SmearSpec(Size(1536, 1536), seed=41, mpp=Mpp(0.25), leukocytes=40)
"""the smear that is timed, at the working scale, so that no pixel is saved by downscaling"""
REPEATS = 3
CPU_S_PER_CELL = "cpu_s_per_cell"
"""outlining and classification, with all members and views"""
CPU_S_PER_MPX = "cpu_s_per_mpx"
"""everything else, for 10⁶ pixels of 0.25 µm"""

BundleFolder = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
Evaluations = Annotated[
    list[Path],
    typer.Option("--evaluation", metavar="FILE", help="A file written by `evaluate --save`; repeatable."),
]


def card(
    bundle: BundleFolder,
    evaluation: Evaluations,
    data: Annotated[Path, typer.Option(help="Folder of the data sets, for crops of the mistakes.")],
    out: Annotated[Path, typer.Option(help="Folder of the card, such as docs/models/<name>.")],
) -> None:
    """Write the model card of a bundle: Markdown with its accuracy, calibration, mistakes and training."""
    require_training_extra()
    from pipeline.training.export.model_card import CardSource, write_card

    manifest = asked_bundle(bundle).manifest
    sizes_bytes = {file.name: file.stat().st_size for file in bundle.iterdir()}
    evaluations = tuple(read_evaluation(file) for file in evaluation)
    typer.echo(str(write_card(CardSource(manifest, sizes_bytes, evaluations, data), made_folder(out))))


def threshold(
    bundle: BundleFolder,
    evaluation: Evaluations,
    risk: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest share of wrong calls among those accepted.")
    ],
    write: Annotated[bool, typer.Option("--write", help="Write the thresholds into the manifest.")] = False,
) -> None:
    """Choose the thresholds with the largest coverage whose error stays below the risk.

    The upper 95 % bound of the error, by bootstrap over groups, has to stay below it.
    """
    manifest = asked_bundle(bundle).manifest
    choice = choose_with_disagreement(_cells(evaluation), risk)
    if choice is None:
        raise UsageError(f"No threshold keeps a risk of {risk} on these cells.", code="no_threshold")
    typer.echo(
        f"probability ≥ {choice.threshold:.3f}, disagreement ≤ {choice.max_disagreement:.2f}: "
        f"coverage {choice.coverage:.3f}, risk {choice.risk:.4f} (95 % upper bound {choice.risk_upper:.4f})"
    )
    if write:
        thresholds = Thresholds(
            choice.threshold, manifest.spec.leaf_probability, choice.max_disagreement, risk
        )
        _write(bundle, replace(manifest, thresholds=thresholds))


def _cells(files: list[Path]) -> ScoredCells:
    scores = [score for file in files for score in read_evaluation(file).pictures]
    occurrences = Counter(score.picture for score in scores)
    repeated = next((picture for picture, count in occurrences.items() if count > 1), None)
    if repeated is not None:  # counting cells twice would make the interval too narrow
        raise UsageError(f"{repeated} is in more than one evaluation.", code="repeated_picture")
    return scored_cells(scores)


def time(bundle: BundleFolder) -> None:
    """Measure the CPU time of each profile on this machine, and write it into the manifest."""
    manifest = asked_bundle(bundle).manifest
    timings: list[Timing] = []
    with TemporaryDirectory() as folder:
        slide = Path(folder) / "timed.tif"
        write_slide(slide, draw_smear(TIMED))
        for entry in manifest.segmenter.profiles:
            timings += _timed(bundle, entry.profile, slide)
    for timing in timings:
        typer.echo(f"{timing.profile:10} {timing.measure:16} {timing.value:.4f}")
    _write(bundle, replace(manifest, timings=tuple(timings)))


def _timed(bundle: Path, profile: Profile, slide: Path) -> list[Timing]:
    with asked_analyser(bundle, profile) as analyser:
        _costs(analyser, slide)  # a warm-up run, which allocates the memory
        costs = [_costs(analyser, slide) for _ in range(REPEATS)]
    per_cell, per_mpx = (round(median(part), 5) for part in zip(*costs, strict=True))
    return [Timing(profile, CPU_S_PER_CELL, per_cell), Timing(profile, CPU_S_PER_MPX, per_mpx)]


def _costs(analyser: SlideAnalyser, slide: Path) -> tuple[float, float]:
    """Return the CPU seconds for each cell and each megapixel of one analysis."""
    observer = CpuTimes()
    with analyser.open(slide) as reader, OrderedThreadPool(analyser.read_ahead) as pool:
        analysis = analyse_slide(reader, analyser.models, analyser.spec, Execution(observer, pool))
    if not analysis.cells:
        raise UsageError(
            "The bundle finds no cell on the drawn smear; there is nothing to time.", code="no_cells"
        )
    by_cell_s = sum(observer.cpu_s.get(stage, 0.0) for stage in (Stage.OUTLINE, Stage.CLASSIFY))
    rest_s = sum(observer.cpu_s.values()) - by_cell_s
    return by_cell_s / len(analysis.cells), rest_s / (TIMED.size_px0.area / 1e6)


class CpuTimes:
    """An `Observer` of the CPU seconds of this process by stage, all its threads together."""

    def __init__(self) -> None:
        self.cpu_s: dict[Stage, float] = {}

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Measure the stage."""
        start_s = process_time()
        try:
            yield
        finally:
            self.cpu_s[stage] = self.cpu_s.get(stage, 0.0) + process_time() - start_s

    def advanced(self, tiles_done: int, tiles_planned: int, cells_found: int) -> None:
        """Progress is not measured."""


def _write(bundle: Path, manifest: BundleManifest) -> None:
    try:
        (bundle / FILE_NAME).write_text(manifest.render(), encoding="utf-8")
    except OSError as error:
        raise UsageError("The bundle's manifest cannot be written.", code="file_unusable") from error
