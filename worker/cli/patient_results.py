"""results: the answer, for one patient."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.text import Text
from sqlalchemy import Connection

from db.database import Database
from db.reads import cells_of_run, record_results_read, results_of_patient
from db.records import PatientResult, RunReport, SlideReport
from db.revision import require_current
from pipeline.count.conclusion import differential_flags
from pipeline.model.domain import Differential
from pipeline.model.errors import UsageError
from pipeline.model.json_value import Json
from pipeline.model.spec import PipelineSpec
from pipeline.model.wording import counted
from pipeline.output.report import (
    cell_document,
    differential_document,
    provenance_document,
    scale_document,
)
from worker.cli.result_tables import flags_text, patient_table, print_unwrapped
from worker.cli.whoami import os_user
from worker.ingest.identification import checked_id
from worker.settings import DatabaseSettings, load

CSV_HEADINGS = (
    "patient", "scan", "specimen", "slide", "state", "status", "class", "count", "percent",
    "ci95_low", "ci95_high", "denominator", "n",
)  # fmt: skip


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def results(
    patient: Annotated[str, typer.Argument(help="The patient's identifier.")],
    as_format: Annotated[
        Format, typer.Option("--format", help="For a person or for a program.")
    ] = Format.TABLE,
) -> None:
    """Print a patient's differential, pooled and slide by slide. The reading is recorded."""
    patient = checked_id(patient)
    url = load(DatabaseSettings).database_url.get_secret_value()
    require_current(url)
    with Database(url) as database, database.transaction() as connection:
        found = results_of_patient(connection, patient)
        patient_id = found.patient_id if found else None
        record_results_read(connection, patient_id, reader=os_user(), purpose="leukoflow results")
        answer = None if found is None else _ANSWERS[as_format](connection, found)
    # Only after the commit: nothing is shown that is not on record.
    if answer is None:
        raise UsageError("no scan of this patient was ever seen", code="unknown_patient")
    if isinstance(answer, str):
        typer.echo(answer, nl=False)
    else:
        print_unwrapped(Console(markup=False, highlight=False), answer)


def _table(_connection: Connection, found: PatientResult) -> Group:
    flags = differential_flags(found.pooled, PipelineSpec())
    named = [f"flags: {flags_text(flags)}"] if flags else []
    lines = (_slide_line(slide) for slide in found.slides)
    return Group(patient_table(found), *(Text(line) for line in (*named, *lines)))


def _slide_line(slide: SlideReport) -> str:
    if slide.run is None:
        return f"  {slide.slide_name}: {slide.state.value}. {slide.reason or ''}"
    n = counted(slide.run.differential.n_leukocytes, "leukocyte")
    warning = "  Same picture as a scan of another patient: mislabelled?" if slide.same_content_as else ""
    return f"  {slide.slide_name}: {slide.run.status.value}, {n}{warning}"


def _json(connection: Connection, found: PatientResult) -> str:
    document: dict[str, Json] = {
        "patient": found.patient,
        "n_slides": len(found.slides),
        "n_slides_pooled": found.n_slides_pooled,
        "differential": differential_document(found.pooled),
        "flags": [flag.value for flag in differential_flags(found.pooled, PipelineSpec())],
        "slides": [_slide_document(connection, slide) for slide in found.slides],
    }
    return json.dumps(document) + "\n"


def _slide_document(connection: Connection, slide: SlideReport) -> dict[str, Json]:
    document: dict[str, Json] = {
        "scan": str(slide.scan_id),
        "specimen": slide.specimen,
        "slide": slide.slide_name,
        "state": slide.state.value,
        "reason": slide.reason,
        "pooled": slide.pooled,
        "same_content_as": str(slide.same_content_as) if slide.same_content_as else None,
    }
    return document | (_run_document(connection, slide.run) if slide.run else {"status": None})


def _run_document(connection: Connection, run: RunReport) -> dict[str, Json]:
    return {
        "status": run.status.value,
        "reasons": list(run.reasons),
        "size_px": [run.size_px0.width, run.size_px0.height],
        **scale_document(run.scale),
        "cells": [cell_document(cell) for cell in cells_of_run(connection, run.run_id)],
        "differential": differential_document(run.differential),
        "flags": [flag.value for flag in run.flags],
        "provenance": provenance_document(run.provenance),
        "artefacts": [{"kind": a.kind, "bucket": a.bucket, "object": a.object_name} for a in run.artefacts],
    }


def _csv(_connection: Connection, found: PatientResult) -> str:
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(CSV_HEADINGS)
    for line in _lines(found.pooled):
        writer.writerow((found.patient, "pooled", "", "", "", "", *line))
    for slide in found.slides:
        row = (found.patient, slide.scan_id, slide.specimen, slide.slide_name, slide.state.value)
        if slide.run is None:
            writer.writerow((*row, "", "", "", "", "", "", "", ""))
            continue
        for line in _lines(slide.run.differential):
            writer.writerow((*row, slide.run.status.value, *line))
    return written.getvalue()


def _lines(differential: Differential) -> Iterator[tuple[str | int | float, ...]]:
    for line in differential.classes:
        low, high = line.ci95_percent or ("", "")
        percent = "" if line.percent is None else round(line.percent, 3)
        yield (
            line.cell_class.value,
            line.count,
            percent,
            low if low == "" else round(float(low), 3),
            high if high == "" else round(float(high), 3),
            line.denominator.value,
            differential.n_leukocytes,
        )


_ANSWERS: Mapping[Format, Callable[[Connection, PatientResult], str | Group]] = {
    Format.TABLE: _table,
    Format.JSON: _json,
    Format.CSV: _csv,
}
