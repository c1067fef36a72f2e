"""Tables whose rows add up, and that cut no id."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from uuid import UUID

import pytest
from rich.console import Console

from db.records import Progress, ScanRow
from db.states import Priority, ScanState
from pipeline.count.differential import differential_from_counts
from pipeline.model.domain import Differential
from pipeline.model.taxonomy import CellClass
from worker.cli.result_tables import differential_table, scan_fields, scans_table

SCAN = UUID("2f1c6c1e-0d4b-4b57-9a55-5a4b3c2d1e0f")
TWIN = UUID("9e107d9d-372b-4b60-8c5a-1a2b3c4d5e6f")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROW = ScanRow(
    scan_id=SCAN,
    patient="P-1",
    specimen="S-1",
    slide_name="slide-with-a-rather-long-name-of-its-own",
    state=ScanState.COMPLETED,
    reason=None,
    error_code=None,
    priority=Priority.STAT,
    attempts=1,
    max_attempts=5,
    claimed_by=None,
    progress=Progress(1, 1, 152),
    status=None,
    n_leukocytes=150,
    same_content_as=TWIN,
    received_at=NOW,
    completed_at=None,
    updated_at=NOW,
)


def counted(**counts: int) -> Differential:
    accepted = {CellClass(name): count for name, count in counts.items()}
    return differential_from_counts(accepted, n_unidentified=0, n_artefacts=0)


def printed(shown: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def rows_of(differential: Differential) -> dict[str, tuple[int, float | None]]:
    """Return count and percentage by the name in the table."""
    found = {}
    for line in printed(differential_table("", differential)).splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if cells:
            percent = cells[2].removesuffix(" /100")
            found[cells[0]] = (int(cells[1]), float(percent) if percent else None)
    return found


def test_the_rows_below_a_parent_add_up_to_it() -> None:
    rows = rows_of(
        counted(neutrophil=5, neutrophil_segmented=40, neutrophil_band=15, myelocyte=2, lymphocyte=38)
    )
    parts = ("neutrophil segmented", "neutrophil band", "segmented or band not told apart")
    assert sum(rows[part][0] for part in parts) == rows["neutrophil"][0] == 60
    assert sum(rows[part][1] or 0 for part in parts) == pytest.approx(60.0)
    assert "stage not told apart" not in rows


def test_the_leukocytes_add_up_to_the_last_row_and_others_stand_apart() -> None:
    rows = rows_of(counted(neutrophil=50, lymphocyte=30, immature_granulocyte=15, blast=5, erythroblast=7))
    assert rows["leukocytes"] == (100, 100.0)
    groups = (
        "neutrophil",
        "lymphocyte",
        "monocyte",
        "eosinophil",
        "basophil",
        "immature granulocyte",
        "blast",
    )
    assert sum(rows[group][0] for group in groups) == 100
    assert rows["stage not told apart"] == (15, 15.0)
    names = list(rows)
    assert names[names.index("leukocytes") + 1 :] == ["erythroblast", "platelet"]


def test_nothing_counted_has_no_total() -> None:
    assert rows_of(counted())["leukocytes"] == (0, None)


def test_counts_agree_with_their_nouns() -> None:
    shown = printed(differential_table("x", counted(lymphocyte=1)))
    assert "n = 1 leukocyte; 0 unidentified, 0 artefacts of 1 found" in shown


@pytest.mark.parametrize("width", [80, 120, 139, 140, 200])
def test_the_ledger_keeps_ids_whole_at_every_width(width: int) -> None:
    shown = printed(scans_table([ROW], width), width)
    assert str(SCAN) in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    if width < 140:
        assert str(TWIN) in shown
    letters = re.sub(r"[\s│]", "", shown)
    for field in scan_fields(ROW)[1:4]:
        assert field in letters or width >= 140
