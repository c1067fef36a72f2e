"""Tables for people: a differential, and the ledger's lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from db.records import PatientResult, ScanRow
from pipeline.count.differential import not_told_apart
from pipeline.model.domain import ClassCount, Differential, Flag
from pipeline.model.taxonomy import CHILDREN, CellClass, Denominator, is_leukocyte
from pipeline.model.wording import counted

_CHILDREN = {child for children in CHILDREN.values() for child in children}
_LAST_CHILD = {children[-1]: parent for parent, children in CHILDREN.items()}
_NOT_TOLD_APART = {
    CellClass.NEUTROPHIL: "segmented or band not told apart",
    CellClass.IMMATURE_GRANULOCYTE: "stage not told apart",
}
SCAN_HEADINGS = ("scan", "patient", "specimen", "slide", "state", "result", "cells", "tries", "reason")
WIDE_COLUMNS = 140
"""From this width on, the ledger's nine columns stand side by side."""


def print_unwrapped(console: Console, shown: Group | Text) -> None:
    """Print; into a pipe or a file, lines are as long as they are."""
    console.print(shown, soft_wrap=not console.is_terminal)


def patient_table(found: PatientResult) -> Group:
    """Return the pooled differential of a patient, as a table."""
    scans = counted(len(found.slides), "scan")
    return differential_table(
        f"Patient {found.patient}: {found.n_slides_pooled} of {scans} pooled", found.pooled
    )


def differential_table(title: str, differential: Differential) -> Group:
    """Return the differential as a table with its title above it and its total below it.

    Classes below a parent are indented, and add up to it. The leukocytes add up to the total; erythroblasts
    and platelets stand apart from them.
    """
    table = Table()
    table.add_column("cell")
    for heading in ("count", "%", "95 % interval"):
        table.add_column(heading, justify="right")
    apart = {line.cell_class: line for line in not_told_apart(differential)}
    for line in (line for line in differential.classes if is_leukocyte(line.cell_class)):
        name = line.cell_class.value.replace("_", " ")
        _add_line(table, f"  {name}" if line.cell_class in _CHILDREN else name, line)
        parent = _LAST_CHILD.get(line.cell_class)
        if parent in apart:
            _add_line(table, f"  {_NOT_TOLD_APART[parent]}", apart[parent])
    table.add_section()
    n = differential.n_leukocytes
    table.add_row("leukocytes", str(n), "100.0" if n else "", "")
    table.add_section()
    for line in (line for line in differential.classes if not is_leukocyte(line.cell_class)):
        _add_line(table, line.cell_class.value.replace("_", " "), line)
    return Group(Text(title, style="italic"), table, Text(_caption(differential), style="dim"))


def _add_line(table: Table, name: str, line: ClassCount) -> None:
    percent = "" if line.percent is None else f"{line.percent:.1f}"
    if line.percent is not None and line.denominator is Denominator.PER_100_LEUKOCYTES:
        percent += " /100"
    interval = "" if line.ci95_percent is None else "{:.1f} – {:.1f}".format(*line.ci95_percent)
    table.add_row(name, str(line.count), percent, interval, style="" if line.count else "dim")


def _caption(differential: Differential) -> str:
    return (
        f"n = {counted(differential.n_leukocytes, 'leukocyte')}; "
        f"{differential.n_unidentified} unidentified, "
        f"{counted(differential.n_artefacts, 'artefact')} of {differential.n_found} found"
    )


def flags_text(flags: Iterable[Flag]) -> str:
    """Return the flags as they are said; an empty text for none."""
    return ", ".join(flag.value.replace("_", " ") for flag in flags)


def tab_separated(fields: Iterable[str]) -> str:
    """Return a line for a pipe: whole fields, with a tab between them."""
    return "\t".join(fields)


def scans_table(rows: Iterable[ScanRow], width: int) -> Table:
    """Return the ledger's lines as a table that keeps ids whole, for a terminal of `width` columns."""
    return _wide_table(rows) if width >= WIDE_COLUMNS else _narrow_table(rows)


def _wide_table(rows: Iterable[ScanRow]) -> Table:
    table = Table()
    for heading in SCAN_HEADINGS:
        table.add_column(heading, overflow="fold", no_wrap=heading == "scan")
    for row in rows:
        table.add_row(*scan_fields(row))
    return table


def _narrow_table(rows: Iterable[ScanRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("scan", no_wrap=True)
    table.add_column("patient / specimen / slide", overflow="fold")
    for row in rows:
        table.add_row(str(row.scan_id), "\n".join(_narrow_lines(row)))
    return table


def _narrow_lines(row: ScanRow) -> Iterator[str]:
    _, patient, specimen, slide, state, result, _, tries, reason = scan_fields(row)
    yield " / ".join(name for name in (patient, specimen, slide) if name)
    cells = counted(row.progress.cells_found, "cell")
    yield ", ".join(part for part in (state, result, cells, f"try {tries}") if part)
    if reason:
        yield reason


def scan_fields(row: ScanRow) -> tuple[str, ...]:
    """Return what is said of one scan, under `SCAN_HEADINGS`."""
    return (
        str(row.scan_id),
        row.patient or "",
        row.specimen or "",
        row.slide_name,
        row.state.value + (" (stat)" if row.priority.value == "stat" else ""),
        row.status.value if row.status else "",
        str(row.progress.cells_found),
        f"{row.attempts}/{row.max_attempts}",
        _reason(row),
    )


def _reason(row: ScanRow) -> str:
    if row.same_content_as is None:
        return row.reason or ""
    twin = f"same picture as scan {row.same_content_as} of another patient: mislabelled?"
    return f"{twin} {row.reason}" if row.reason else twin
