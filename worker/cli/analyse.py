"""analyse: the pipeline on local files. No services, no ledger."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from pipeline.model.errors import InputError, UsageError
from pipeline.model.wording import counted
from pipeline.output.pictures import overview_picture, png
from pipeline.output.report import geojson_gz
from pipeline.runtime.analysis_monitor import AnalysisMonitor
from pipeline.runtime.readers.digests import digest_of
from pipeline.runtime.slide_analyser import SlideAnalyser
from worker.cli.analysis_progress import progress_bar
from worker.cli.analysis_reports import Answer, CsvReport, FolderReport, JsonReport, OneFileReport, Report
from worker.cli.bundles import EngineOption, ProfileOption, asked_analyser
from worker.cli.output_files import made_folder, write_whole
from worker.cli.scan_files import ScanFile, asked_files

S = TypeVar("S")
T = TypeVar("T")

EXIT_SOME_UNREADABLE = 2


@dataclass(frozen=True, slots=True)
class Output:
    """What is wanted beside the printed result."""

    geojson: Path | None
    overlay: Path | None


def analyse(
    paths: Annotated[list[Path], typer.Argument(help="Scans, or folders of scans.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a scan and line.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="CSV, one row a cell; its columns are above.")
    ] = False,
    geojson: Annotated[Path | None, typer.Option(help="Folder for gzipped GeoJSON, for QuPath.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="Folder for pictures with the cells outlined.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of another model bundle.")] = None,
    profile: ProfileOption = None,
    engine: EngineOption = None,
    jobs: Annotated[int, typer.Option(min=1, help="Scans in flight at once.")] = 2,
) -> None:
    """Analyse local files and print their differentials; exit code 2 where a file could not be read.

    For one file its differential is printed. For several, each gets a line,
    and in the end each folder gets a pooled differential: a folder within the
    given folder is taken for one patient.

    Files in a folder that are no pictures are skipped. --overlay and --geojson
    keep the folders of the scans.

    The columns of --csv: path; cell, counted from 1 in each scan; x_px0 and
    y_px0, the centre of the cell in pixels of the full resolution; class;
    status (accepted, unidentified, artefact); probability of the class;
    area_um2 and nucleus_area_um2.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other", code="usage")
    files = asked_files(paths)
    output = Output(geojson, overlay)
    for folder in (geojson, overlay):
        if folder is not None:
            made_folder(folder)
    unreadable = 0
    is_data_shown = (as_json or as_csv) and sys.stdout.isatty()  # a bar would tear its lines
    bar = progress_bar(1 if is_data_shown else len(files))
    with asked_analyser(bundle, profile, engine) as analyser, bar as advance:
        report = _report(analyser, len(files), as_json=as_json, as_csv=as_csv)
        answers = in_order(lambda file: _answer(analyser, file, output), files, jobs)
        for file, answer in zip(files, answers, strict=True):
            unreadable += isinstance(answer, InputError)
            report.add(file, answer)
            advance()
    report.end()
    if unreadable:
        typer.echo(f"leukoflow: {unreadable} of {counted(len(files), 'file')} could not be read", err=True)
        raise typer.Exit(EXIT_SOME_UNREADABLE)


def _report(analyser: SlideAnalyser, files: int, *, as_json: bool, as_csv: bool) -> Report:
    if as_json:
        return JsonReport()
    if as_csv:
        return CsvReport()
    return OneFileReport() if files == 1 else FolderReport(analyser.spec)


def in_order(work: Callable[[S], T], items: Iterable[S], jobs: int) -> Iterator[T]:
    """Yield the results in the order of the items, at most `jobs` under way and as many waiting.

    Raises: what `work` raises; what is waiting then is not begun.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(jobs)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _answer(analyser: SlideAnalyser, file: ScanFile, output: Output) -> Answer:
    try:
        digest = digest_of(file.path)
    except OSError as error:
        return InputError(f"The file cannot be read: {error.strerror}.", code="file_unreadable")
    try:
        with analyser.open(file.path) as reader:
            result = analyser.analyse(reader, digest, AnalysisMonitor())
            if output.overlay is not None:
                picture = overview_picture(reader, result.analysis.cells)
                write_whole(_target(output.overlay, file, ".png"), png(picture))
    except InputError as error:
        return error
    if output.geojson is not None:
        write_whole(_target(output.geojson, file, ".geojson.gz"), geojson_gz(result.analysis.cells))
    return result


def _target(folder: Path, file: ScanFile, ending: str) -> Path:
    return folder / file.place.with_name(file.place.name + ending)
