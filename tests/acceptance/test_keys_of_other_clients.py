"""Keys that the SDK would not send but another client may: in the bucket, hence in the ledger."""

from __future__ import annotations

import base64
import hashlib
import http.client
from datetime import UTC, datetime
from urllib.parse import SplitResult

from minio.credentials import Credentials
from minio.signer import sign_v4_s3

from db.states import ScanState
from tests.acceptance.pictures import field_jpeg
from tests.support.deployment import Deployment


def put_raw(deployment: Deployment, path: str, body: bytes, **extra: str) -> int:
    """PUT to a path exactly as it is written; returns the HTTP status."""
    settings = deployment.settings
    now = datetime.now(UTC)
    digest = hashlib.sha256(body).hexdigest()
    headers = {
        "Host": settings.s3_endpoint,
        "x-amz-content-sha256": digest,
        "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        **{name.replace("_", "-"): value for name, value in extra.items()},
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


def test_keys_with_dots_and_escapes_end_in_the_ledger(deployment: Deployment):
    bodies = {
        "P-8/S-1/%2E%2E/field.jpg": field_jpeg(80),
        "P-8/S-1/a%20b%2Bc%25.jpg": field_jpeg(81),
        "P-8//field.jpg": field_jpeg(82),
        "P-8/S-1/..field.jpg": field_jpeg(83),
    }
    before = sum(deployment.counts().values())
    taken = sum(put_raw(deployment, path, body) == 200 for path, body in bodies.items())
    assert taken >= 3
    listed = sum(1 for _ in deployment.store.list())
    deployment.until_ended(before + taken)
    assert sum(deployment.counts().values()) >= listed
    for row in deployment.rows():
        if row.state in (ScanState.UNASSIGNED, ScanState.QUARANTINED):
            assert row.reason
    assert all(child.is_running() for child in deployment.children)


def test_an_object_that_we_may_not_read_stops_nobody(deployment: Deployment):
    key = hashlib.sha256(b"the scanner's own key").digest()
    encrypted = {
        "x_amz_server_side_encryption_customer_algorithm": "AES256",
        "x_amz_server_side_encryption_customer_key": base64.b64encode(key).decode(),
        "x_amz_server_side_encryption_customer_key_md5": base64.b64encode(
            hashlib.md5(key, usedforsecurity=False).digest()
        ).decode(),
    }
    before = sum(deployment.counts().values())
    assert put_raw(deployment, "P-9/S-1/secret.jpg", field_jpeg(84), **encrypted) == 200
    deployment.drop("P-9/S-1/open.jpg", field_jpeg(85))
    deployment.until_ended(before + 2)
    states = {slide.slide_name: slide.state for slide in deployment.results("P-9").slides}
    assert states == {"secret": ScanState.QUARANTINED, "open": ScanState.COMPLETED}
