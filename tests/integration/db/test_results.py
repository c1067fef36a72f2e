"""A result is saved whole and once; a patient's answer is the sum of the right slides."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from made_results import arrival, cells, claimed, digest_of, registered, result
from sqlalchemy import exc, text

from db import ledger, reads, registration, results
from db.records import Artefact, ScanFilter, SpecimenIdentity
from db.states import ScanState
from pipeline.count.differential import pooled, wilson_interval
from pipeline.model.domain import SlideStatus
from pipeline.model.geometry import Size
from pipeline.model.taxonomy import CellClass

pytestmark = pytest.mark.services

SHEET = Artefact("gallery", "results", "run/gallery.jpg", "a" * 64, 321)
TABLES = ("run", "cell", "differential", "artefact", "model_bundle")


def completed(database, upload, found, content="content", **given):
    """Return the scan id of an upload that went all the way."""
    (scan_id,) = registered(database, upload)
    save(database, claimed(database, scan_id), result(found, content, **given))
    return scan_id


def save(database, claim, slide, artefacts=()):
    with database.transaction() as connection:
        return results.save_result(connection, claim, slide, artefacts)


def again(database, scan_id):
    with database.transaction() as connection:
        registration.requeue(connection, scan_id)
    return claimed(database, scan_id)


def answer(database, patient="P1"):
    with database.transaction() as connection:
        return reads.results_of_patient(connection, patient)


def everything(rows):
    return {table: rows(f"SELECT t::text FROM {table} t ORDER BY 1") for table in TABLES}


def lines(differential):
    return {line.cell_class: line for line in differential.classes}


def test_what_was_saved_is_what_is_read(database):
    found = cells(neutrophil_segmented=3, lymphocyte=2, erythroblast=1, unidentified=1, artefact=2)
    slide = result(found, status=SlideStatus.INSUFFICIENT)
    (scan_id,) = registered(database, arrival("P1", "S7"))
    saved = save(database, claimed(database, scan_id), slide, [SHEET])
    assert saved.is_new
    patient = answer(database)
    (report,) = patient.slides
    run, analysis = report.run, slide.analysis
    assert (report.scan_id, report.specimen, report.state) == (scan_id, "S7", ScanState.COMPLETED)
    assert (run.run_id, run.status, run.reasons, run.flags) == (
        *(saved.run_id, SlideStatus.INSUFFICIENT),
        *(("too few leukocytes",), analysis.flags),
    )
    assert run.differential == analysis.differential
    assert run.provenance == slide.provenance
    assert (run.scale, run.quality, run.tiles) == (analysis.scale, analysis.quality, analysis.tiles)
    assert (run.size_px0, run.file_mpp, run.file_format) == (Size(2000, 1000), None, "tiff")
    assert run.artefacts == (SHEET,)
    assert run.started_at <= run.finished_at


def test_every_cell_comes_back_as_it_was_found(database):
    found = cells(neutrophil_band=4, monocyte=3, blast=2, unidentified=2, artefact=1)
    completed(database, arrival(), found)
    run = answer(database).slides[0].run
    with database.transaction() as connection:
        back = reads.cells_of_run(connection, run.run_id)
    assert len(back) == len(found) == run.differential.n_found
    for stored, cell in zip(back, found, strict=True):
        for name in ("bbox_px0", "centroid_px0", "area_px0", "nucleus_area_px0", "area_um2", "touches_edge"):
            assert getattr(stored.instance, name) == getattr(cell.instance, name), name
        np.testing.assert_array_equal(stored.instance.contour_px0, cell.instance.contour_px0)
        assert len(stored.instance.nucleus_contours_px0) == len(cell.instance.nucleus_contours_px0)
        for one, other in zip(
            stored.instance.nucleus_contours_px0, cell.instance.nucleus_contours_px0, strict=True
        ):
            np.testing.assert_array_equal(one, other)
        assert (stored.call.cell_class, stored.call.status) == (cell.call.cell_class, cell.call.status)
        assert stored.call.disagreement == cell.call.disagreement
        assert stored.call.probabilities == pytest.approx(dict(cell.call.probabilities), abs=1e-6)


def test_saving_twice_changes_nothing(database, rows):
    slide = result(cells(lymphocyte=5, unidentified=1))
    (scan_id,) = registered(database, arrival())
    first = save(database, claimed(database, scan_id), slide, [SHEET])
    before = everything(rows)
    second = save(database, again(database, scan_id), slide, [SHEET])
    assert (second.run_id, second.is_new) == (first.run_id, False)
    assert everything(rows) == before
    assert answer(database).slides[0].state is ScanState.COMPLETED


def test_a_claim_saves_once(database, rows):
    (scan_id,) = registered(database, arrival())
    claim = claimed(database, scan_id)

    def attempt(_):
        try:
            return save(database, claim, result(cells(lymphocyte=3))).is_new
        except ledger.LeaseLost:
            return None

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(attempt, range(3)))
    assert sorted(outcomes, key=str) == [None, None, True]
    assert rows("SELECT count(*) FROM cell") == [(3,)]


def test_a_result_that_fails_in_the_middle_leaves_nothing(database, rows):
    slide = result(cells(lymphocyte=2))
    bad = replace(
        slide.analysis.cells[1].instance, bbox_px0=slide.analysis.cells[1].instance.bbox_px0.grown(-9)
    )
    broken = replace(
        slide.analysis, cells=(*slide.analysis.cells[:1], replace(slide.analysis.cells[1], instance=bad))
    )
    (scan_id,) = registered(database, arrival())
    claim = claimed(database, scan_id)
    with pytest.raises(Exception, match="ck_cell_bbox_px0"):
        save(database, claim, replace(slide, analysis=broken))
    assert {table: len(found) for table, found in everything(rows).items()} == dict.fromkeys(TABLES, 0)
    assert save(database, claim, slide).is_new


def test_a_new_bundle_keeps_the_old_run_and_answers_with_the_new(database, rows):
    scan_id = completed(database, arrival(), cells(lymphocyte=4), bundle="old")
    save(database, again(database, scan_id), result(cells(monocyte=6), bundle="new"))
    assert rows("SELECT count(*) FROM run") == [(2,)]
    patient = answer(database)
    assert lines(patient.pooled)[CellClass.MONOCYTE].count == 6
    assert lines(patient.pooled)[CellClass.LYMPHOCYTE].count == 0
    # Back to the old bundle: its run is there already, and is the answer again.
    save(database, again(database, scan_id), result(cells(lymphocyte=4), bundle="old"))
    assert rows("SELECT count(*) FROM run") == [(2,)]
    assert lines(answer(database).pooled)[CellClass.LYMPHOCYTE].count == 4


def test_a_patients_slides_are_pooled_as_by_hand(database, rows):
    completed(database, arrival("P1", "S1"), cells(neutrophil_segmented=60, neutrophil_band=2), "a")
    completed(database, arrival("P1", "S1"), cells(neutrophil=3, lymphocyte=30, erythroblast=4), "b")
    completed(database, arrival("P1", "S2"), cells(blast=5, unidentified=7, artefact=9, platelet=2), "c")
    completed(database, arrival("P2", "S1"), cells(lymphocyte=50), "d")
    patient = answer(database)
    assert (patient.n_slides_pooled, patient.pooled.n_leukocytes, patient.pooled.n_found) == (3, 100, 122)
    assert (patient.pooled.n_unidentified, patient.pooled.n_artefacts) == (7, 9)
    found = lines(patient.pooled)
    by_hand = {
        "neutrophil": 65,
        "neutrophil_segmented": 60,
        "neutrophil_band": 2,
        "lymphocyte": 30,
        "blast": 5,
    }
    for name, count in by_hand.items():
        line = found[CellClass(name)]
        assert (line.count, line.percent) == (count, pytest.approx(count))
        assert line.ci95_percent == pytest.approx(wilson_interval(count, 100))
    assert found[CellClass.BLAST].ci95_percent == pytest.approx((2.154, 11.175), abs=1e-3)
    assert (found[CellClass.ERYTHROBLAST].count, found[CellClass.ERYTHROBLAST].ci95_percent) == (4, None)
    assert (found[CellClass.PLATELET].count, found[CellClass.PLATELET].percent) == (2, None)
    # The view for people with SQL says the same.
    view = rows(
        "SELECT cell_class, count, percent, n_leukocytes, n_slides FROM patient_differential"
        " WHERE patient = 'P1'"
    )
    assert {row[0]: (row[1], row[2]) for row in view} == {
        line.cell_class.value: (line.count, line.percent and pytest.approx(line.percent))
        for line in patient.pooled.classes
    }
    assert {row[3:] for row in view} == {(100, 3)}
    assert patient.pooled == pooled(slide.run.differential for slide in patient.slides)


def test_the_same_bytes_twice_for_one_patient_count_once(database, rows):
    completed(database, arrival("P1", "S1"), cells(lymphocyte=10), "same")
    completed(database, arrival("P1", "S2"), cells(lymphocyte=10), "same")
    patient = answer(database)
    assert sorted(slide.pooled for slide in patient.slides) == [False, True]
    assert all(slide.run.differential.n_leukocytes == 10 for slide in patient.slides)
    assert patient.pooled.n_leukocytes == 10
    assert {slide.same_content_as for slide in patient.slides} == {None}
    assert rows("SELECT DISTINCT n_leukocytes FROM patient_differential WHERE patient = 'P1'") == [(10,)]


def test_the_view_looks_at_no_other_patient(database):
    for number in range(30):
        completed(database, arrival(f"P{number}", "S1"), cells(lymphocyte=2), f"content {number}")
    with database.transaction() as connection:
        for way in ("seqscan", "hashjoin", "mergejoin"):  # what so few rows would be worth
            connection.execute(text(f"SET LOCAL enable_{way} = off"))
        question = "SELECT * FROM patient_differential WHERE patient = 'P7'"
        said = connection.execute(text("EXPLAIN (ANALYZE, FORMAT JSON) " + question)).scalar_one()
    windows = [node for node in plan_nodes(said[0]["Plan"]) if node["Node Type"] == "WindowAgg"]
    assert len(windows) >= 2
    assert {node["Actual Rows"] for node in windows} == {1}


def plan_nodes(node):
    yield node
    for below in node.get("Plans", []):
        yield from plan_nodes(below)


def test_a_rejected_slide_is_shown_and_not_pooled(database):
    completed(database, arrival(), cells(lymphocyte=3), "a", status=SlideStatus.REJECTED)
    completed(database, arrival(), cells(monocyte=2), "b", status=SlideStatus.INSUFFICIENT)
    patient = answer(database)
    assert [slide.pooled for slide in patient.slides] == [False, True]
    assert patient.pooled.n_leukocytes == 2


def test_slides_without_a_result_are_listed_with_their_state(database):
    (waiting,) = registered(database, arrival())
    patient = answer(database)
    assert [(slide.scan_id, slide.state, slide.run) for slide in patient.slides] == [
        (waiting, ScanState.RECEIVED, None)
    ]
    assert (patient.n_slides_pooled, patient.pooled.n_found) == (0, 0)
    assert answer(database, "nobody") is None


def test_the_same_bytes_under_two_patients_keep_both_results_and_flag_both_scans(database, rows):
    first = completed(database, arrival("P1"), cells(lymphocyte=8), "same")
    second = completed(database, arrival("P2"), cells(lymphocyte=8), "same")
    third = completed(database, arrival("P1"), cells(lymphocyte=8), "same")
    for patient in ("P1", "P2"):
        assert answer(database, patient).pooled.n_leukocytes == 8
    with database.transaction() as connection:
        flags = {row.scan_id: row.same_content_as for row in reads.scans(connection, ScanFilter())}
    assert flags == {first: second, second: first, third: second}
    told = rows(
        "SELECT scan_id, detail FROM event WHERE kind = 'same_content_under_another_patient' ORDER BY id"
    )
    mine = [row for row in told if row[0] in flags]
    assert {scan_id for scan_id, _ in mine} == set(flags)
    assert all(set(detail) == {"other_scan"} for _, detail in mine)
    # Once the mislabelled one is put right, nothing is left to flag, and the bytes count once.
    with database.transaction() as connection:
        registration.assign(connection, second, SpecimenIdentity("P1", "S1"))
        assert {row.same_content_as for row in reads.scans(connection, ScanFilter())} == {None}
    assert answer(database, "P1").pooled.n_leukocytes == 8
    assert answer(database, "P2").slides == ()


def test_the_digest_flags_a_scan_before_its_result_and_at_the_same_time_as_another(database):
    ids = registered(database, *(arrival(f"P{number}") for number in range(6)))
    claims = [claimed(database, scan_id) for scan_id in ids]

    def read(claim):
        with database.transaction() as connection:
            return ledger.record_digest(connection, claim, digest_of("same"))

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(read, claims))
    assert sorted(answers) == [False, True, True, True, True, True]
    with database.transaction() as connection:
        rows_now = reads.scans(connection, ScanFilter())
    assert all(row.same_content_as not in (None, row.scan_id) for row in rows_now)


def test_two_workers_that_read_the_same_bytes_at_once_cannot_miss_each_other(database, rows):
    one, other = (
        claimed(database, scan_id) for scan_id in registered(database, arrival("P1"), arrival("P2"))
    )

    def read_other():
        with database.transaction() as connection:
            return ledger.record_digest(connection, other, digest_of("same"))

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as connection:
            assert not ledger.record_digest(connection, one, digest_of("same"))
            second = pool.submit(read_other)
            deadline = time.monotonic() + 20.0
            while not second.done() and time.monotonic() < deadline:
                if rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                    break
        assert second.result(timeout=20.0)


def test_a_read_is_on_record_with_its_reader_and_without_the_patients_number(database, rows):
    completed(database, arrival("PATIENT-77"), cells(lymphocyte=1))
    with database.transaction() as connection:
        patient = reads.results_of_patient(connection, "PATIENT-77")
        reads.record_results_read(connection, patient.patient_id, reader="cli", purpose="results")
    ((scan_id, detail),) = rows("SELECT scan_id, detail FROM event ORDER BY id DESC LIMIT 1")
    assert scan_id is None
    assert detail == {"patient_id": str(patient.patient_id), "reader": "cli", "purpose": "results"}
    assert "PATIENT-77" not in repr(patient)


def test_a_bundle_is_on_record_once_with_its_manifest(database, rows):
    manifest = json.dumps({"name": "b", "members": [{"file": "a.onnx"}]})
    completed(database, arrival(), cells(lymphocyte=1), bundle="b")
    assert rows("SELECT name, manifest FROM model_bundle") == [("made by hand", None)]
    for _ in range(2):
        with database.transaction() as connection:
            results.register_bundle(connection, digest_of("b"), "made by hand", manifest)
    assert rows("SELECT name, manifest FROM model_bundle") == [("made by hand", json.loads(manifest))]


def test_a_run_without_its_scan_cannot_be(database, rows):
    scan_id = completed(database, arrival(), cells(lymphocyte=1))
    with pytest.raises(exc.IntegrityError, match="fk_"):
        rows("DELETE FROM scan WHERE id = :scan RETURNING id", scan=scan_id)


def test_a_slide_of_many_cells_is_copied_in_a_moment(database, rows):
    found = cells(lymphocyte=20_000)
    scan_id = completed(database, arrival(), found)
    assert rows("SELECT count(*), count(DISTINCT ordinal), max(ordinal) FROM cell") == [
        (20_000, 20_000, 19_999)
    ]
    status = rows(
        "SELECT patient, state, n_leukocytes, cells_found FROM scan_status WHERE scan_id = :s", s=scan_id
    )
    assert status == [("P1", "completed", 20_000, 20_000)]
