"""Keys that the SDK would not send but another client may: in the bucket, hence in the ledger."""

from __future__ import annotations

import hashlib
import http.client
from datetime import UTC, datetime
from urllib.parse import SplitResult

from minio.credentials import Credentials
from minio.signer import sign_v4_s3

from db.states import ScanState
from tests.acceptance.pictures import field_jpeg
from tests.house import House


def put_raw(house: House, path: str, body: bytes) -> int:
    """PUT to a path exactly as it is written; returns the HTTP status."""
    settings = house.settings
    now = datetime.now(UTC)
    digest = hashlib.sha256(body).hexdigest()
    headers = {
        "Host": settings.s3_endpoint,
        "x-amz-content-sha256": digest,
        "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
    }
    target = f"/{settings.bucket_scans}/{path}"
    signed = sign_v4_s3(
        method="PUT",
        url=SplitResult("http", settings.s3_endpoint, target, "", ""),
        region=settings.s3_region,
        headers=headers,
        credentials=Credentials(
            settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value()
        ),
        content_sha256=digest,
        date=now,
    )
    connection = http.client.HTTPConnection(settings.s3_endpoint, timeout=30)
    connection.request("PUT", target, body, {name: str(value) for name, value in signed.items()})
    status = connection.getresponse().status
    connection.close()
    return status


def test_keys_with_dots_and_escapes_end_in_the_ledger(house: House):
    bodies = {
        "P-8/S-1/%2E%2E/field.jpg": field_jpeg(80),
        "P-8/S-1/a%20b%2Bc%25.jpg": field_jpeg(81),
        "P-8//field.jpg": field_jpeg(82),
        "P-8/S-1/..field.jpg": field_jpeg(83),
    }
    before = sum(house.counts().values())
    taken = sum(put_raw(house, path, body) == 200 for path, body in bodies.items())
    assert taken >= 3
    listed = sum(1 for _ in house.store.list())
    house.until_ended(before + taken)
    assert sum(house.counts().values()) >= listed
    for row in house.rows():
        if row.state in (ScanState.UNASSIGNED, ScanState.QUARANTINED):
            assert row.reason
    assert all(child.is_running() for child in house.children)
