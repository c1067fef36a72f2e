"""The one Celery task, and the worker process around it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from uuid import UUID

import structlog
from celery import Celery
from celery.worker import state as worker_state

from db.database import Database
from db.results import register_bundle
from db.schema import require_current
from pipeline.errors import DeploymentError
from worker.analyst import Analyst, open_analyst
from worker.broker import TASK_NAME, make_app
from worker.desk import Desk
from worker.object_store import open_object_store
from worker.settings import Settings

EXIT_CONFIG = 78
"""sysexits.h EX_CONFIG: restarting will not help before somebody mends the deployment."""


def scan_task(desk: Desk) -> Callable[[UUID], None]:
    """Return the task: claim, analyse, save."""

    def analyse_scan(scan_id: UUID) -> None:
        with desk.claimed(scan_id) as claim:
            if claim is not None:
                desk.save(claim, desk.analyse(claim))

    return analyse_scan


def answering_messages(task: Callable[[UUID], None]) -> Callable[[object], None]:
    """Return what Celery calls. No scan's id: ignored. A wrong deployment stops the whole worker."""

    def guarded(scan_id: object) -> None:
        try:
            known = UUID(str(scan_id))
        except ValueError:
            structlog.get_logger().warning("message_ignored")
            return
        try:
            task(known)
        except DeploymentError:
            worker_state.should_stop = EXIT_CONFIG
            raise

    return guarded


def register_task(app: Celery, desk: Desk) -> None:
    """Make the application answer scan messages with this desk."""
    app.task(name=TASK_NAME, acks_late=True)(answering_messages(scan_task(desk)))


def _record_bundle(database: Database, analyst: Analyst) -> None:
    bundle = analyst.bundle
    with database.transaction() as connection:
        register_bundle(connection, bundle.digest, bundle.name, bundle.manifest.render())


OpenedAnalyst = Callable[[Settings], AbstractContextManager[Analyst]]


def run_worker(settings: Settings, opened: OpenedAnalyst = open_analyst) -> int:
    """Return the exit code, after SIGTERM let the running scans finish.

    Several scans run in threads of this one process: they share the networks and their batches.
    Raises: DeploymentError, where the bundle, a bucket or the credentials do not fit.
    """
    name = f"{socket.gethostname()}-{os.getpid()}"
    with ExitStack() as stack:
        analyst = stack.enter_context(opened(settings))
        database = stack.enter_context(
            Database(settings.database_url.get_secret_value(), pool_size=settings.worker_slots + 2)
        )
        require_current(settings.database_url.get_secret_value())
        _record_bundle(database, analyst)
        desk = Desk(
            settings=settings,
            database=database,
            scans=open_object_store(settings, settings.bucket_scans),
            results=open_object_store(settings, settings.bucket_results),
            analyst=analyst,
            worker=name,
        )
        app = make_app(settings)
        register_task(app, desk)
        structlog.get_logger().info("worker_ready", worker=name, engine=analyst.engine)
        worker = app.Worker(
            pool="threads",
            concurrency=settings.worker_slots,
            hostname=f"leukoflow@{name}",
            without_gossip=True,
            without_mingle=True,
            quiet=True,
            loglevel="WARNING",
        )
        worker.start()
        return int(worker.exitcode or 0)
