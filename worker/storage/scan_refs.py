"""An upload as the object store lists it, and as the ledger names it: converted here, both ways."""

from __future__ import annotations

from db.records import ScanRef
from worker.storage.object_store import StoredObject


def scan_ref_of(bucket: str, stored: StoredObject) -> ScanRef:
    """Return the ledger's reference to an object of the bucket.

    Where the bucket is not versioned, the etag takes the place of the version.
    """
    return ScanRef(
        bucket=bucket,
        object_key=stored.key,
        version=stored.version or stored.etag,
        size_bytes=stored.size_bytes,
        etag=stored.etag,
    )


def stored_object_of(ref: ScanRef) -> StoredObject:
    """Return the object that a reference of the ledger names; its time of writing is unknown."""
    return StoredObject(
        key=ref.object_key,
        etag=ref.etag,
        size_bytes=ref.size_bytes,
        last_modified=None,
        version=None if ref.version == ref.etag else ref.version,
    )
