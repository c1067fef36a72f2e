"""`leukoflow status`: what it tells is what is in the ledger, and no patient is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from db.states import Priority, ScanState
from tests.acceptance.pictures import field_jpeg
from tests.support.command_line import app
from tests.support.deployment import Deployment, deployment_on


@pytest.fixture(scope="module")
def deployment(embedded, tmp_path_factory) -> Iterator[Deployment]:
    """Return a deployment in which two scans are done, one is put aside, one has no patient, and two wait."""
    with deployment_on(embedded, tmp_path_factory.mktemp("status"), settle_s="0") as deployment:
        deployment.start("watch")
        worker = deployment.start("worker")
        for number in range(2):
            deployment.drop(f"Meier-4711/S-1/{number}.jpg", field_jpeg(40 + number))
        deployment.drop("Meier-4711/S-1/broken.png", b"\x89PNG\r\n\x1a\nno")
        deployment.drop("nameless.jpg", field_jpeg(50))
        deployment.until_ended(4)
        worker.ask_to_stop()
        worker.wait(60)
        deployment.drop("Meier-4711/S-1/late.jpg", field_jpeg(60))
        deployment.drop("Meier-4711/S-1/stat.jpg", field_jpeg(61), {"priority": "stat"})
        deployment.until(lambda: deployment.counts()[ScanState.QUEUED] == 2)
        yield deployment


@pytest.fixture(autouse=True)
def environment(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in deployment.environment.items():
        if name.startswith("LEUKOFLOW_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["status", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_programs_get_one_object(deployment: Deployment):
    document = json.loads(run("--json"))
    assert document["scans"] == {state.value: count for state, count in deployment.counts().items()}
    assert document["scans"]["completed"] == 2
    assert {name: one["scans"] for name, one in document["waiting"].items()} == {
        priority.value: 1 for priority in Priority
    }
    assert all(one["oldest_s"] > 0 for one in document["waiting"].values())
    (worker,) = document["workers"]
    assert (worker["running"], worker["completed"], worker["failed"]) == (0, 2, 1)
    (failure,) = document["failures"]
    assert (failure["outcome"], failure["attempts"]) == ("failed", 1)
    (broken,) = deployment.rows(ScanState.QUARANTINED)
    assert failure["code"] == broken.error_code


def test_people_get_tables(deployment: Deployment):
    shown = run()
    for word in ("quarantined", "waiting for a worker", "stat", "workers seen in the last 1 h", "oldest"):
        assert word in shown
    (broken,) = deployment.rows(ScanState.QUARANTINED)
    assert broken.error_code in shown


def test_what_is_longer_ago_than_asked_is_left_out(deployment: Deployment):
    earlier(deployment, "3 hours")
    recent, wider = (json.loads(run("--json", "--hours", hours)) for hours in ("2", "4"))
    earlier(deployment, "-3 hours")
    assert (recent["workers"], recent["failures"]) == ([], [])
    assert len(wider["workers"]) == len(wider["failures"]) == 1


def earlier(deployment: Deployment, by: str) -> None:
    with deployment.database.transaction() as connection:
        change = "UPDATE attempt SET started_at = started_at - CAST(:by AS interval)"
        connection.execute(text(change), {"by": by})


def test_no_patient_is_named():
    for shown in (run(), run("--json")):
        for telling in ("Meier", "4711", "nameless", "broken.png", "late.jpg"):
            assert telling not in shown
