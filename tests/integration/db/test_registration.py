"""Uploads become rows once; what names no patient waits for a person."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from made_results import arrival, claimed, registered

from db import reads, registration
from db.records import ScanFilter, SpecimenIdentity
from db.states import Priority, ScanState
from pipeline.model.errors import UsageError
from tests.support.one_upload import register

pytestmark = pytest.mark.services


def test_the_same_upload_is_one_row(database):
    upload = arrival(key="a", version="v1")
    with database.transaction() as connection:
        first = register(connection, upload)
        assert first.state is ScanState.RECEIVED
        assert register(connection, upload) is None
        assert register(connection, arrival(key="a", version="v2")) is not None
        assert len(reads.scans(connection, ScanFilter())) == 2


def test_the_same_upload_twice_in_one_batch_is_one_row(database):
    upload = arrival(key="a")
    with database.transaction() as connection:
        assert len(registration.register_many(connection, [upload, upload])) == 1


def test_an_upload_without_a_patient_waits_with_its_reason_until_it_is_assigned(database, rows):
    (scan_id,) = registered(database, arrival(patient=None))
    with database.transaction() as connection:
        (row,) = reads.scans(connection, ScanFilter(state=ScanState.UNASSIGNED))
        assert (row.scan_id, row.reason, row.patient) == (scan_id, "the key has no folders", None)
        with pytest.raises(UsageError, match="assign"):
            registration.requeue(connection, scan_id)
        assert registration.assign(connection, scan_id, SpecimenIdentity("P9", "S9")) is ScanState.RECEIVED
        (row,) = reads.scans(connection, ScanFilter(patient="P9"))
    assert (row.scan_id, row.state, row.specimen, row.reason) == (scan_id, ScanState.RECEIVED, "S9", None)
    assert rows("SELECT kind FROM event WHERE scan_id = :scan ORDER BY id", scan=scan_id) == [
        ("registered",),
        ("assigned",),
    ]


def test_a_mislabelled_scan_goes_to_its_patient_and_keeps_its_state(database):
    (scan_id,) = registered(database, arrival("P1"))
    with database.transaction() as connection:
        assert registration.assign(connection, scan_id, SpecimenIdentity("P2", "S1")) is ScanState.RECEIVED
        assert reads.scans(connection, ScanFilter(patient="P1")) == []
        assert [row.scan_id for row in reads.scans(connection, ScanFilter(patient="P2"))] == [scan_id]


def test_a_scan_that_is_not_there_is_the_persons_mistake(database):
    with database.transaction() as connection:
        for ask in (
            lambda: registration.assign(connection, uuid.uuid4(), SpecimenIdentity("P", "S")),
            lambda: registration.requeue(connection, uuid.uuid4()),
            lambda: reads.find_scan(connection, "ffffffff-dead"),
            lambda: reads.find_scan(connection, ""),
        ):
            with pytest.raises(UsageError):
                ask()


def test_a_scan_is_found_by_the_start_of_its_id_when_that_is_enough(database):
    first, _second = registered(database, arrival(), arrival())
    with database.transaction() as connection:
        assert reads.find_scan(connection, str(first).upper()) == first
        with pytest.raises(UsageError, match="more than one"):
            reads.find_scan(connection, str(first)[:4])


def test_a_scan_on_its_way_cannot_be_requeued(database):
    (scan_id,) = registered(database, arrival())
    claimed(database, scan_id)
    with pytest.raises(UsageError, match="running"), database.transaction() as connection:
        registration.requeue(connection, scan_id)


def test_ten_thousand_new_uploads_take_a_few_seconds_and_the_next_sweep_finds_none(database, rows):
    uploads = [
        arrival(f"P{number % 700}", f"S{number % 1400}", key=f"k/{number}", version=f"{number:032x}")
        for number in range(10_000)
    ]
    start = time.perf_counter()
    with database.transaction() as connection:
        assert len(registration.unregistered(connection, [upload.ref for upload in uploads])) == 10_000
        assert len(registration.register_many(connection, uploads)) == 10_000
    assert time.perf_counter() - start < 10.0
    with database.transaction() as connection:
        newcomer = arrival(key="k/new")
        seen = [*(upload.ref for upload in uploads[:6000]), newcomer.ref, *(u.ref for u in uploads[6000:])]
        assert registration.unregistered(connection, seen) == [newcomer.ref]
        assert registration.register_many(connection, uploads) == []
        assert sum(reads.counts_by_state(connection).values()) == 10_000
    assert rows("SELECT count(*) FROM patient") == [(700,)]
    assert rows("SELECT count(*) FROM specimen") == [(1400,)]


def test_two_watchers_that_see_the_same_uploads_register_each_once(database):
    uploads = [arrival(f"P{number % 50}", f"S{number}", key=f"k{number}") for number in range(400)]

    def watch(order):
        with database.transaction() as connection:
            return len(registration.register_many(connection, order))

    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(watch, [uploads, uploads[::-1]]))
    assert sum(counts) == 400


def test_the_listing_names_priority_and_obeys_its_limit(database):
    registered(database, arrival(priority=Priority.STAT), arrival(), arrival())
    with database.transaction() as connection:
        listed = reads.scans(connection, ScanFilter(limit=2))
    assert [row.priority for row in listed] == [Priority.STAT, Priority.ROUTINE]
