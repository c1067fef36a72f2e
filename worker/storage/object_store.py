"""The object store behind a Protocol, and its adapter over the minio SDK, which speaks to any S3 server."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from pipeline.model.errors import DeploymentError, InputError, LeukoflowError, TransientError
from worker.settings import StoreSettings

CHUNK_BYTES = 256 * 1024
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
RETRIES = 2
BACKOFF_S = 0.1
MAX_CONNECTIONS = 32

_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "ResourceNotFound"})
_CHANGED = frozenset({"PreconditionFailed"})
_REFUSED = frozenset(
    {
        "AccessDenied",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "AuthorizationHeaderMalformed",
        "InvalidTokenId",
        "ExpiredToken",
        "RequestTimeTooSkewed",
        "AllAccessDisabled",
        "InvalidBucketName",
    }
)
_REFUSED_OBJECT = frozenset(
    {"AccessDenied", "BadRequest", "InvalidRequest", "InvalidArgument", "MethodNotAllowed"}
)
"""Said of one object while its bucket answers, they are about the object: encrypted with a key that is not
ours, archived, of another owner."""
_OURS = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One line of a listing: which bytes are meant."""

    key: str
    etag: str
    size_bytes: int
    last_modified: datetime | None
    """by the server's clock, UTC; SeaweedFS rounds to seconds; None where only the ledger remembers it"""
    version: str | None
    """None where the bucket is not versioned"""


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """An object with its user metadata: names lower-case without `x-amz-meta-`, values as sent."""

    stored: StoredObject
    content_type: str
    metadata: Mapping[str, str]


class ObjectStore(Protocol):
    """One bucket.

    Every method may raise TransientError (store away), and DeploymentError (bucket missing, credentials
    refused).
    """

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield every object below the prefix, page by page, in no order that could be relied on.

        Always the full listing: key cursors lose keys on servers that do not sort by bytes.
        """
        ...

    def stat(self, key: str) -> ObjectStat:
        """Return what is stored under the key now.

        Raises: InputError `object_deleted`, `object_refused`.
        """
        ...

    def exists(self, key: str) -> bool: ...

    def get_to(self, listed: StoredObject, file: IO[bytes], limit_bytes: int) -> str:
        """Write the listed object to `file`; return the hex sha256 of its bytes.

        Raises: InputError `object_deleted`, `object_changed` (other bytes than those listed),
            `object_too_large`, `object_refused`.
        """
        ...

    def put_bytes(
        self, key: str, body: bytes, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Store bytes; metadata values are ASCII."""
        ...

    def put_file(
        self, key: str, path: Path, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Store a file; metadata values are ASCII."""
        ...

    def remove(self, key: str, version: str | None = None) -> None:
        """Remove the object, or one version of it; nothing happens where there is none."""
        ...

    def ensure_bucket(self) -> None:
        """Make the bucket, where it is not there."""
        ...


class MinioObjectStore:
    """An `ObjectStore` over the minio SDK."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield every object below the prefix. See `ObjectStore`."""
        with _translating():
            for found in self._client.list_objects(bucket_name=self._bucket, prefix=prefix, recursive=True):
                if found.is_dir and not found.size:
                    continue  # a folder's marker
                yield StoredObject(
                    key=found.object_name,
                    etag=_bare(found.etag),
                    size_bytes=found.size or 0,
                    last_modified=found.last_modified,
                    version=_version(found.version_id),
                )

    def stat(self, key: str) -> ObjectStat:
        """Return what is stored under the key. See `ObjectStore`."""
        with _translating():
            try:
                found = self._client.stat_object(bucket_name=self._bucket, object_name=key)
            except S3Error as error:
                self._blame(error)
                raise
        return ObjectStat(
            stored=StoredObject(
                key=key,
                etag=_bare(found.etag),
                size_bytes=found.size or 0,
                last_modified=_told(found.last_modified),
                version=_version(found.version_id),
            ),
            content_type=found.content_type or "",
            metadata=_user_metadata(found.metadata or {}),
        )

    def exists(self, key: str) -> bool:
        """Return whether an object is stored under the key."""
        try:
            self.stat(key)
        except InputError as error:
            if error.code == "object_deleted":
                return False
            raise
        return True

    def get_to(self, listed: StoredObject, file: IO[bytes], limit_bytes: int) -> str:
        """Write the listed object to `file`. See `ObjectStore`."""
        if listed.size_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        with _translating():
            try:
                response = self._client.get_object(
                    bucket_name=self._bucket,
                    object_name=listed.key,
                    request_headers={"If-Match": f'"{listed.etag}"'},
                    version_id=listed.version,
                )
            except S3Error as error:
                self._blame(error)
                raise
            try:
                if _bare(response.headers.get("ETag")) != listed.etag:
                    raise _changed()
                return _copy(response, file, listed.size_bytes)
            finally:
                # Closed, not drained: what is left of an abandoned object stays on the server.
                response.close()
                response.release_conn()

    def _blame(self, error: S3Error) -> None:
        """Raise what is really wrong, where the answer does not say.

        A HEAD has no body: a missing bucket looks like a missing object, refused credentials like a refused
        object. A refused look at the bucket raises by itself.
        """
        if error.code not in _GONE | _REFUSED_OBJECT:
            return
        if not self._client.bucket_exists(bucket_name=self._bucket):
            raise _bucket_missing() from error
        if error.code in _REFUSED_OBJECT:
            raise InputError(
                "the object store does not let us read this object", code="object_refused"
            ) from error

    def put_bytes(
        self, key: str, body: bytes, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Store bytes."""
        with _translating():
            self._client.put_object(
                bucket_name=self._bucket,
                object_name=key,
                data=io.BytesIO(body),
                length=len(body),
                content_type=content_type,
                metadata=dict(metadata or {}),
            )

    def put_file(
        self, key: str, path: Path, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Store a file."""
        with _translating():
            self._client.fput_object(
                bucket_name=self._bucket,
                object_name=key,
                file_path=str(path),
                content_type=content_type,
                metadata=dict(metadata or {}),
            )

    def remove(self, key: str, version: str | None = None) -> None:
        """Remove the object, or one version of it."""
        with _translating():
            self._client.remove_object(bucket_name=self._bucket, object_name=key, version_id=version)

    def ensure_bucket(self) -> None:
        """Make the bucket, where it is not there."""
        with _translating():
            if self._client.bucket_exists(bucket_name=self._bucket):
                return
            try:
                self._client.make_bucket(bucket_name=self._bucket)
            except S3Error as error:
                # Somebody was faster.
                if error.code not in _OURS:
                    raise


def open_object_store(settings: StoreSettings, bucket: str) -> MinioObjectStore:
    """Return the store of one bucket. Connects at the first call, and may be used from several threads."""
    pool = urllib3.PoolManager(
        maxsize=MAX_CONNECTIONS,
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
        retries=urllib3.Retry(
            total=RETRIES,
            backoff_factor=BACKOFF_S,
            backoff_jitter=BACKOFF_S,
            status_forcelist=[500, 502, 503, 504],
        ),
        cert_reqs="CERT_REQUIRED",
        ca_certs=str(settings.ca_certificates) if settings.ca_certificates else None,
    )
    client = Minio(
        endpoint=settings.s3_endpoint,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=settings.s3_secure,
        region=settings.s3_region,
        http_client=pool,
    )
    return MinioObjectStore(client, bucket)


def _copy(response: urllib3.BaseHTTPResponse, file: IO[bytes], size_bytes: int) -> str:
    digest = hashlib.sha256()
    copied_bytes = 0
    for chunk in response.stream(CHUNK_BYTES, decode_content=False):
        copied_bytes += len(chunk)
        if copied_bytes > size_bytes:
            raise _changed()
        digest.update(chunk)
        file.write(chunk)
    if copied_bytes != size_bytes:
        raise TransientError("the object store ended an object early", code="store_unreachable")
    return digest.hexdigest()


@contextlib.contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        raise _named(error.code or "") from error
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        if isinstance(getattr(error, "reason", error), urllib3.exceptions.SSLError):
            raise DeploymentError(
                "the object store shows no certificate that we trust (LEUKOFLOW_CA_CERTIFICATES)",
                code="store_untrusted",
            ) from error
        raise TransientError(
            "the object store did not answer as it should", code="store_unreachable"
        ) from error
    except ValueError as error:
        # The SDK's own checks of names, such as a key with a `..` in it, which it will not send.
        raise InputError("the object's key cannot be asked for", code="object_key_invalid") from error


def _named(s3_code: str) -> LeukoflowError:
    if s3_code in _GONE:
        return InputError("the object was deleted before it was read", code="object_deleted")
    if s3_code in _CHANGED:
        return _changed()
    if s3_code == "NoSuchBucket":
        return _bucket_missing()
    if s3_code in _REFUSED:
        return DeploymentError(f"the object store refuses our access: {s3_code}", code="store_refused")
    return TransientError(f"the object store failed: {s3_code}", code="store_failed")


def _changed() -> InputError:
    return InputError("the object was replaced before it was read", code="object_changed")


def _bucket_missing() -> DeploymentError:
    return DeploymentError("the bucket does not exist", code="bucket_missing")


def _too_large(limit_bytes: int) -> InputError:
    return InputError(f"the object is larger than the {limit_bytes} bytes allowed", code="object_too_large")


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')


def _version(version_id: str | None) -> str | None:
    return None if version_id in (None, "", "null") else version_id


def _told(last_modified: datetime | None) -> datetime:
    if last_modified is None:
        raise TransientError("the object store left out when an object was written", code="store_unreachable")
    return last_modified


def _user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    prefix = "x-amz-meta-"
    return {
        name.lower().removeprefix(prefix): value
        for name, value in headers.items()
        if name.lower().startswith(prefix)
    }
