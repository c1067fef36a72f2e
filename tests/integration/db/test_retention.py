"""ExpiredCounts scans go, with all that is known of them; nothing younger is touched, whatever it shares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

import pytest
from made_results import cells, claimed, result
from sqlalchemy import text
from typer.testing import CliRunner

import worker.storage.expired_and_orphaned
from db import reads, results
from db.database import Database
from db.ledger import record_digest
from db.records import Arrival, Artefact, ScanRef, SpecimenIdentity
from db.retention import RetentionLimit, delete_unreferenced_patients, expired_counts
from db.states import ScanState
from pipeline.model.errors import DeploymentError
from tests.support.command_line import app
from tests.support.deployment import Deployment, deployment_on
from tests.support.one_upload import register
from worker.embedded import Principal
from worker.ingest.watcher import Watcher
from worker.observability.watcher_metrics import WatcherMetrics
from worker.queue.celery_app import CeleryQueue, make_app
from worker.settings import KeepingSettings, load
from worker.storage.expired_and_orphaned import Retention
from worker.storage.object_store import ObjectStore, open_object_store

pytestmark = pytest.mark.services

MONTH = RetentionLimit(timedelta(days=30))
LONG = 40
TABLES = ("patient", "specimen", "scan", "attempt", "run", "cell", "differential", "artefact")


@dataclass
class Laboratory:
    """A deployment, and the stores and the keeper of it."""

    deployment: Deployment
    results: ObjectStore
    keeper: Retention

    def upload(self, patient: str | None, content: str, key: str | None = None) -> object:
        """Return the id of a scan that was uploaded and registered."""
        key = key or f"{patient}/S-1/{content}.jpg"
        self.deployment.drop(key, content.encode())
        stored = self.deployment.store.stat(key).stored
        ref = ScanRef(self.deployment.settings.bucket_scans, key, stored.etag, stored.size_bytes, stored.etag)
        identity = None if patient is None else SpecimenIdentity(patient, "S-1")
        with self.deployment.database.transaction() as connection:
            return register(connection, Arrival(ref, "slide", identity)).scan_id

    def complete(self, scan_id: object, content: str) -> None:
        """Save a result with a picture, as a worker does."""
        claim = claimed(self.deployment.database, scan_id)
        found = result(cells(lymphocyte=3), content)
        name = f"runs/{hashlib.sha256(content.encode()).hexdigest()}/overlay.png"
        with self.deployment.database.transaction() as connection:
            record_digest(connection, claim, found.provenance.run_key.scan_digest)
        self.results.put_bytes(name, b"picture", "image/png")
        artefact = Artefact("overlay", self.deployment.settings.bucket_results, name, "0" * 64, 7)
        with self.deployment.database.transaction() as connection:
            results.save_result(connection, claim, found, [artefact])

    def completed(self, patient: str, content: str, days: int, key: str | None = None) -> object:
        """Return the id of a scan that was completed so long ago."""
        scan_id = self.upload(patient, content, key)
        self.complete(scan_id, content)
        self.age(scan_id, days)
        return scan_id

    def age(self, scan_id: object, days: int) -> None:
        self.ask(
            "UPDATE scan SET updated_at = now() - make_interval(days => :d) WHERE id = :s", scan_id, days
        )

    def ask(self, statement: str, scan_id: object = None, days: int = 0) -> list[tuple]:
        with self.deployment.database.transaction() as connection:
            answer = connection.execute(text(statement), {"s": scan_id, "d": days} if scan_id else {})
            return [tuple(row) for row in answer] if answer.returns_rows else []

    def counts(self) -> dict[str, int]:
        return {table: self.ask(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}

    def uploads(self) -> set[str]:
        return {stored.key for stored in self.deployment.store.list()}

    def pictures(self) -> int:
        return sum(1 for _ in self.results.list())


@pytest.fixture
def laboratory(embedded, tmp_path) -> Iterator[Laboratory]:
    with deployment_on(embedded, tmp_path, settle_s="0") as deployment:
        settings = load(KeepingSettings, **values_of(deployment, Principal.KEEPER))
        with Database(settings.database_url.get_secret_value()) as database:
            keeper = Retention(database, lambda bucket: open_object_store(settings, bucket))
            pictures = open_object_store(deployment.settings, deployment.settings.bucket_results)
            yield Laboratory(deployment, pictures, keeper)


def values_of(deployment: Deployment, principal: Principal) -> dict[str, str]:
    """Return the settings of the principal, by field."""
    wanted = ("database_url", "s3_", "bucket_")
    environment = {
        name.removeprefix("LEUKOFLOW_").lower(): value
        for name, value in deployment.environment_of(principal).items()
    }
    return {name: value for name, value in environment.items() if name.startswith(wanted)}


NOTHING = dict.fromkeys(TABLES, 0)


def test_what_is_old_goes_whole_and_what_is_young_stays_whole(laboratory):
    laboratory.completed("P-1", "old", LONG)
    young = laboratory.completed("P-2", "young", 3)
    before = laboratory.counts()
    retained = laboratory.keeper.delete_expired(MONTH)
    assert (retained.scans, retained.objects, retained.patients, retained.kept) == (1, 2, 1, 0)
    assert laboratory.counts() == {table: count // 2 for table, count in before.items()}
    assert laboratory.uploads() == {"P-2/S-1/young.jpg"}
    assert laboratory.pictures() == 1
    with laboratory.deployment.database.transaction() as connection:
        assert reads.results_of_patient(connection, "P-1") is None
        (slide,) = reads.results_of_patient(connection, "P-2").slides
        assert slide.scan_id == young
        assert len(reads.cells_of_run(connection, slide.run.run_id)) == 3


def test_what_was_deleted_does_not_come_back_and_the_event_log_remembers(laboratory):
    scan_id = laboratory.completed("P-1", "old", LONG)
    laboratory.keeper.delete_expired(MONTH)
    settings = laboratory.deployment.settings
    deployment, queue = laboratory.deployment, CeleryQueue(make_app(settings))
    watcher = Watcher(settings, deployment.database, deployment.store, queue, WatcherMetrics())
    assert watcher.sweep().listed == 0
    assert laboratory.counts() == NOTHING
    kinds = laboratory.ask("SELECT kind, db_user FROM event WHERE scan_id = :s ORDER BY id", scan_id)
    assert kinds[0][0] == "registered"
    assert kinds[-1] == ("deleted", "keeper")


@pytest.mark.parametrize("state", sorted(set(ScanState) - {ScanState.COMPLETED}))
def test_only_scans_that_have_ended_are_deleted_however_old(laboratory, state):
    scan_id = laboratory.upload(None if state is ScanState.UNASSIGNED else "P-1", "content")
    claim = "NULL, claimed_by = NULL, lease_expires_at = NULL"
    if state is ScanState.RUNNING:
        claim = "gen_random_uuid(), claimed_by = 'w', lease_expires_at = now()"
    laboratory.ask(
        f"UPDATE scan SET state = '{state}', reason = 'r', claim_token = {claim} WHERE id = :s", scan_id
    )
    laboratory.age(scan_id, LONG)
    ended = state in (ScanState.QUARANTINED, ScanState.UNASSIGNED)
    assert laboratory.keeper.delete_expired(MONTH).scans == ended
    assert len(laboratory.uploads()) == (not ended)


def test_only_states_that_were_asked_for(laboratory):
    laboratory.completed("P-1", "done", LONG)
    nobodys = laboratory.upload(None, "nobodys", "stray/nobodys.jpg")
    laboratory.age(nobodys, LONG)
    limit = RetentionLimit(MONTH.age, frozenset({ScanState.UNASSIGNED}))
    with laboratory.deployment.database.transaction() as connection:
        assert [(old.state, old.scans) for old in expired_counts(connection, limit)] == [
            (ScanState.UNASSIGNED, 1)
        ]
        assert [(old.results, old.cells) for old in expired_counts(connection, MONTH)] == [(1, 3), (0, 0)]
    assert laboratory.keeper.delete_expired(limit).scans == 1
    assert laboratory.uploads() == {"P-1/S-1/done.jpg"}


def test_pictures_that_a_younger_scan_of_the_same_bytes_shares_stay_until_it_is_old(laboratory):
    old = laboratory.completed("P-1", "same", LONG)
    young = laboratory.completed("P-2", "same", 3)
    laboratory.age(old, LONG)  # that its bytes came again happened to it too
    assert laboratory.pictures() == 1
    assert laboratory.ask("SELECT count(*) FROM scan WHERE same_content_as IS NOT NULL") == [(2,)]
    assert laboratory.keeper.delete_expired(MONTH).objects == 1
    assert laboratory.pictures() == 1
    assert laboratory.ask("SELECT count(*), count(same_content_as) FROM scan") == [(1, 0)]
    laboratory.age(young, LONG)
    laboratory.keeper.delete_expired(MONTH)
    assert laboratory.pictures() == 0
    assert laboratory.counts() == NOTHING


def test_scans_of_the_same_bytes_that_are_all_old_go_together(laboratory):
    for patient in ("P-1", "P-2", "P-3"):
        laboratory.completed(patient, "same", LONG)
    laboratory.ask("UPDATE scan SET updated_at = now() - interval '40 days'")
    assert laboratory.keeper.delete_expired(MONTH).scans == 3
    assert laboratory.pictures() == 0
    assert laboratory.counts() == NOTHING


def test_other_bytes_that_lie_under_the_key_by_now_stay(laboratory):
    laboratory.completed("P-1", "first", LONG, key="P-1/S-1/a.jpg")
    second = laboratory.upload("P-1", "second", key="P-1/S-1/a.jpg")
    laboratory.keeper.delete_expired(MONTH)
    assert laboratory.ask("SELECT id FROM scan") == [(second,)]
    assert laboratory.deployment.store.stat("P-1/S-1/a.jpg").stored.size_bytes == len("second")


def test_many_go_in_batches(laboratory, monkeypatch):
    monkeypatch.setattr(worker.storage.expired_and_orphaned, "BATCH", 2)
    for number in range(5):
        laboratory.completed(f"P-{number}", f"content {number}", LONG + number)
    transactions = []
    lock_expired = worker.storage.expired_and_orphaned.lock_expired
    monkeypatch.setattr(
        worker.storage.expired_and_orphaned,
        "lock_expired",
        lambda *given: transactions.append(lock_expired(*given)) or transactions[-1],
    )
    assert laboratory.keeper.delete_expired(MONTH).scans == 5
    assert [len(batch.scans) for batch in transactions] == [2, 2, 1, 0]
    assert laboratory.counts() == NOTHING


def test_who_dies_between_objects_and_rows_goes_on_next_time(laboratory, monkeypatch):
    laboratory.completed("P-1", "old", LONG)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(worker.storage.expired_and_orphaned, "delete_scans", die)
        with pytest.raises(KeyboardInterrupt):
            laboratory.keeper.delete_expired(MONTH)
    assert laboratory.counts()["scan"] == 1
    assert laboratory.keeper.delete_expired(MONTH).scans == 1
    assert laboratory.counts() == NOTHING


def test_where_the_store_refuses_no_row_is_deleted(laboratory):
    laboratory.completed("P-1", "old", LONG)
    before = laboratory.counts()
    values = {
        **values_of(laboratory.deployment, Principal.KEEPER),
        "s3_access_key": laboratory.deployment.servers.secrets_of(Principal.WATCHER)["s3_access_key"],
        "s3_secret_key": laboratory.deployment.servers.secrets_of(Principal.WATCHER)["s3_secret_key"],
    }
    settings = load(KeepingSettings, **values)
    with Database(settings.database_url.get_secret_value()) as database:
        keeper = Retention(database, lambda bucket: open_object_store(settings, bucket))
        with pytest.raises(DeploymentError):
            keeper.delete_expired(MONTH)
    assert laboratory.counts() == before
    assert len(laboratory.uploads()) == 1


def of_patient_without_scans(laboratory: Laboratory) -> Arrival:
    """Return a new upload of a patient whose last scan was just deleted."""
    laboratory.ask("DELETE FROM scan WHERE id = :s", laboratory.upload("P-1", "last"))
    assert laboratory.counts()["patient"] == 1
    return Arrival(ScanRef("scans", "P-1/S-1/new.jpg", "v", 1, "v"), "new", SpecimenIdentity("P-1", "S-1"))


def until_somebody_waits(laboratory: Laboratory) -> None:
    until_s = monotonic() + 10
    while not laboratory.ask("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'relation'"):
        assert monotonic() < until_s


def test_who_deletes_a_patient_waits_for_who_registers_an_upload_of_theirs(laboratory):
    database, upload = laboratory.deployment.database, of_patient_without_scans(laboratory)

    def delete() -> int:
        with database.transaction() as connection:
            return delete_unreferenced_patients(connection)

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as connection:
            register(connection, upload)
            deleting = pool.submit(delete)
            until_somebody_waits(laboratory)
        assert deleting.result(10) == 0
    assert laboratory.counts()["scan"] == 1


def test_who_registers_an_upload_waits_for_who_deletes_its_patient(laboratory):
    database, upload = laboratory.deployment.database, of_patient_without_scans(laboratory)

    def register_upload() -> None:
        with database.transaction() as connection:
            register(connection, upload)

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as connection:
            assert delete_unreferenced_patients(connection) == 1
            registering = pool.submit(register_upload)
            until_somebody_waits(laboratory)
        registering.result(10)
    assert laboratory.ask("SELECT patient FROM scan_status") == [("P-1",)]


def test_objects_of_no_result_are_swept_and_others_are_not(laboratory):
    laboratory.completed("P-1", "young", 3)
    laboratory.results.put_bytes("runs/gone/overlay.png", b"orphan", "image/png")
    laboratory.results.put_bytes("by-hand/notes.txt", b"a person's", "text/plain")
    bucket = laboratory.deployment.settings.bucket_results
    # One that may still be of a result that is being written.
    assert laboratory.keeper.find_orphans(bucket, timedelta(days=1))[1] == []
    swept, orphans = laboratory.keeper.find_orphans(bucket, timedelta(seconds=-60))
    assert (swept.listed, swept.orphans, swept.orphan_bytes) == (2, 1, 6)
    assert laboratory.keeper.delete_orphans(bucket, orphans) == 1
    assert laboratory.pictures() == 2
    assert laboratory.keeper.delete_orphans(bucket, orphans) == 0


def test_an_orphan_that_is_written_anew_meanwhile_stays(laboratory):
    laboratory.results.put_bytes("runs/again/overlay.png", b"orphan", "image/png")
    bucket = laboratory.deployment.settings.bucket_results
    _, orphans = laboratory.keeper.find_orphans(bucket, timedelta(seconds=-60))
    laboratory.results.put_bytes("runs/again/overlay.png", b"anew", "image/png")
    assert laboratory.keeper.delete_orphans(bucket, orphans) == 0


def command(laboratory: Laboratory, *arguments: str) -> str:
    environment = {
        f"LEUKOFLOW_{n.upper()}": v for n, v in values_of(laboratory.deployment, Principal.KEEPER).items()
    }
    called = CliRunner().invoke(app, list(arguments), env=environment, catch_exceptions=False)
    assert called.exit_code == 0, called.output
    return called.stdout


def test_the_commands_delete_nothing_unless_they_are_told_to(laboratory):
    laboratory.completed("PATIENT-1", "old", LONG)
    laboratory.results.put_bytes("runs/gone/overlay.png", b"orphan", "image/png")
    before = laboratory.counts()
    said = command(laboratory, "retain", "--older-than", "30")
    assert "completed: 1 scan, 0.0 GB of uploads, 1 result, 3 cells" in said
    assert "nothing was deleted" in said
    assert "0 of 2 objects belong to no result" in command(laboratory, "sweep", "--older-than", "1")
    assert (laboratory.counts(), laboratory.pictures()) == (before, 2)
    said += command(laboratory, "retain", "--older-than", "30", "--delete")
    assert "deleted 1 scan with 2 objects, and 1 patient of whom" in said
    assert laboratory.counts() == NOTHING
    assert "there is nothing so old" in command(laboratory, "retain", "--older-than", "30", "--delete")
    assert "PATIENT" not in said


def test_scans_on_their_way_cannot_be_asked_for(laboratory):
    called = CliRunner().invoke(app, ["retain", "--older-than", "30", "--state", "running"])
    assert called.exception.code == "scan_under_way"
    assert laboratory.counts() == NOTHING
