"""The tables that `evaluate` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipeline.training.data.cell_metrics import Confusion
from pipeline.training.data.intervals import Estimate
from pipeline.training.evaluate.evaluation_file import Evaluation
from pipeline.training.evaluate.set_report import SetReport

NONE = "–"
Columns = tuple[tuple[str, str], ...]
COUNTS: Columns = (("pictures", "pictures"), ("groups", "groups"), ("n", "labelled_cells"))
TABLES: tuple[tuple[str, Columns], ...] = (
    ("classes", (
        ("accuracy", "accuracy"), ("without platelets", "nucleated_accuracy"), ("macro-F1", "macro_f1"),
    )),
    ("abstention and calibration", (
        ("coverage", "coverage"), ("accuracy at that coverage", "accuracy_at_coverage"),
        ("coverage at 1 % risk", "coverage_at_1_percent_risk"), ("ECE", "calibration_error"),
    )),
    ("detection and outlines", (
        ("recall", "detection_recall"), ("precision", "detection_precision"), ("cell Dice", "cell_dice"),
        ("cell IoU", "cell_iou"), ("nucleus Dice", "nucleus_dice"), ("nucleus IoU", "nucleus_iou"),
    )),
)  # fmt: skip


def print_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Print the figures with their intervals, one row for each set; then the confusion matrices."""
    reports, subject = evaluation.sets(), evaluation.subject
    console.print(f"{subject.bundle}, profile {subject.profile}, {subject.split}, through the whole pipeline")
    console.print("below each figure its 95 % interval, by bootstrap over groups")
    for number, (title, columns) in enumerate(TABLES):
        console.print(_figures_table(title, COUNTS if number == 0 else (), columns, reports))
    if evaluation.skipped:
        console.print(f"{len(evaluation.skipped)} pictures could not be read")
    for report in reports:
        if report.labelled_cells:
            console.print(_confusion_table(report))


def _figures_table(title: str, counts: Columns, columns: Columns, reports: Sequence[SetReport]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for heading, _ in (*counts, *columns):
        table.add_column(heading, justify="right", overflow="fold")
    for report in reports:
        cells = [str(getattr(report, field)) for _, field in counts]
        cells += [with_interval(getattr(report, field)) for _, field in columns]
        if any(cell != NONE for cell in cells):
            table.add_row(report.data_set, *cells)
    return table


def with_interval(estimate: Estimate) -> str:
    """Return such as `0.985 .970–.993` on two lines; a dash where there is nothing to measure."""
    if estimate.value is None:
        return NONE
    value = f"{estimate.value:.3f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value}\n{_short(estimate.low)}–{_short(estimate.high)}"


def _short(value: float) -> str:
    return "1" if value > 0.9995 else f"{value:.3f}".removeprefix("0")


def _confusion_table(report: SetReport) -> Table:
    confusion = report.confusion
    table = Table(
        title=f"{report.data_set}: rows are the truth, columns the prediction", title_justify="left"
    )
    used = used_names(confusion)
    table.add_column("")
    for index in used:
        table.add_column(confusion.names[index].replace("_", " "), justify="right", overflow="fold")
    for row in used:
        counts = [confusion.counts[row][column] for column in used]
        if sum(counts):
            table.add_row(confusion.names[row], *(str(count) if count else "·" for count in counts))
    return table


def used_names(confusion: Confusion) -> Sequence[int]:
    """Return the indices of the names that occur, as truth or as prediction."""
    across = [sum(column) for column in zip(*confusion.counts, strict=True)]
    return [index for index in range(len(confusion.names)) if across[index] or sum(confusion.counts[index])]
