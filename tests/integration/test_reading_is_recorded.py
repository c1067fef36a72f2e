"""Whoever asks for a patient's results is in the event log: who, of whom, when. Else nothing is shown."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from db.records import Arrival, ScanRef, SpecimenIdentity
from tests.support.deployment import Deployment, deployment_on
from tests.support.one_upload import register
from worker.embedded import Principal

PATIENT = "PATIENT-4711"


@pytest.fixture(scope="module")
def deployment(embedded, tmp_path_factory) -> Iterator[Deployment]:
    with deployment_on(embedded, tmp_path_factory.mktemp("deployment")) as deployment:
        with deployment.database.transaction() as connection:
            ref = ScanRef("scans", f"{PATIENT}/S-1/a.jpg", "v", 1, "v")
            register(connection, Arrival(ref, "a", SpecimenIdentity(PATIENT, "S-1")))
        yield deployment


def results_as(deployment: Deployment, principal: Principal, *arguments: str, **environment: str):
    return subprocess.run(
        [sys.executable, "-m", "worker", "results", *arguments],
        env={**deployment.environment_of(principal), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def reads_of(deployment: Deployment) -> list[tuple]:
    question = text(
        "SELECT db_user, detail ->> 'reader', detail ->> 'purpose', (detail ->> 'patient_id')::uuid"
        " = (SELECT id FROM patient WHERE external_id = :patient), at > now() - interval '5 minutes'"
        " FROM event WHERE kind = 'results_read' ORDER BY id"
    )
    with deployment.database.transaction() as connection:
        return [tuple(row) for row in connection.execute(question, {"patient": PATIENT})]


@pytest.mark.parametrize(
    ("principal", "as_format"),
    [(Principal.READER, "table"), (Principal.READER, "json"), (Principal.CLERK, "csv")],
)
def test_a_read_says_who_by_the_database_and_by_the_machine(deployment, principal, as_format):
    before = len(reads_of(deployment))
    ended = results_as(
        deployment, principal, PATIENT, "--format", as_format, USER="somebody else", LOGNAME="x"
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert PATIENT in ended.stdout
    account = pwd.getpwuid(os.getuid()).pw_name
    assert reads_of(deployment)[before:] == [(principal.value, account, "leukoflow results", True, True)]


def test_a_question_for_a_patient_that_is_not_there_is_on_record_too(deployment):
    before = len(reads_of(deployment))
    ended = results_as(deployment, Principal.READER, "NOBODY")
    assert ended.returncode == 2
    assert [read[3] for read in reads_of(deployment)[before:]] == [None]


def test_what_cannot_be_recorded_is_not_shown(deployment):
    with deployment.database.transaction() as connection:
        connection.execute(text("REVOKE EXECUTE ON FUNCTION record_results_read FROM leukoflow_reader"))
    before = len(reads_of(deployment))
    ended = results_as(deployment, Principal.READER, PATIENT)
    assert (ended.returncode, ended.stdout) == (78, "")
    assert "lacks a privilege" in ended.stderr
    assert len(reads_of(deployment)) == before


@pytest.mark.parametrize("principal", [Principal.WATCHER, Principal.WORKER])
def test_a_process_reads_no_results_of_patients(deployment, principal):
    ended = results_as(deployment, principal, PATIENT)
    assert (ended.returncode, ended.stdout) == (78, "")
