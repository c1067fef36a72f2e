"""What `analyse` prints: JSON or CSV for programs; a table, or lines and pooled tables, for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeAlias

import typer
from rich.console import Console

from pipeline.count.conclusion import differential_flags
from pipeline.count.differential import pooled
from pipeline.model.domain import Cell, Differential, Flag, SlideAnalysis, SlideResult, SlideStatus
from pipeline.model.errors import InputError
from pipeline.model.spec import PipelineSpec
from pipeline.model.wording import counted
from pipeline.output.report import PROBABILITY_DIGITS, JsonObject, slide_document
from worker.cli.result_tables import differential_table, flags_text, print_unwrapped
from worker.cli.scan_files import ScanFile

Answer: TypeAlias = SlideResult | InputError

CSV_HEADINGS = (
    "path", "cell", "x_px0", "y_px0", "class", "status", "probability", "area_um2", "nucleus_area_um2",
)  # fmt: skip
_NOT_IN_LINES = frozenset({Flag.TOO_FEW_CELLS, Flag.SCALE_ESTIMATED, Flag.SCALE_ASSUMED})
"""what a folder's fields have in common, or the counts say"""


class Report(Protocol):
    """Prints answers as they come, in the order of the files."""

    def add(self, file: ScanFile, answer: Answer) -> None:
        """Take one file's answer."""

    def end(self) -> None:
        """Print what can be said only after all of them."""


class JsonReport:
    """One JSON object a file and line."""

    def add(self, file: ScanFile, answer: Answer) -> None:
        """Print the file's object."""
        typer.echo(json.dumps(_document(file.path, answer)))

    def end(self) -> None:
        """Print nothing more."""


class CsvReport:
    """One row a cell, in reading order."""

    def __init__(self) -> None:
        _print_rows([CSV_HEADINGS])

    def add(self, file: ScanFile, answer: Answer) -> None:
        """Print the rows of the file's cells."""
        if isinstance(answer, InputError):
            _complain(file, answer)
        else:
            cells = enumerate(answer.analysis.cells, start=1)
            _print_rows((str(file.path), number, *_cell_fields(cell)) for number, cell in cells)

    def end(self) -> None:
        """Print nothing more."""


class OneFileReport:
    """The differential of one file, and why it is not reportable."""

    def add(self, file: ScanFile, answer: Answer) -> None:
        """Print the file's table."""
        if isinstance(answer, InputError):
            _complain(file, answer)
            return
        analysis = answer.analysis
        console = Console(markup=False, highlight=False)
        title = f"{file.path}: {analysis.status.value}"
        print_unwrapped(console, differential_table(title, analysis.differential))
        for sentence in (*_flags_line(analysis.flags), *analysis.reasons):
            typer.echo(sentence)

    def end(self) -> None:
        """Print nothing more."""


class FolderReport:
    """A line a file; in the end the pooled differential of each patient's folder."""

    def __init__(self, spec: PipelineSpec) -> None:
        self._spec = spec
        self._folders: dict[Path, _Folder] = {}

    def add(self, file: ScanFile, answer: Answer) -> None:
        """Print the file's line."""
        if isinstance(answer, InputError):
            _complain(file, answer)
            return
        self._folders.setdefault(file.patient_folder, _Folder()).add(answer)
        typer.echo(f"{file.path}: {_summary(answer.analysis)}")

    def end(self) -> None:
        """Print a table a folder."""
        console = Console(markup=False, highlight=False)
        for path, folder in self._folders.items():
            differential = pooled(folder.counted.values())
            title = f"{path}: {len(folder.counted)} of {counted(folder.scans, 'scan')} pooled"
            typer.echo()
            print_unwrapped(console, differential_table(title, differential))
            for line in _flags_line(differential_flags(differential, self._spec)):
                typer.echo(line)


class _Folder:
    """What is pooled as one patient's: scans that are not rejected, the same bytes once."""

    def __init__(self) -> None:
        self.scans = 0
        self.counted: dict[str, Differential] = {}

    def add(self, result: SlideResult) -> None:
        self.scans += 1
        if result.analysis.status is not SlideStatus.REJECTED:
            self.counted[result.provenance.run_key.scan_digest] = result.analysis.differential


def _complain(file: ScanFile, error: InputError) -> None:
    typer.echo(f"{file.path}: {error.sentence}", err=True)


def _summary(analysis: SlideAnalysis) -> str:
    if analysis.status is SlideStatus.REJECTED:
        return f"{analysis.status.value}. {' '.join(analysis.reasons)}"
    found = analysis.differential
    unidentified = f", {found.n_unidentified} unidentified" if found.n_unidentified else ""
    flags = flags_text(flag for flag in analysis.flags if flag not in _NOT_IN_LINES)
    said = f"{analysis.status.value}, {counted(found.n_leukocytes, 'leukocyte')}{unidentified}"
    return f"{said}; {flags}" if flags else said


def _flags_line(flags: tuple[Flag, ...]) -> tuple[str, ...]:
    return (f"flags: {flags_text(flags)}",) if flags else ()


def _print_rows(rows: Iterable[Iterable[str | int | float]]) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerows(rows)
    typer.echo(written.getvalue(), nl=False)


def _cell_fields(cell: Cell) -> tuple[str | float, ...]:
    instance, call = cell.instance, cell.call
    return (
        *(round(v, 2) for v in instance.centroid_px0),
        call.cell_class.value,
        call.status.value,
        round(call.probability, PROBABILITY_DIGITS),
        round(instance.area_um2, 3),
        round(instance.nucleus_area_um2, 3),
    )


def _document(path: Path, answer: Answer) -> JsonObject:
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
