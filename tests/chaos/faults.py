"""What can go wrong, each as a context: it begins, it lasts, and it is over."""

from __future__ import annotations

import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from operator import attrgetter
from os import kill
from random import Random

import psutil
import psycopg
import redis

from db.reads import scans
from db.records import Due, ScanFilter
from db.states import Priority, ScanState
from tests.chaos.clock import Clock
from tests.chaos.fault_injection_worker import Step, traps_folder
from tests.chaos.laboratory import Clocks, Laboratory, Role, owners_connection
from tests.chaos.proxy import Wire
from tests.chaos.refusals import refuse_half, refuse_none
from worker.embedded import ServerName
from worker.queue.celery_app import CeleryQueue, make_app
from worker.settings import Settings, load

DUPLICATES = 10
LONGER_THAN_THE_LEASE_S = 5.0
"""the lease of a chaos run is three seconds"""
FULL_BYTES = 512
"""the largest file that a worker with a full spool may write"""
LOG_BYTES = 1 << 18
"""within the first segment of PostgreSQL's log, and more than the file where it tells why it panics"""
DISK_FULL = "'53100'"
NOT_SERIALISABLE = "(CASE WHEN random() < 0.5 THEN '40001' ELSE '40P01' END)"
DEATHS_IN_A_ROW, BACK_AT_MOST_S = 4, 1.0
AN_HOUR_S, TEN_MINUTES_S = 3600, 600
"""The second is less than what an object store bears between its clock and a signature's."""

Injected = Callable[[Laboratory, Random], AbstractContextManager[None]]


class FaultKind(StrEnum):
    """The classes of faults. Each is counted by itself."""

    KILL_WORKER = "worker killed"
    KILL_WATCHER = "watcher killed"
    TERM_WORKER = "worker asked to stop"
    TERM_WATCHER = "watcher asked to stop"
    FREEZE_WORKER = "worker frozen beyond its lease"
    FREEZE_WATCHER = "watcher frozen"
    DIE_BEFORE_CLAIM = "worker dies before it claims"
    DIE_AFTER_CLAIM = "worker dies after it claimed"
    DIE_MID_TILES = "worker dies amid tiles"
    DIE_AFTER_ARTEFACTS = "worker dies after the artefacts"
    DIE_BEFORE_COMMIT = "worker dies before the commit"
    DIE_AFTER_COMMIT = "worker dies after the commit, before the acknowledgement"
    KILL_BROKER = "broker killed"
    KILL_BROKER_IN_A_ROW = "broker killed four times, each time as soon as it is back"
    KILL_DATABASE = "PostgreSQL killed"
    KILL_STORE = "object store killed"
    RESTART_BROKER = "broker restarted"
    RESTART_DATABASE = "PostgreSQL restarted"
    KILL_ALL = "everything killed"
    FLUSH_BROKER = "broker emptied"
    DUPLICATE_MESSAGES = "every message ten times"
    DELAY_MESSAGES = "messages late, the last first"
    CUT_BROKER = "wire to the broker cut"
    CUT_DATABASE = "wire to PostgreSQL cut"
    CUT_STORE = "wire to the object store cut"
    SILENT_BROKER = "wire to the broker silent"
    SILENT_DATABASE = "wire to PostgreSQL silent"
    SLOW_DATABASE = "wire to PostgreSQL slow"
    SLOW_STORE = "wire to the object store slow"
    STORE_REFUSES = "object store answers 503"
    STORE_TRUNCATES = "object store's answers end in their middle"
    END_BACKENDS = "database connections ended"
    NO_CONNECTIONS = "PostgreSQL at its connection limit"
    LOCK_SCANS = "the table of scans locked"
    SPOOL_FULL = "spool full"
    DATABASE_FULL = "PostgreSQL's disk full"
    LOG_FULL = "the disk of PostgreSQL's log full"
    NOT_SERIALISABLE = "transactions not serialisable, or in deadlock"
    CLOCK_OF_SERVERS = "the servers' clock an hour ahead, and set back"
    CLOCK_OF_PROCESSES = "watcher's and workers' clock ten minutes ahead, and set back"


@dataclass(frozen=True, slots=True)
class FaultClass:
    """How a fault is made, how long it lasts, and whether it is the death of one process."""

    inject: Injected
    lasts_s: float
    single_death: bool = False


@contextmanager
def _signalled(role: Role, number: signal.Signals, lab: Laboratory, random: Random) -> Iterator[None]:
    """Send the signal to one process of the role."""
    if children := lab.children(role):
        kill(random.choice(children).pid, number)
    yield


@contextmanager
def _frozen(role: Role, lab: Laboratory, random: Random) -> Iterator[None]:
    """Stop one process for a while, then let it go on as if nothing had been."""
    frozen = [child.pid for child in random.sample(lab.children(role), k=min(1, len(lab.children(role))))]
    for pid in frozen:
        kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in frozen:
            with suppress(ProcessLookupError):
                kill(pid, signal.SIGCONT)


@contextmanager
def _trapped(step: Step, lab: Laboratory, _random: Random) -> Iterator[None]:
    """Lay a trap for whichever worker comes to that step first; one that nobody found is taken away."""
    trap = traps_folder(lab.spool) / step
    trap.touch()
    try:
        yield
    finally:
        trap.unlink(missing_ok=True)


@contextmanager
def _server_killed(name: ServerName, lab: Laboratory, _random: Random) -> Iterator[None]:
    lab.servers.kill(name)
    try:
        yield
    finally:
        lab.servers.restart(name)


@contextmanager
def _broker_killed_in_a_row(lab: Laboratory, random: Random) -> Iterator[None]:
    """Kill the broker at whatever its clients are about to do now that it is back."""
    for _ in range(DEATHS_IN_A_ROW - 1):
        with _server_killed(ServerName.VALKEY, lab, random):
            time.sleep(random.uniform(0, BACK_AT_MOST_S))
        time.sleep(random.uniform(0, BACK_AT_MOST_S))
    with _server_killed(ServerName.VALKEY, lab, random):
        yield


@contextmanager
def _server_restarted(name: ServerName, lab: Laboratory, _random: Random) -> Iterator[None]:
    lab.servers.restart(name)
    yield


@contextmanager
def _all_killed(lab: Laboratory, _random: Random) -> Iterator[None]:
    for role in Role:
        for child in lab.children(role):
            child.kill()
    for name in ServerName:
        lab.servers.kill(name)
    try:
        yield
    finally:
        for name in ServerName:
            lab.servers.restart(name)


@contextmanager
def _broker_flushed(lab: Laboratory, _random: Random) -> Iterator[None]:
    with _broker(lab) as broker:
        broker.flushall()
    yield


@contextmanager
def _duplicated(lab: Laboratory, _random: Random) -> Iterator[None]:
    """Send what is queued or running ten times over."""
    with lab.database.transaction() as connection:
        rows = [
            row
            for state in (ScanState.QUEUED, ScanState.RUNNING, ScanState.COMPLETED)
            for row in scans(connection, ScanFilter(state=state))[:20]
        ]
    queue = CeleryQueue(make_app(load(Settings, **_direct(lab))))
    queue.send([Due(row.scan_id, Priority.ROUTINE) for row in rows] * DUPLICATES)
    yield


@contextmanager
def _delayed(lab: Laboratory, _random: Random) -> Iterator[None]:
    """Take the waiting messages away, and put them back later, the last first."""
    with _broker(lab) as broker:
        taken: list[tuple[bytes, bytes]] = []
        for queue in broker.keys(f"{lab.queue}*"):
            if broker.type(queue) == b"list":
                while (message := broker.rpop(queue)) is not None:
                    taken.append((queue, message))
        try:
            yield
        finally:
            with suppress(redis.ConnectionError):
                for queue, message in taken:
                    broker.rpush(queue, message)


@contextmanager
def _wired(name: ServerName, wire: Wire, lab: Laboratory, _random: Random) -> Iterator[None]:
    lab.wires[name].set(wire)
    try:
        yield
    finally:
        lab.wires[name].set(Wire.WHOLE)


@contextmanager
def _backends_ended(lab: Laboratory, _random: Random) -> Iterator[None]:
    with owners_connection(lab.servers) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'leukoflow' AND pid <> pg_backend_pid()"
        )
    yield


@contextmanager
def _no_connections(lab: Laboratory, _random: Random) -> Iterator[None]:
    """Take every connection that PostgreSQL still gives, and end those of ours."""
    with ExitStack() as held:
        with suppress(psycopg.OperationalError):
            while True:
                connection = held.enter_context(owners_connection(lab.servers))
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'leukoflow' AND pid <> pg_backend_pid()"
                )
        yield


@contextmanager
def _scans_locked(lab: Laboratory, _random: Random) -> Iterator[None]:
    with owners_connection(lab.servers) as connection, connection.transaction():
        connection.execute("LOCK TABLE scan IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def _spool_full(lab: Laboratory, _random: Random) -> Iterator[None]:
    """Let workers write no larger file than a few bytes: to them the disk is full."""
    pids = [child.pid for child in lab.children(Role.WORKER)]
    for pid in pids:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL_BYTES, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def _writes_fail(sqlstate: str, lab: Laboratory, _random: Random) -> Iterator[None]:
    with owners_connection(lab.servers) as connection:
        refuse_half(connection, sqlstate)
    try:
        yield
    finally:
        with owners_connection(lab.servers) as connection:
            refuse_none(connection)


@contextmanager
def _log_full(lab: Laboratory, _random: Random) -> Iterator[None]:
    """Let PostgreSQL write no more than the beginning of a file, until somebody makes room.

    It cannot write its log ahead then: it panics, cannot recover, and ends.
    """
    postmaster = psutil.Process(lab.servers.pid(ServerName.POSTGRES))
    for process in (postmaster, *postmaster.children(recursive=True)):
        # By its own account: root of a container may not do it to another's. It may have ended meanwhile.
        with suppress(psutil.NoSuchProcess):
            subprocess.run(
                ["prlimit", "--pid", str(process.pid), f"--fsize={LOG_BYTES}:"],
                user=process.uids().real,
                group=process.gids().real,
                check=False,
            )
    try:
        yield
    finally:
        lab.servers.kill(ServerName.POSTGRES)
        lab.servers.restart(ServerName.POSTGRES)


@contextmanager
def _clock_ahead(
    which: Callable[[Clocks], Clock], ahead_s: int, lab: Laboratory, _random: Random
) -> Iterator[None]:
    clock = which(lab.clocks)
    clock.set(ahead_s)
    try:
        yield
    finally:
        clock.set(0)


def _direct(lab: Laboratory) -> dict[str, str]:
    settings = lab.direct
    return {
        "database_url": lab.servers.database_url,
        "broker_url": lab.servers.broker_url,
        "s3_endpoint": lab.servers.s3_endpoint,
        "s3_access_key": settings.s3_access_key.get_secret_value(),
        "s3_secret_key": settings.s3_secret_key.get_secret_value(),
        "queue": lab.queue,
    }


def _broker(lab: Laboratory) -> redis.Redis:
    return redis.Redis.from_url(lab.servers.broker_url)


_servers_ahead = partial(_clock_ahead, attrgetter("servers"), AN_HOUR_S)
_processes_ahead = partial(_clock_ahead, attrgetter("processes"), TEN_MINUTES_S)

_K, _S = FaultKind, ServerName
BRIEF_S, WHILE_S = 0.0, 3.0

FAULTS: dict[FaultKind, FaultClass] = {
    _K.KILL_WORKER: FaultClass(partial(_signalled, Role.WORKER, signal.SIGKILL), BRIEF_S, True),
    _K.KILL_WATCHER: FaultClass(partial(_signalled, Role.WATCHER, signal.SIGKILL), BRIEF_S, True),
    _K.TERM_WORKER: FaultClass(partial(_signalled, Role.WORKER, signal.SIGTERM), BRIEF_S, True),
    _K.TERM_WATCHER: FaultClass(partial(_signalled, Role.WATCHER, signal.SIGTERM), BRIEF_S, True),
    _K.FREEZE_WORKER: FaultClass(partial(_frozen, Role.WORKER), LONGER_THAN_THE_LEASE_S, True),
    _K.FREEZE_WATCHER: FaultClass(partial(_frozen, Role.WATCHER), LONGER_THAN_THE_LEASE_S, True),
    _K.DIE_BEFORE_CLAIM: FaultClass(partial(_trapped, Step.BEFORE_CLAIM), WHILE_S, True),
    _K.DIE_AFTER_CLAIM: FaultClass(partial(_trapped, Step.AFTER_CLAIM), WHILE_S, True),
    _K.DIE_MID_TILES: FaultClass(partial(_trapped, Step.MID_TILES), WHILE_S, True),
    _K.DIE_AFTER_ARTEFACTS: FaultClass(partial(_trapped, Step.AFTER_ARTEFACTS), WHILE_S, True),
    _K.DIE_BEFORE_COMMIT: FaultClass(partial(_trapped, Step.BEFORE_COMMIT), WHILE_S, True),
    _K.DIE_AFTER_COMMIT: FaultClass(partial(_trapped, Step.AFTER_COMMIT), WHILE_S, True),
    _K.KILL_BROKER: FaultClass(partial(_server_killed, _S.VALKEY), WHILE_S, True),
    _K.KILL_BROKER_IN_A_ROW: FaultClass(_broker_killed_in_a_row, BRIEF_S, True),
    _K.KILL_DATABASE: FaultClass(partial(_server_killed, _S.POSTGRES), WHILE_S, True),
    _K.KILL_STORE: FaultClass(partial(_server_killed, _S.SEAWEEDFS), WHILE_S, True),
    _K.RESTART_BROKER: FaultClass(partial(_server_restarted, _S.VALKEY), BRIEF_S),
    _K.RESTART_DATABASE: FaultClass(partial(_server_restarted, _S.POSTGRES), BRIEF_S),
    _K.KILL_ALL: FaultClass(_all_killed, BRIEF_S),
    _K.FLUSH_BROKER: FaultClass(_broker_flushed, BRIEF_S),
    _K.DUPLICATE_MESSAGES: FaultClass(_duplicated, BRIEF_S),
    _K.DELAY_MESSAGES: FaultClass(_delayed, WHILE_S),
    _K.CUT_BROKER: FaultClass(partial(_wired, _S.VALKEY, Wire.CUT), WHILE_S),
    _K.CUT_DATABASE: FaultClass(partial(_wired, _S.POSTGRES, Wire.CUT), WHILE_S),
    _K.CUT_STORE: FaultClass(partial(_wired, _S.SEAWEEDFS, Wire.CUT), WHILE_S),
    _K.SILENT_BROKER: FaultClass(partial(_wired, _S.VALKEY, Wire.SILENT), WHILE_S),
    _K.SILENT_DATABASE: FaultClass(partial(_wired, _S.POSTGRES, Wire.SILENT), WHILE_S),
    _K.SLOW_DATABASE: FaultClass(partial(_wired, _S.POSTGRES, Wire.SLOW), WHILE_S),
    _K.SLOW_STORE: FaultClass(partial(_wired, _S.SEAWEEDFS, Wire.SLOW), WHILE_S),
    _K.STORE_REFUSES: FaultClass(partial(_wired, _S.SEAWEEDFS, Wire.REFUSING), WHILE_S),
    _K.STORE_TRUNCATES: FaultClass(partial(_wired, _S.SEAWEEDFS, Wire.TRUNCATING), WHILE_S),
    _K.END_BACKENDS: FaultClass(_backends_ended, BRIEF_S),
    _K.NO_CONNECTIONS: FaultClass(_no_connections, WHILE_S),
    _K.LOCK_SCANS: FaultClass(_scans_locked, WHILE_S),
    _K.SPOOL_FULL: FaultClass(_spool_full, WHILE_S),
    _K.DATABASE_FULL: FaultClass(partial(_writes_fail, DISK_FULL), WHILE_S),
    _K.LOG_FULL: FaultClass(_log_full, WHILE_S),
    _K.NOT_SERIALISABLE: FaultClass(partial(_writes_fail, NOT_SERIALISABLE), WHILE_S),
    _K.CLOCK_OF_SERVERS: FaultClass(_servers_ahead, LONGER_THAN_THE_LEASE_S),
    _K.CLOCK_OF_PROCESSES: FaultClass(_processes_ahead, LONGER_THAN_THE_LEASE_S),
}
