"""The object store: one bucket of any S3 server, through the minio SDK."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

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
"""If the bucket itself is accessible, these errors concern one object: encrypted with another key, archived,
or owned by another account."""
_OURS = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing shows it, identified down to its bytes."""

    key: str
    etag: str
    size_bytes: int
    last_modified: datetime | None
    """by the server's clock, UTC; SeaweedFS rounds to seconds; None where it comes from the ledger"""
    version: str | None
    """None where the bucket is not versioned"""


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """An object with its user metadata: names lower-case without `x-amz-meta-`, values as sent."""

    stored: StoredObject
    content_type: str
    metadata: Mapping[str, str]


class ObjectStore:
    """One bucket of an S3 server. Several threads may use it at once.

    Every method may raise TransientError (the store does not answer) and DeploymentError (the bucket is
    missing, or the credentials are refused).
    """

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield every object below the prefix, page by page, in no order that could be relied on.

        Always the full listing: key cursors lose keys on servers that do not sort by bytes.
        """
        with _translated_errors():
            for found in self._client.list_objects(bucket_name=self._bucket, prefix=prefix, recursive=True):
                if found.is_dir and not found.size:
                    continue  # a folder's marker
                yield StoredObject(
                    key=found.object_name,
                    etag=_unquoted(found.etag),
                    size_bytes=found.size or 0,
                    last_modified=found.last_modified,
                    version=_version(found.version_id),
                )

    def stat(self, key: str) -> ObjectStat:
        """Return what is stored under the key now.

        Raises: InputError `object_deleted`, `object_refused`.
        """
        with _translated_errors():
            try:
                found = self._client.stat_object(bucket_name=self._bucket, object_name=key)
            except S3Error as error:
                self._raise_cause(error)
                raise
        return ObjectStat(
            stored=StoredObject(
                key=key,
                etag=_unquoted(found.etag),
                size_bytes=found.size or 0,
                last_modified=_required(found.last_modified),
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
        """Write the listed object to `file`; return the hex sha256 of its bytes.

        Raises: InputError `object_deleted`, `object_changed` (other bytes than those listed),
            `object_too_large`, `object_refused`.
        """
        if listed.size_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        with _translated_errors():
            try:
                response = self._client.get_object(
                    bucket_name=self._bucket,
                    object_name=listed.key,
                    request_headers={"If-Match": f'"{listed.etag}"'},
                    version_id=listed.version,
                )
            except S3Error as error:
                self._raise_cause(error)
                raise
            try:
                if _unquoted(response.headers.get("ETag")) != listed.etag:
                    raise _changed()
                return _copy(response, file, listed.size_bytes)
            finally:
                # Closed without reading the rest: an abandoned download ends here.
                response.close()
                response.release_conn()

    def _raise_cause(self, error: S3Error) -> None:
        """Raise the actual cause where the response does not name it.

        A HEAD has no body: a missing bucket looks like a missing object, and refused credentials look like a
        refused object. Refused access to the bucket raises by itself.
        """
        if error.code not in _GONE | _REFUSED_OBJECT:
            return
        if not self._client.bucket_exists(bucket_name=self._bucket):
            raise _bucket_missing() from error
        if error.code in _REFUSED_OBJECT:
            raise InputError(
                "the object store refuses access to this object", code="object_refused"
            ) from error

    def put_bytes(
        self, key: str, body: bytes, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Store bytes; metadata values are ASCII."""
        with _translated_errors():
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
        """Store a file; metadata values are ASCII."""
        with _translated_errors():
            self._client.fput_object(
                bucket_name=self._bucket,
                object_name=key,
                file_path=str(path),
                content_type=content_type,
                metadata=dict(metadata or {}),
            )

    def remove(self, key: str, version: str | None = None) -> None:
        """Remove the object, or one version of it; nothing happens where there is none."""
        with _translated_errors():
            self._client.remove_object(bucket_name=self._bucket, object_name=key, version_id=version)

    def ensure_bucket(self) -> None:
        """Create the bucket if it does not exist."""
        with _translated_errors():
            if self._client.bucket_exists(bucket_name=self._bucket):
                return
            try:
                self._client.make_bucket(bucket_name=self._bucket)
            except S3Error as error:
                # Another process created it first.
                if error.code not in _OURS:
                    raise


def open_object_store(settings: StoreSettings, bucket: str) -> ObjectStore:
    """Return the store of one bucket. It connects at the first call."""
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
    return ObjectStore(client, bucket)


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
        raise TransientError("the object store sent less than the whole object", code="store_unreachable")
    return digest.hexdigest()


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        raise _error_of(error.code or "") from error
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        if isinstance(getattr(error, "reason", error), urllib3.exceptions.SSLError):
            raise DeploymentError(
                "the object store has a certificate that is not trusted (LEUKOFLOW_CA_CERTIFICATES)",
                code="store_untrusted",
            ) from error
        raise TransientError(
            "the object store did not respond as expected", code="store_unreachable"
        ) from error
    except ValueError as error:
        # The SDK checks names itself: it does not send a key with `..` in it, for example.
        raise InputError("the object's key is not valid in S3", code="object_key_invalid") from error


def _error_of(s3_code: str) -> LeukoflowError:
    if s3_code in _GONE:
        return InputError("the object was deleted before it was read", code="object_deleted")
    if s3_code in _CHANGED:
        return _changed()
    if s3_code == "NoSuchBucket":
        return _bucket_missing()
    if s3_code in _REFUSED:
        return DeploymentError(f"the object store refuses access: {s3_code}", code="store_refused")
    return TransientError(f"the object store failed: {s3_code}", code="store_failed")


def _changed() -> InputError:
    return InputError("the object was replaced before it was read", code="object_changed")


def _bucket_missing() -> DeploymentError:
    return DeploymentError("the bucket does not exist", code="bucket_missing")


def _too_large(limit_bytes: int) -> InputError:
    return InputError(f"the object is larger than the {limit_bytes} bytes allowed", code="object_too_large")


def _unquoted(etag: str | None) -> str:
    return (etag or "").strip('"')


def _version(version_id: str | None) -> str | None:
    return None if version_id in (None, "", "null") else version_id


def _required(last_modified: datetime | None) -> datetime:
    if last_modified is None:
        raise TransientError(
            "the object store did not say when an object was written", code="store_unreachable"
        )
    return last_modified


def _user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    prefix = "x-amz-meta-"
    return {
        name.lower().removeprefix(prefix): value
        for name, value in headers.items()
        if name.lower().startswith(prefix)
    }
