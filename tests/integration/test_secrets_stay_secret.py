"""No secret in `ps`, in an environment, in a log or in an error, when all goes well and when it does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import psutil
import pytest

from db.database import Database
from db.reads import counts_by_state
from db.states import ScanState
from tests.acceptance.pictures import field_jpeg
from tests.support.deployment import Deployment, deployment_on
from worker.embedded import EmbeddedSet, Principal
from worker.embedded.child_process import wait_for
from worker.embedded.leukoflow_processes import running_leukoflow, start_process
from worker.storage.object_store import open_object_store

SECRETS = ("database_url", "broker_url", "s3_access_key", "s3_secret_key")
# What tears a URL apart where nobody quoted it.
AWKWARD = "hidden/p@ss:w#rd?%zz"


@pytest.fixture(scope="module")
def deployment(embedded, tmp_path_factory) -> Iterator[Deployment]:
    """Return a deployment with a scan whose message is always due, so that a watcher talks to everybody."""
    with deployment_on(embedded, tmp_path_factory.mktemp("deployment"), resend_after_s="0.1") as deployment:
        deployment.drop("P-1/S-1/a.jpg", b"1")
        yield deployment


def secrets_of(servers: EmbeddedSet) -> set[str]:
    """Return every password and key of the set, its owner's and each principal's."""
    known = [servers.secrets_of(principal) for principal in (None, *Principal)]
    return {
        str(urlsplit(value).password) if name.endswith("_url") else value
        for secrets in known
        for name, value in secrets.items()
    }


def told_in(texts: dict[str, str], secrets: set[str]) -> list[str]:
    return [place for place, text in texts.items() if any(secret in text for secret in secrets)]


def processes() -> Iterator[psutil.Process]:
    mine = psutil.Process()
    return iter([mine, *mine.children(recursive=True)])


def test_command_lines_environments_and_logs_of_a_set_at_work(tmp_path: Path) -> None:
    servers = EmbeddedSet(tmp_path)
    try:
        servers.start()
        with running_leukoflow(servers) as children, Database(servers.database_url) as database:
            store = open_object_store(servers.settings(), "scans")
            store.put_bytes("P-1/S-1/a.jpg", field_jpeg(40), "image/jpeg")

            def is_done() -> bool:
                with database.transaction() as connection:
                    return counts_by_state(connection)[ScanState.COMPLETED] == 1

            assert wait_for(is_done, 120)
            seen = {f"{one.pid} {one.name()}": one for one in processes()}
            assert {child.pid for child in children} < {one.pid for one in seen.values()}
            secrets = secrets_of(servers)
            # The broker's one password, six logins of PostgreSQL, seven pairs of keys.
            assert len(secrets) == 1 + 6 + 7 * 2
            commands = {place: "\0".join(one.cmdline()) for place, one in seen.items()}
            environments = {place: "\0".join(one.environ().values()) for place, one in seen.items()}
        logs = {path.name: path.read_text(errors="replace") for path in (tmp_path / "logs").iterdir()}
        assert {"watch.log", "worker.log", "postgres.log", "valkey.log", "seaweedfs.log"} <= set(logs)
        assert told_in(commands, secrets) == []
        assert told_in(environments, secrets) == []
        assert told_in(logs, secrets) == []
        # The search finds what is there to be found.
        files = {str(path): path.read_text() for path in (tmp_path / "secrets").rglob("*") if path.is_file()}
        assert len(told_in(files, secrets)) == len(files)
    finally:
        servers.delete_outside()


def wrong(deployment: Deployment, name: str, secret: str) -> dict[str, str]:
    """Return the settings of a process one of whose secrets is not the right one."""
    values = {field: getattr(deployment.settings, field).get_secret_value() for field in SECRETS}
    if name.endswith("_url"):
        parts = urlsplit(values[name])
        address = parts.netloc.rpartition("@")[2]
        values[name] = urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{secret}@{address}"))
    else:
        values[name] = secret
    return values


def written_with(
    deployment: Deployment, folder: Path, secrets: dict[str, str], command: str, log: Path
) -> str:
    """Return what the process says that runs with these secrets until it has something to say."""
    (folder / "secrets").mkdir(exist_ok=True)
    for name, value in secrets.items():
        (folder / "secrets" / name).write_text(value)
    environment = {
        name: value
        for name, value in deployment.environment.items()
        if name not in {f"LEUKOFLOW_{secret.upper()}" for secret in SECRETS}
    }
    environment["LEUKOFLOW_SECRETS_DIR"] = str(folder / "secrets")
    child = start_process(command, environment, folder, log)
    telling = (b"leukoflow: ", b'"warning"', b'"error"', b'"critical"', b"Traceback")
    try:
        assert wait_for(lambda: any(word in child.written() for word in telling), 60)
    finally:
        child.ask_to_stop()
        child.wait(10)
    return child.written().decode(errors="replace")


# A worker comes to the store with its first scan only.
@pytest.mark.parametrize(
    ("command", "name"),
    [*(("watch", name) for name in SECRETS), ("worker", "database_url"), ("worker", "broker_url")],
)
def test_a_wrong_secret_is_not_told_by_who_was_refused(deployment, tmp_path, command, name):
    secrets = wrong(deployment, name, "hidden-and-wrong")
    said = written_with(deployment, tmp_path, secrets, command, tmp_path / "log")
    assert said
    assert told_in({"log": said}, {"hidden", *secrets_of(deployment.servers)}) == []


@pytest.mark.parametrize("name", ["database_url", "broker_url"])
@pytest.mark.parametrize("secret", [AWKWARD, quote(AWKWARD, safe="")], ids=["as it is", "quoted"])
def test_an_awkward_password_is_not_told(deployment, tmp_path, name, secret):
    said = written_with(deployment, tmp_path, wrong(deployment, name, secret), "watch", tmp_path / "log")
    assert said
    assert told_in({"log": said}, {"hidden", "p@ss", "w#rd", "ss:w"}) == []


def test_a_person_gets_one_line_without_the_password(deployment):
    url = wrong(deployment, "database_url", AWKWARD)["database_url"]
    ended = subprocess.run(
        [sys.executable, "-m", "worker", "scans"],
        env={**deployment.environment, "LEUKOFLOW_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode in (2, 75, 78)
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert told_in({"stderr": ended.stderr}, {"hidden", "p@ss", "w#rd", "ss:w"}) == []
