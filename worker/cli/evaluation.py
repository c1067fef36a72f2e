"""evaluate: a bundle's figures on the val splits, through the whole pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from pipeline.domain import SlideAnalysis
from pipeline.manifest import Profile
from pipeline.training.end_to_end import EndToEndReport, SetReport, evaluate_end_to_end
from pipeline.training.metrics import Confusion
from pipeline.training.sources import SOURCES
from pipeline.training.tables import LabelRow, Split, read_table
from worker.analyst import Analyst, digest_of
from worker.cli.bundles import asked_analyst
from worker.stopwatch import Stopwatch

COLUMNS = (
    ("n", "labelled_cells"), ("accuracy", "accuracy"), ("macro-F1", "macro_f1"), ("coverage", "coverage"),
    ("acc. of accepted", "accepted_accuracy"), ("recall", "detection_recall"),
    ("precision", "detection_precision"), ("cell Dice", "cell_dice"), ("cell IoU", "cell_iou"),
    ("nucleus Dice", "nucleus_dice"), ("nucleus IoU", "nucleus_iou"),
)  # fmt: skip


def evaluate_and_print(
    data: Path, bundle: Path | None, profile: Profile | None, *, as_json: bool, limit: int | None
) -> None:
    """Print the report of a bundle: a table and confusions for people, one JSON document for programs."""
    console = Console(stderr=as_json, markup=False)
    with asked_analyst(bundle, profile) as analyst:
        rows = _rows(analyst, data, limit)
        report = evaluate_end_to_end(
            rows, lambda path: _analysis(analyst, path), lambda name: console.print(f"measuring {name} ...")
        )
    if as_json:
        typer.echo(report.to_json())
    else:
        _print(console, report)


def _rows(analyst: Analyst, data: Path, limit: int | None) -> list[LabelRow]:
    rows: list[LabelRow] = []
    for entry in analyst.bundle.manifest.data_sets:
        val = [row for row in read_table(data, SOURCES[entry.folder]) if row.split is Split.VAL]
        rows.extend(val[:limit])
    return rows


def _analysis(analyst: Analyst, path: Path) -> SlideAnalysis:
    with analyst.open(path) as reader:
        return analyst.analyse(reader, digest_of(path), Stopwatch()).analysis


def _print(console: Console, report: EndToEndReport) -> None:
    table = Table(title="val splits, through the whole pipeline", title_justify="left")
    table.add_column("set")
    for heading, _ in COLUMNS:
        table.add_column(heading, justify="right")
    for entry in report.sets:
        table.add_row(entry.data_set, *(_cell(getattr(entry, field)) for _, field in COLUMNS))
    console.print(table)
    for entry in report.sets:
        console.print(_confusion_table(entry))


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _confusion_table(entry: SetReport) -> Table:
    confusion = entry.confusion
    table = Table(title=f"{entry.data_set}: truth down, answer across", title_justify="left")
    used = _used(confusion)
    table.add_column("")
    for index in used:
        table.add_column(confusion.names[index].replace("_", " "), justify="right", overflow="fold")
    for row in used:
        counts = [confusion.counts[row][column] for column in used]
        if sum(counts):
            table.add_row(confusion.names[row], *(str(count) if count else "·" for count in counts))
    return table


def _used(confusion: Confusion) -> Sequence[int]:
    across = [sum(column) for column in zip(*confusion.counts, strict=True)]
    return [index for index in range(len(confusion.names)) if across[index] or sum(confusion.counts[index])]
