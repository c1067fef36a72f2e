"""What each principal may do in the object store, on the real server."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator

import pytest
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from pydantic import SecretStr

from pipeline.model.errors import DeploymentError, InputError
from worker.embedded import EmbeddedSet, Principal
from worker.embedded.policies import Bucket, policy_json
from worker.storage.object_store import ObjectStore, open_object_store

pytestmark = pytest.mark.services

HELD = "P-1/S-1/held.png"
FRESH = "P-1/S-1/fresh.png"
KINDS = ("scans", "results", "others")

# Of the two buckets that leukoflow knows; in any other nobody may do anything.
MAY = {
    Principal.SCANNER: {"scans": {"put"}},
    Principal.WATCHER: {"scans": {"list", "stat", "get"}},
    Principal.WORKER: {"scans": {"list", "stat", "get"}, "results": {"put"}},
    Principal.READER: {"results": {"list", "stat", "get"}},
    Principal.CLERK: {"results": {"list", "stat", "get"}},
    Principal.KEEPER: {
        kind: {"list", "stat", "get", "remove", "remove many"} for kind in ("scans", "results")
    },
}


@pytest.fixture(scope="module")
def buckets(embedded: EmbeddedSet) -> dict[str, str]:
    """Return three buckets by their kind, with an object in each."""
    names = {kind: f"{kind}-{uuid.uuid4().hex}" for kind in KINDS}
    for name in names.values():
        store = open_object_store(embedded.settings(), name)
        store.ensure_bucket()
        store.put_bytes(HELD, b"held", "image/png")
    return names


@pytest.fixture
def client(embedded: EmbeddedSet) -> Callable[[Principal], Minio]:
    """Return a function from a principal to its bare client."""

    def client_of(principal: Principal) -> Minio:
        secrets = embedded.secrets_of(principal)
        return Minio(
            endpoint=embedded.s3_endpoint,
            access_key=secrets["s3_access_key"],
            secret_key=secrets["s3_secret_key"],
            secure=False,
            region="us-east-1",
        )

    return client_of


def store_of(embedded: EmbeddedSet, principal: Principal, bucket: str) -> ObjectStore:
    owner = embedded.settings()
    secrets = embedded.secrets_of(principal)
    changed = {name: SecretStr(secrets[name]) for name in ("s3_access_key", "s3_secret_key")}
    return open_object_store(owner.model_copy(update=changed), bucket)


def attempts(client: Minio, bucket: str) -> Iterator[tuple[str, Callable[[], object]]]:
    def put(key: str, body: bytes, **how: int) -> object:
        how = how or {"length": len(body)}
        return client.put_object(bucket_name=bucket, object_name=key, data=io.BytesIO(body), **how)

    yield "put", lambda: put(FRESH, b"1")
    yield "put in parts", lambda: put(FRESH, b"1" * (6 << 20), length=-1, part_size=5 << 20)
    yield "stat", lambda: client.stat_object(bucket_name=bucket, object_name=HELD)
    yield "get", lambda: client.get_object(bucket_name=bucket, object_name=HELD).close()
    yield "list", lambda: list(client.list_objects(bucket_name=bucket, recursive=True))
    yield "policy", lambda: client.set_bucket_policy(bucket_name=bucket, policy="{}")
    yield "remove the bucket", lambda: client.remove_bucket(bucket_name=bucket)
    yield "make a bucket", lambda: client.make_bucket(bucket_name=f"{bucket[:20]}-{uuid.uuid4().hex}")
    # Last: what is allowed of these leaves the others something to look at.
    yield "remove many", lambda: refused_deletions(client, bucket)
    yield "remove", lambda: client.remove_object(bucket_name=bucket, object_name=FRESH)


def refused_deletions(client: Minio, bucket: str) -> None:
    """Delete as one request of many does; the answer says by object what was refused."""
    for error in client.remove_objects(bucket_name=bucket, delete_object_list=[DeleteObject(FRESH)]):
        assert error.code == "AccessDenied"
        raise S3Error(None, error.code, error.message, None, None, None)


def is_allowed(attempt: Callable[[], object]) -> bool:
    """Return whether the store lets it be done; any other refusal than of access raises."""
    try:
        attempt()
    except S3Error as error:
        if error.code != "AccessDenied":
            raise
        return False
    return True


@pytest.mark.parametrize("principal", list(Principal))
@pytest.mark.parametrize("kind", KINDS)
def test_each_may_do_what_it_needs_and_nothing_else(client, buckets, principal, kind):
    bare = client(principal)
    done = {name for name, attempt in attempts(bare, buckets[kind]) if is_allowed(attempt)}
    expected = MAY[principal].get(kind, set())
    assert done == expected | ({"put in parts"} if "put" in expected else set())


def test_policies_follow_the_names_of_the_buckets():
    names = {Bucket.SCANS: "uploads", Bucket.RESULTS: "uploads-seen"}
    scanner = json.loads(policy_json(Principal.SCANNER, names))["Statement"]
    # No pattern by which the scanner could come to the results.
    assert [line["Resource"] for line in scanner] == [["arn:aws:s3:::uploads", "arn:aws:s3:::uploads/*"]]
    reader = json.loads(policy_json(Principal.READER, names))["Statement"]
    assert "arn:aws:s3:::uploads-seen/*" in reader[0]["Resource"]


def test_nobody_without_a_key_may_do_anything(embedded, buckets):
    anonymous = Minio(endpoint=embedded.s3_endpoint, secure=False, region="us-east-1")
    for kind in KINDS:
        assert [name for name, attempt in attempts(anonymous, buckets[kind]) if is_allowed(attempt)] == []


def test_a_scanner_does_not_even_see_which_buckets_there_are(client, buckets):
    seen = {bucket.name for bucket in client(Principal.SCANNER).list_buckets()}
    assert not seen & set(buckets.values())


def test_a_scan_that_is_gone_is_told_from_one_that_is_refused(embedded, buckets):
    """A worker that could not tell would stop, as one whose rights are wrong, at the first deleted upload."""
    worker = store_of(embedded, Principal.WORKER, buckets["scans"])
    with pytest.raises(InputError) as gone:
        worker.stat("P-1/S-1/never.png")
    assert gone.value.code == "object_deleted"
    with pytest.raises(DeploymentError) as refused:
        store_of(embedded, Principal.WORKER, buckets["results"]).stat(HELD)
    assert refused.value.code == "store_refused"
