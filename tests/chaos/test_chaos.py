"""Every kind of fault once, and an oracle that would tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text

from tests.chaos.faults import FaultKind
from tests.chaos.laboratory import Laboratory, laboratory_in
from tests.chaos.oracle import Verdict, judged
from tests.chaos.plan import Plan, one_of_each
from tests.chaos.run import RECOVERY_DEADLINE_S, run_chaos
from tests.chaos.scans import DroppedScan, drawn_scans
from tests.support.deployment import logs_in

pytestmark = [pytest.mark.services, pytest.mark.long, pytest.mark.timeout(900)]

NOTHING = Verdict((), (), ())
SEED = 20261125


def test_every_kind_of_fault_once_loses_doubles_and_falsifies_nothing(tmp_path):
    with laboratory_in(tmp_path / "lab") as lab:
        scans = list(drawn_scans(150, frozenset({20}), tmp_path))
        plan = Plan(alone=(FaultKind.KILL_BROKER, FaultKind.KILL_WORKER), close=one_of_each(SEED))
        report = run_chaos(lab, scans, plan, SEED)
    assert report.verdict == NOTHING
    assert report.scans == 150
    assert set(report.faults) == set(FaultKind)
    assert [recovery.kind for recovery in report.recoveries if recovery.number is None] == [*plan.alone]
    assert all(0 < recovery.took_s < RECOVERY_DEADLINE_S for recovery in report.recoveries)
    assert "worker_stalled" not in logs_in(lab.folder), "a worker took nothing while work waited"


@pytest.fixture(scope="module")
def at_rest(tmp_path_factory) -> Iterator[tuple[Laboratory, list[DroppedScan]]]:
    """Return a laboratory in which four scans were completed and one was put aside, and the scans."""
    folder = tmp_path_factory.mktemp("oracle")
    with laboratory_in(folder / "lab") as lab:
        scans = list(drawn_scans(5, frozenset({2}), folder))
        assert run_chaos(lab, scans, Plan(), SEED).verdict == NOTHING
        yield lab, scans


@pytest.fixture
def changed(at_rest):
    """Return what changes rows and gives the verdict; the rows are as before afterwards."""
    lab, scans = at_rest
    undone: list[str] = []

    def change(statement: str, undo: str) -> Verdict:
        undone.append(undo)
        _execute(lab, statement)
        return judged(lab, scans)

    yield change
    for statement in undone:
        _execute(lab, statement)
    assert judged(lab, scans) == NOTHING


def _execute(lab: Laboratory, statement: str) -> None:
    with lab.database.transaction() as connection:
        connection.execute(text(statement))


def test_the_oracle_finds_a_scan_that_never_ended(changed):
    verdict = changed(
        "UPDATE scan SET state = 'received', completed_at = NULL WHERE object_key LIKE '%/S-1/%'",
        "UPDATE scan SET state = 'completed', completed_at = now() WHERE object_key LIKE '%/S-1/%'",
    )
    assert [key.split("/")[1] for key in verdict.lost] == ["S-1"]


def test_the_oracle_finds_a_wrong_count(changed):
    verdict = changed("UPDATE run SET n_found = n_found + 1", "UPDATE run SET n_found = n_found - 1")
    assert len(verdict.wrong) == 4


def test_the_oracle_finds_a_second_completion(changed):
    verdict = changed(
        "INSERT INTO attempt (scan_id, number, worker, started_at, finished_at, outcome)"
        " SELECT scan_id, 99, worker, now(), now(), outcome FROM attempt WHERE outcome = 'completed' LIMIT 1",
        "DELETE FROM attempt WHERE number = 99",
    )
    assert len(verdict.double) == 1


def test_the_oracle_finds_a_sound_scan_put_aside(changed):
    verdict = changed(
        "UPDATE scan SET state = 'quarantined', error_code = 'worker_lost', reason = 'r', completed_at = NULL"
        " WHERE object_key LIKE '%/S-0/%'",
        "UPDATE scan SET state = 'completed', error_code = NULL, reason = NULL, completed_at = now()"
        " WHERE object_key LIKE '%/S-0/%'",
    )
    assert any("S-0" in line and "put aside" in line for line in verdict.wrong)


def test_the_oracle_finds_results_of_other_bytes(at_rest):
    lab, scans = at_rest
    others = [replace(scan, body=scan.body + b"x") for scan in scans]
    assert len(judged(lab, others).wrong) == 4


def test_the_oracle_finds_artefacts_that_nobody_knows_or_that_are_other_bytes(at_rest):
    lab, scans = at_rest
    known = next(iter(lab.results.list())).key
    lab.results.put_bytes("runs/0/stray.jpg", b"stray", "image/jpeg")
    body = _body(lab, known)
    lab.results.put_bytes(known, b"other", "image/jpeg")
    wrong = judged(lab, scans).wrong
    lab.results.remove("runs/0/stray.jpg")
    lab.results.put_bytes(known, body, "image/jpeg")
    assert sorted(line.split(": ")[0] for line in wrong) == sorted([known, "runs/0/stray.jpg"])
    assert judged(lab, scans) == NOTHING


def test_the_oracle_finds_an_upload_that_is_gone(at_rest):
    lab, scans = at_rest
    lab.scans.remove(scans[3].key)
    assert judged(lab, scans).lost == (scans[3].key,)
    lab.scans.put_bytes(scans[3].key, scans[3].body, "image/tiff", {})
    assert judged(lab, scans) == NOTHING


def _body(lab: Laboratory, key: str) -> bytes:
    (listed,) = [found for found in lab.results.list() if found.key == key]
    with lab.folder.joinpath("body").open("w+b") as file:
        lab.results.get_to(listed, file, 1 << 26)
        file.seek(0)
        return file.read()
