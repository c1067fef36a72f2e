"""Runs watcher and worker as processes, as in production, with an embedded set."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from db.schema import apply_roles, upgrade
from worker.embedded import EmbeddedSet, Principal
from worker.embedded.child_process import Child, Launch
from worker.settings import Settings, variable_of
from worker.storage.object_store import open_object_store

GRACE_S = 30.0


def prepare_services(settings: Settings) -> None:
    """Upgrade the schema, apply the roles and create both buckets. Idempotent."""
    upgrade(settings.database_url.get_secret_value())
    apply_roles(settings.database_url.get_secret_value())
    for bucket in (settings.bucket_scans, settings.bucket_results):
        open_object_store(settings, bucket).ensure_bucket()


def start_process(
    command: str, environment: Mapping[str, str], folder: Path, log_path: Path, module: str = "worker"
) -> Child:
    """Start `leukoflow <command>` as a child that ends with this process. Main thread only.

    `module` is the Python module to run.
    """
    launch = Launch(
        name=command,
        command=(sys.executable, "-m", module, command),
        folder=folder,
        log_path=log_path,
        stop_signal=signal.SIGTERM,
        death_signal=signal.SIGTERM,
        account=None,
        environment=environment,
    )
    return Child(launch, lock=None)


@contextmanager
def running_leukoflow(servers: EmbeddedSet, **values: str) -> Iterator[tuple[Child, Child]]:
    """Return a context with watcher and worker running on the services of `servers`.

    Each logs in with its own credentials, which have no more privileges than it needs. `values` are settings
    by field name; the others come from the environment. The watcher serves health and metrics on the
    configured port, the worker on the next one.
    """
    prepare_services(servers.settings())
    logs = servers.state / "logs"
    watcher = servers.environment(Principal.WATCHER, **values)
    worker = servers.environment(Principal.WORKER, **values)
    if (port := servers.settings().metrics_port) and "metrics_port" not in values:
        worker[variable_of("metrics_port")] = str(port + 1)
    with stopped_at_the_end() as children:
        children.append(start_process("watch", watcher, servers.state, logs / "watch.log"))
        children.append(start_process("worker", worker, servers.state, logs / "worker.log"))
        yield children[0], children[1]


@contextmanager
def stopped_at_the_end() -> Iterator[list[Child]]:
    """Return a context with a list; at its end all children in the list are stopped."""
    children: list[Child] = []
    try:
        yield children
    finally:
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.wait(GRACE_S)
