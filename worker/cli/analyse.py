"""analyse: the pipeline on local files. No services, no ledger."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from pipeline.model.domain import SlideResult
from pipeline.model.errors import InputError, UsageError
from pipeline.output.pictures import overview_picture, png
from pipeline.output.report import JsonObject, geojson_gz, slide_document
from pipeline.runtime.analysis_monitor import AnalysisMonitor
from pipeline.runtime.readers.digests import digest_of
from pipeline.runtime.slide_analyser import SlideAnalyser
from worker.cli.bundles import EngineOption, ProfileOption, asked_analyser
from worker.cli.result_tables import differential_table
from worker.cli.submit import made_folder, scan_files

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
    geojson: Annotated[Path | None, typer.Option(help="Folder for gzipped GeoJSON, for QuPath.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="Folder for pictures with the cells outlined.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of another model bundle.")] = None,
    profile: ProfileOption = None,
    engine: EngineOption = None,
    jobs: Annotated[int, typer.Option(min=1, help="Scans in flight at once.")] = 2,
) -> None:
    """Analyse local files and print their differentials; exit code 2 where a file could not be read."""
    files = list(scan_files(paths))
    output = Output(geojson, overlay)
    for folder in (geojson, overlay):
        if folder is not None:
            made_folder(folder)
    if (geojson or overlay) and len({path.name for path in files}) < len(files):
        raise UsageError(
            "two of the scans have the same file name, and would write the same picture; analyse them apart",
            code="same_name",
        )
    unreadable = 0
    with asked_analyser(bundle, profile, engine) as analyser:
        answers = in_order(lambda path: _answer(analyser, path, output), files, jobs)
        for path, answer in zip(files, answers, strict=True):
            unreadable += isinstance(answer, InputError)
            _print(path, answer, as_json=as_json)
    if unreadable:
        typer.echo(f"leukoflow: {unreadable} of {len(files)} files could not be read", err=True)
        raise typer.Exit(EXIT_SOME_UNREADABLE)


def in_order(work: Callable[[S], T], items: Iterable[S], jobs: int) -> Iterator[T]:
    """Yield the results in the order of the items, at most `jobs` under way and as many waiting."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _answer(analyser: SlideAnalyser, path: Path, output: Output) -> SlideResult | InputError:
    try:
        with analyser.open(path) as reader:
            result = analyser.analyse(reader, digest_of(path), AnalysisMonitor())
            if output.overlay is not None:
                picture = overview_picture(reader, result.analysis.cells)
                _target(output.overlay, path, ".png").write_bytes(png(picture))
    except InputError as error:
        return error
    if output.geojson is not None:
        _target(output.geojson, path, ".geojson.gz").write_bytes(geojson_gz(result.analysis.cells))
    return result


def _target(folder: Path, path: Path, ending: str) -> Path:
    return folder / (path.name + ending)


def _print(path: Path, answer: SlideResult | InputError, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_document(path, answer)))
    elif isinstance(answer, InputError):
        typer.echo(f"{path}: {answer.sentence}", err=True)
    else:
        analysis = answer.analysis
        console = Console(markup=False)
        console.print(differential_table(f"{path}: {analysis.status.value}", analysis.differential))
        for sentence in analysis.reasons:
            console.print(f"  {sentence}", highlight=False)


def _document(path: Path, answer: SlideResult | InputError) -> JsonObject:
    """Return the scan's object; for a file that could not be read, one that says why, without cells."""
    if isinstance(answer, SlideResult):
        return slide_document(str(path), answer)
    return {
        "path": str(path),
        "status": "rejected",
        "reasons": [answer.sentence],
        "error": answer.code,
        "size_px": None,
        "mpp": None,
        "mpp_assumed": None,
        "scale_source": None,
        "cells": [],
        "differential": None,
        "flags": [],
        "provenance": None,
    }
