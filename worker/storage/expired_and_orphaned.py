"""Deletes expired scans with their objects and rows, and objects that belong to no result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from db.database import Database
from db.reanalysis import database_time
from db.retention import (
    START,
    ExpiredBatch,
    ExpiredScan,
    RetentionLimit,
    delete_scans,
    delete_unreferenced_patients,
    lock_expired,
    orphaned_objects,
)
from pipeline.model.errors import InputError
from worker.storage.object_store import ObjectStore, StoredObject
from worker.storage.paging import pages
from worker.storage.scan_refs import stored_object_of

BATCH = 20
"""Scans deleted in one transaction; a scan has some ten thousand cells."""
CLOCK_STEP = timedelta(seconds=1)
"""Some servers round the times in listings to whole seconds."""
ARTEFACTS = "runs/"
"""The prefix of the objects that workers store; nothing else in the bucket is deleted."""


@dataclass(frozen=True, slots=True)
class DeletionCounts:
    """What was deleted."""

    scans: int
    objects: int
    patients: int
    kept: int
    """scans kept because the store refuses to delete their upload; without its row it would be registered
    again"""


@dataclass(frozen=True, slots=True)
class OrphanCounts:
    """How many objects of the results bucket belong to no result."""

    listed: int
    orphans: int
    """objects of no result, and too old to be part of one that is being written"""
    orphan_bytes: int


class Retention:
    """Deletes what is expired or orphaned in one ledger and its buckets."""

    def __init__(self, database: Database, store_of: Callable[[str], ObjectStore]) -> None:
        self._database = database
        self._store_of = store_of

    def delete_expired(self, limit: RetentionLimit) -> DeletionCounts:
        """Delete every expired scan with its upload and its results; return the counts."""
        scans = objects = kept = 0
        batch = ExpiredBatch((), START)
        while batch.end is not None:
            with self._database.transaction() as connection:
                batch = lock_expired(connection, limit, batch.end, BATCH)
                gone = [scan for scan in batch.scans if self._removed(scan)]
                delete_scans(connection, gone)
            scans += len(gone)
            objects += sum(1 + len(scan.artefacts) for scan in gone)
            kept += len(batch.scans) - len(gone)
        with self._database.transaction() as connection:
            patients = delete_unreferenced_patients(connection)
        return DeletionCounts(scans, objects, patients, kept)

    def find_orphans(self, bucket: str, age: timedelta) -> tuple[OrphanCounts, list[StoredObject]]:
        """Return the counts, and the objects of the results bucket that belong to no result."""
        with self._database.transaction() as connection:
            before = database_time(connection) - age
        store = self._store_of(bucket)
        listed = 0
        found: list[StoredObject] = []
        for page in pages(store.list(ARTEFACTS)):
            listed += len(page)
            old = {stored.key: stored for stored in page if _is_before(stored, before)}
            with self._database.transaction() as connection:
                found += [old[name] for name in orphaned_objects(connection, bucket, list(old))]
        return OrphanCounts(listed, len(found), sum(stored.size_bytes for stored in found)), found

    def delete_orphans(self, bucket: str, orphans: Iterable[StoredObject]) -> int:
        """Delete the orphans that were not rewritten since; return their number."""
        store = self._store_of(bucket)
        return sum(_removed_as_listed(store, stored) for stored in orphans)

    def _removed(self, scan: ExpiredScan) -> bool:
        """Remove the scan's upload, then the objects of its results; return False where the store refuses."""
        try:
            _removed_as_listed(self._store_of(scan.ref.bucket), stored_object_of(scan.ref))
        except InputError:
            return False
        for bucket, name in scan.artefacts:
            self._store_of(bucket).remove(name)
        return True


def _removed_as_listed(store: ObjectStore, listed: StoredObject) -> bool:
    """Return whether the object was removed; not if it is missing, or was rewritten since it was listed."""
    if listed.version is not None:
        store.remove(listed.key, listed.version)
        return True
    try:
        stored = store.stat(listed.key).stored
    except InputError as error:
        if error.code == "object_deleted":
            return False
        raise
    if stored.etag != listed.etag or _is_later(stored, listed):
        return False
    store.remove(listed.key)
    return True


def _is_later(stored: StoredObject, listed: StoredObject) -> bool:
    if stored.last_modified is None or listed.last_modified is None:
        return False
    return stored.last_modified - listed.last_modified > CLOCK_STEP


def _is_before(stored: StoredObject, moment: datetime) -> bool:
    return stored.last_modified is not None and stored.last_modified < moment
