"""Child processes that end with their parent, write to a log file and lock their folder."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.model.errors import DeploymentError
from worker.embedded.free_ports import PortAllocation, PortTaken

PR_SET_PDEATHSIG = 1
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0
POLL_S = 0.02
_PORT_TAKEN = re.compile(rb"address already in use|is not available on 127\.0\.0\.1", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Account:
    """A system account that a child runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How a child is started. Nothing secret belongs in `command`: every user of the machine reads it."""

    name: str
    command: tuple[str, ...]
    folder: Path
    """working directory and HOME of the child"""
    log_path: Path
    stop_signal: signal.Signals
    death_signal: signal.Signals
    """the signal that the child gets when its parent dies"""
    account: Account | None
    """None: the account of the parent"""
    environment: Mapping[str, str] | None = None
    """the complete environment; None: a minimal one"""


class Child:
    """A running child."""

    def __init__(self, launch: Launch, lock: int | None) -> None:
        self._launch = launch
        self._log_offset_bytes = launch.log_path.stat().st_size if launch.log_path.exists() else 0
        self._process = _spawn(launch, lock)

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def written(self) -> bytes:
        """Return what the child has written to its log so far."""
        with self._launch.log_path.open("rb") as log:
            log.seek(self._log_offset_bytes)
            return log.read()

    def ask_to_stop(self) -> None:
        """Send the stop signal; returns at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self._launch.stop_signal)

    def kill(self) -> None:
        """Kill -9, and wait until the child is gone."""
        self._process.kill()
        self._process.wait()

    def wait(self, deadline_s: float) -> int:
        """Return the exit code; kills the child where it still runs after the deadline."""
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.returncode


class Server(ABC):
    """The life cycle of one server. Subclasses say how it is started and checked."""

    name: str
    port_names: tuple[str, ...]
    stop_deadline_s = STOP_DEADLINE_S

    def __init__(self, state: Path, ports: PortAllocation) -> None:
        self._state = state
        self._ports = ports
        self._child: Child | None = None

    @abstractmethod
    def prepare(self) -> Launch:
        """Create its folder and files; return how to start it. May take a moment."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether it can serve requests, not merely whether it listens."""

    @property
    def log_path(self) -> Path:
        return self._state / "logs" / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Its process id.

        Raises: DeploymentError, where it was not started.
        """
        return self._running_child().pid

    def launch(self) -> None:
        """Start the process; call `await_ready` next.

        Main thread only: PDEATHSIG is sent when the thread ends.
        """
        with _folder_lock(self._state / f"{self.name}.lock", self.name) as lock:
            self._child = Child(self.prepare(), lock)

    def await_ready(self) -> None:
        """Wait until it is ready.

        Raises: PortTaken; DeploymentError, naming the log file, where it ended or missed the deadline.
        """
        child = self._running_child()
        deadline_s = time.monotonic() + START_DEADLINE_S
        while not self.is_ready():
            if not child.is_running():
                if _PORT_TAKEN.search(child.written()):
                    raise PortTaken(self.name)
                raise DeploymentError(
                    f"{self.name} ended while starting; its log says why: {self.log_path}",
                    code="service_failed",
                )
            if time.monotonic() > deadline_s:
                self.kill()
                raise DeploymentError(
                    f"{self.name} was not ready after {START_DEADLINE_S:.0f} s; log: {self.log_path}",
                    code="service_failed",
                )
            time.sleep(POLL_S)

    def ask_to_stop(self) -> None:
        if self._child is not None:
            self._child.ask_to_stop()

    def wait_stopped(self) -> None:
        if self._child is not None:
            self._child.wait(self.stop_deadline_s)
            self._child = None

    def kill(self) -> None:
        """Kill -9."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _running_child(self) -> Child:
        if self._child is None:
            raise DeploymentError(f"{self.name} was not started", code="service_failed")
        return self._child


def wait_for(done: Callable[[], bool], deadline_s: float) -> bool:
    """Return whether `done` came true before `deadline_s` seconds had passed."""
    until_s = time.monotonic() + deadline_s
    while not done():
        if time.monotonic() > until_s:
            return False
        time.sleep(POLL_S)
    return True


def run_to_end(launch: Launch) -> None:
    """Run a short-lived child.

    Raises: DeploymentError, naming the log file, where it fails.
    """
    child = Child(launch, lock=None)
    if child.wait(START_DEADLINE_S) != 0:
        raise DeploymentError(
            f"{launch.name} failed; its log says why: {launch.log_path}", code="service_failed"
        )


@contextlib.contextmanager
def _folder_lock(path: Path, name: str) -> Iterator[int]:
    """Return a context with an open file that holds the lock; the child and its children inherit it.

    So the lock is free only when the last process of an earlier run is gone, even if the parent crashed.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not wait_for(lambda: try_lock(lock), STOP_DEADLINE_S):
            raise DeploymentError(
                f"an earlier {name} is running in this state folder; stop it first", code="state_in_use"
            )
        yield lock
    finally:
        os.close(lock)


def try_lock(lock: int) -> bool:
    """Return whether the open file could be locked, without waiting."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def require_main_thread() -> None:
    """Raise DeploymentError outside the main thread: PDEATHSIG is sent when the starting thread ends."""
    if threading.current_thread() is not threading.main_thread():
        raise DeploymentError(
            "servers are started from the main thread only: they would end with the thread",
            code="wrong_thread",
        )


def _least_environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(folder), "LC_ALL": "C", "TZ": "UTC"}


def _spawn(launch: Launch, lock: int | None) -> subprocess.Popen[bytes]:
    require_main_thread()
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def die_with_parent() -> None:
        # Runs after the change of user, which would clear the setting. The parent may already be dead.
        if libc.prctl(PR_SET_PDEATHSIG, int(launch.death_signal), 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(127)

    log = os.open(launch.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            launch.command,
            cwd=launch.folder,
            env=launch.environment or _least_environment(launch.folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=() if lock is None else (lock,),
            user=launch.account.uid if launch.account else None,
            group=launch.account.gid if launch.account else None,
            extra_groups=() if launch.account else None,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DeploymentError(
            f"{launch.name} could not be started: {error}", code="service_failed"
        ) from error
    finally:
        os.close(log)
