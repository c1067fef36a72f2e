"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from db.records import ScanRow
from pipeline.model.domain import Differential
from pipeline.model.taxonomy import CHILDREN, Denominator

_CHILDREN = {child for children in CHILDREN.values() for child in children}


def differential_table(title: str, differential: Differential) -> Table:
    """Return the differential as a table; classes below a parent are indented."""
    table = Table(title=title, title_justify="left", caption=_caption(differential), caption_justify="left")
    for heading, justify in (
        ("cell", "left"),
        ("count", "right"),
        ("%", "right"),
        ("95 % interval", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for line in differential.classes:
        name = line.cell_class.value.replace("_", " ")
        percent = "" if line.percent is None else f"{line.percent:.1f}"
        if line.percent is not None and line.denominator is Denominator.PER_100_LEUKOCYTES:
            percent += " /100"
        interval = "" if line.ci95_percent is None else "{:.1f} – {:.1f}".format(*line.ci95_percent)
        indented = f"  {name}" if line.cell_class in _CHILDREN else name
        table.add_row(indented, str(line.count), percent, interval, style="" if line.count else "dim")
    return table


def _caption(differential: Differential) -> str:
    return (
        f"n = {differential.n_leukocytes} leukocytes; {differential.n_unidentified} unidentified, "
        f"{differential.n_artefacts} artefacts of {differential.n_found} found"
    )


def scans_table(rows: Iterable[ScanRow]) -> Table:
    """Return the ledger's lines as a table."""
    table = Table()
    for heading in ("scan", "patient", "specimen", "slide", "state", "result", "cells", "tries", "reason"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(
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
    return table


def _reason(row: ScanRow) -> str:
    if row.same_content_as is not None:
        return (
            f"same picture as scan {row.same_content_as} of another patient: mislabelled? {row.reason or ''}"
        )
    return row.reason or ""
