"""What tests share: the embedded set, and fresh places on it. Real servers, started once a session."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from redis import Redis

from tests.support.drawn_pack import small_pack  # noqa: F401 - pytest takes it from here
from tests.support.file_order import pytest_collection_modifyitems  # noqa: F401 - likewise
from tests.support.log_check import no_log_names_a_patient  # noqa: F401 - likewise
from worker.embedded import EmbeddedSet
from worker.storage.object_store import ObjectStore, open_object_store

# Database 0 stays empty: it is what a forgotten setting would write to.
_BROKER_DATABASES = cycle(range(1, 256))


def pytest_collection_finish() -> None:
    """What was imported by now stays: the garbage collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSet]:
    """Return a running embedded set. Tests that stop or kill servers start their own."""
    servers = EmbeddedSet(tmp_path_factory.mktemp("embedded"))
    try:
        servers.start()
        yield servers
    finally:
        servers.delete_outside()


@pytest.fixture(scope="module")
def database_url(embedded: EmbeddedSet) -> Iterator[str]:
    """Return the SQLAlchemy URL of an empty database, dropped after the module. No migrations applied."""
    name = f"test_{uuid.uuid4().hex}"
    parts = urlsplit(embedded.database_url)
    server = urlunsplit(parts._replace(scheme="postgresql"))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield urlunsplit(parts._replace(path=f"/{name}"))
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def broker_url(embedded: EmbeddedSet) -> Iterator[str]:
    """Return the URL of an empty broker database, emptied again after the module."""
    url = urlunsplit(urlsplit(embedded.broker_url)._replace(path=f"/{next(_BROKER_DATABASES)}"))
    client = Redis.from_url(url)
    client.flushdb()
    yield url
    client.flushdb()
    client.close()


@pytest.fixture(scope="module")
def bucket(embedded: EmbeddedSet) -> str:
    """Return the name of an empty bucket."""
    name = f"test-{uuid.uuid4().hex}"
    open_object_store(embedded.settings(), name).ensure_bucket()
    return name


@pytest.fixture(scope="module")
def object_store(embedded: EmbeddedSet, bucket: str) -> ObjectStore:
    """Return a store bound to `bucket`."""
    return open_object_store(embedded.settings(), bucket)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real scans beside the repository; skips the test where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return folder
