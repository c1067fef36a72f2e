"""The keeper: deletes old scans, object by object and row by row, and objects that belong to nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from db.database import Database
from db.reanalysis import moment_of
from db.retention import START, Batch, Limit, OldScan, delete_people, delete_scans, take_old, unknown_objects
from pipeline.model.errors import InputError
from worker.storage.object_store import ObjectStore, StoredObject
from worker.storage.paging import pages
from worker.storage.scan_refs import stored_object_of

BATCH = 20
"""Scans that are deleted in one transaction: some ten thousand cells each."""
CLOCK_STEP = timedelta(seconds=1)
"""Listings of some servers round to it."""
ARTEFACTS = "runs/"
"""Below it a worker stores the objects of results; nothing else in the bucket is ours to delete."""


@dataclass(frozen=True, slots=True)
class Retained:
    """What came of deleting."""

    scans: int
    objects: int
    patients: int
    kept: int
    """scans whose upload the store does not let us remove: without their row they would come back as new"""


@dataclass(frozen=True, slots=True)
class Swept:
    """What lies in the results bucket."""

    listed: int
    orphans: int
    """objects that belong to no result, and are old enough not to be of one that is being written"""
    orphan_bytes: int


class Retention:
    """Keeps house in one ledger and its buckets."""

    def __init__(self, database: Database, store_of: Callable[[str], ObjectStore]) -> None:
        self._database = database
        self._store_of = store_of

    def retain(self, limit: Limit) -> Retained:
        """Return what was deleted: every scan that is old, with its upload and its results."""
        scans = objects = kept = 0
        batch = Batch((), START)
        while batch.end is not None:
            with self._database.transaction() as connection:
                batch = take_old(connection, limit, batch.end, BATCH)
                gone = [scan for scan in batch.scans if self._removed(scan)]
                delete_scans(connection, gone)
            scans += len(gone)
            objects += sum(1 + len(scan.artefacts) for scan in gone)
            kept += len(batch.scans) - len(gone)
        with self._database.transaction() as connection:
            patients = delete_people(connection)
        return Retained(scans, objects, patients, kept)

    def orphans(self, bucket: str, age: timedelta) -> tuple[Swept, list[StoredObject]]:
        """Return what lies in the bucket of results, and which of it belongs to none."""
        with self._database.transaction() as connection:
            before = moment_of(connection) - age
        store = self._store_of(bucket)
        listed = 0
        found: list[StoredObject] = []
        for page in pages(store.list(ARTEFACTS)):
            listed += len(page)
            old = {stored.key: stored for stored in page if _is_before(stored, before)}
            with self._database.transaction() as connection:
                found += [old[name] for name in unknown_objects(connection, bucket, list(old))]
        return Swept(listed, len(found), sum(stored.size_bytes for stored in found)), found

    def sweep(self, bucket: str, orphans: Iterable[StoredObject]) -> int:
        """Return how many of the orphans were removed; what was written anew meanwhile stays."""
        store = self._store_of(bucket)
        return sum(_removed_as_listed(store, stored) for stored in orphans)

    def _removed(self, scan: OldScan) -> bool:
        """Return whether the scan's objects are gone: its upload, then those of its results."""
        try:
            _removed_as_listed(self._store_of(scan.ref.bucket), stored_object_of(scan.ref))
        except InputError:
            return False
        for bucket, name in scan.artefacts:
            self._store_of(bucket).remove(name)
        return True


def _removed_as_listed(store: ObjectStore, listed: StoredObject) -> bool:
    """Return whether the object was removed: not where it is gone already or other bytes lie there now."""
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
