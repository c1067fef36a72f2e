"""The object store, on a real server: nothing is lost, and every failure has its name."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tracemalloc
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.model.errors import DeploymentError, InputError, LeukoflowError, TransientError
from worker.embedded import EmbeddedSet, ServerName
from worker.ingest.identification import Priority, identify, metadata_for, priority_of
from worker.key_pattern import KeyPattern, ScanIdentity
from worker.storage.object_store import ObjectStore, open_object_store

pytestmark = pytest.mark.services
MANY = 2_500
"""more than two of the pages in which a store lists"""
KEYS = (
    "P1/S1/slide.png",
    "Ünï 病理/S 1/slide + & ? # %41.svs",
    "a",
    "a/b",
    "with space/100%/x.tiff",
    "P1/S1/" + "x" * 200 + ".jpg",
)


@pytest.mark.parametrize("key", KEYS)
def test_what_was_put_is_listed_and_read_again(object_store: ObjectStore, key: str) -> None:
    body = key.encode() * 1000
    object_store.put_bytes(key, body, "image/png")
    listed = [stored for stored in object_store.list() if stored.key == key]
    assert [stored.size_bytes for stored in listed] == [len(body)]
    file = io.BytesIO()
    assert object_store.get_to(listed[0], file, len(body)) == hashlib.sha256(body).hexdigest()
    assert file.getvalue() == body


def test_an_object_and_a_folder_of_the_same_name_are_both_listed(object_store: ObjectStore) -> None:
    object_store.put_bytes("both", b"1", "text/plain")
    object_store.put_bytes("both/within", b"2", "text/plain")
    assert {stored.key for stored in object_store.list("both")} == {"both", "both/within"}


def test_an_empty_object_is_listed_and_read(object_store: ObjectStore) -> None:
    object_store.put_bytes("empty.png", b"", "image/png")
    (listed,) = object_store.list("empty.png")
    assert listed.size_bytes == 0
    assert object_store.get_to(listed, io.BytesIO(), 10) == hashlib.sha256(b"").hexdigest()


def test_a_file_is_stored_with_its_metadata(object_store: ObjectStore, tmp_path: Path) -> None:
    scan = tmp_path / "scan.png"
    scan.write_bytes(b"pixels" * 2_000_000)
    metadata = metadata_for("Müller 1%41", "S/é".replace("/", "-"), Priority.STAT)
    object_store.put_file("file/scan.png", scan, "image/png", metadata)
    found = object_store.stat("file/scan.png")
    assert (found.stored.size_bytes, found.content_type) == (12_000_000, "image/png")
    pattern = KeyPattern.parse("<patient>/<specimen>/<slide>.<ext>")
    assert identify("scan.png", found.metadata, pattern) == ScanIdentity("Müller 1%41", "S-é", "scan")
    assert priority_of(found.metadata) is Priority.STAT


def test_stat_and_listing_say_the_same(object_store: ObjectStore) -> None:
    object_store.put_bytes("same/1.png", b"1", "image/png")
    (listed,) = object_store.list("same/")
    stored = object_store.stat("same/1.png").stored
    assert (stored.etag, stored.size_bytes, stored.version) == (
        listed.etag,
        listed.size_bytes,
        listed.version,
    )
    assert abs((stored.last_modified - listed.last_modified).total_seconds()) <= 1


def test_an_object_deleted_between_listing_and_reading(object_store: ObjectStore) -> None:
    object_store.put_bytes("deleted.png", b"1", "image/png")
    (listed,) = object_store.list("deleted.png")
    object_store.remove("deleted.png")
    assert _code_of(lambda: object_store.get_to(listed, io.BytesIO(), 10)) == (InputError, "object_deleted")
    assert _code_of(lambda: object_store.stat("deleted.png")) == (InputError, "object_deleted")
    assert not object_store.exists("deleted.png")


@pytest.mark.parametrize("second", [b"other", b"longer than before", b""])
def test_an_object_replaced_between_listing_and_reading(object_store: ObjectStore, second: bytes) -> None:
    object_store.put_bytes("replaced.png", b"first", "image/png")
    (listed,) = object_store.list("replaced.png")
    object_store.put_bytes("replaced.png", second, "image/png")
    assert _code_of(lambda: object_store.get_to(listed, io.BytesIO(), 100)) == (InputError, "object_changed")
    assert object_store.exists("replaced.png")


def test_more_bytes_than_listed_are_not_written_beyond_them(object_store: ObjectStore) -> None:
    object_store.put_bytes("lying.png", b"12345", "image/png")
    (listed,) = object_store.list("lying.png")
    lying = dataclasses.replace(listed, size_bytes=3)
    file = io.BytesIO()
    assert _code_of(lambda: object_store.get_to(lying, file, 100)) == (InputError, "object_changed")
    assert len(file.getvalue()) <= 3


def test_fewer_bytes_than_listed_are_tried_again(object_store: ObjectStore) -> None:
    object_store.put_bytes("short.png", b"12345", "image/png")
    (listed,) = object_store.list("short.png")
    longer = dataclasses.replace(listed, size_bytes=9)
    assert _code_of(lambda: object_store.get_to(longer, io.BytesIO(), 100))[0] is TransientError


def test_an_object_over_the_limit_is_not_read(object_store: ObjectStore) -> None:
    object_store.put_bytes("large.png", b"12345", "image/png")
    (listed,) = object_store.list("large.png")
    file = io.BytesIO()
    assert _code_of(lambda: object_store.get_to(listed, file, 4)) == (InputError, "object_too_large")
    assert file.getvalue() == b""


@pytest.mark.parametrize("key", ["../secret.png", "P1/../P2/slide.png", "./x.png"])
def test_a_key_that_climbs_is_refused_and_reaches_no_other_object(
    object_store: ObjectStore, key: str
) -> None:
    object_store.put_bytes("P2/slide.png", b"1", "image/png")
    before = {(stored.key, stored.etag) for stored in object_store.list()}
    assert _code_of(lambda: object_store.put_bytes(key, b"2", "image/png"))[0] is InputError
    assert _code_of(lambda: object_store.stat(key))[0] is InputError
    assert {(stored.key, stored.etag) for stored in object_store.list()} == before


def test_a_missing_bucket_is_named_as_that(embedded: EmbeddedSet) -> None:
    store = open_object_store(embedded.settings(), "never-made")
    expected = (DeploymentError, "bucket_missing")
    assert _code_of(lambda: list(store.list())) == expected
    assert _code_of(lambda: store.stat("a")) == expected
    assert _code_of(lambda: store.put_bytes("a", b"1", "text/plain")) == expected


@pytest.mark.parametrize("field", ["s3_access_key", "s3_secret_key"])
def test_wrong_credentials_are_named_as_that(embedded: EmbeddedSet, bucket: str, field: str) -> None:
    wrong = embedded.settings().model_copy(update={field: SecretStr("wrong")})
    store = open_object_store(wrong, bucket)
    expected = (DeploymentError, "store_refused")
    assert _code_of(lambda: list(store.list())) == expected
    assert _code_of(lambda: store.stat("a")) == expected
    assert _code_of(store.ensure_bucket) == expected


def test_a_store_that_is_away_is_tried_again_later_and_then_serves(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    servers = EmbeddedSet(tmp_path_factory.mktemp("away"))
    try:
        servers.start()
        store = open_object_store(servers.settings(), "scans")
        store.ensure_bucket()
        store.put_bytes("a.png", b"1", "image/png")
        servers.kill(ServerName.SEAWEEDFS)
        expected = (TransientError, "store_unreachable")
        assert _code_of(lambda: list(store.list())) == expected
        assert _code_of(lambda: store.stat("a.png")) == expected
        servers.restart(ServerName.SEAWEEDFS)
        assert [stored.key for stored in store.list()] == ["a.png"]
    finally:
        servers.delete_outside()


def test_a_bucket_is_made_once_however_many_ask(embedded: EmbeddedSet) -> None:
    store = open_object_store(embedded.settings(), f"many-{uuid.uuid4().hex}")
    with ThreadPoolExecutor(8) as threads:
        for made in [threads.submit(store.ensure_bucket) for _ in range(8)]:
            made.result()
    assert list(store.list()) == []


@pytest.mark.parametrize("many", [MANY, pytest.param(10_000, marks=pytest.mark.long)])
def test_many_objects_are_listed_completely_in_small_memory(embedded: EmbeddedSet, many: int) -> None:
    store = open_object_store(embedded.settings(), f"large-{uuid.uuid4().hex}")
    store.ensure_bucket()
    keys = [f"P{index % 97}/S{index % 7}/{index:05d}.png" for index in range(many)]
    with ThreadPoolExecutor(16) as threads:
        for _ in threads.map(lambda key: store.put_bytes(key, b"", "image/png"), keys, chunksize=50):
            pass
    tracemalloc.start()
    seen = sum(hash(stored.key) for stored in store.list())
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == sum(hash(key) for key in keys)
    assert peak_bytes < 20 * 2**20


def test_no_error_sentence_holds_the_key(object_store: ObjectStore) -> None:
    for key in ("Meier/../x.png", "Meier/S1/gone.png"):
        with pytest.raises(LeukoflowError) as raised:
            object_store.stat(key)
        assert "Meier" not in raised.value.sentence


def _code_of(call: Callable[[], object]) -> tuple[type[LeukoflowError], str]:
    """Return which of our errors the call raises."""
    with pytest.raises(LeukoflowError) as raised:
        call()
    return type(raised.value), raised.value.code
