"""The worker process: opens the models and the services, and runs the consumer until it is stopped."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from time import monotonic, sleep
from uuid import UUID

import structlog

from db.database import Database
from db.results import register_bundle
from db.revision import require_current
from pipeline.runtime.slide_analyser import SlideAnalyser
from worker.exit_codes import EXIT_STALLED
from worker.observability.health import MonitoredWorker, Services, WorkerHealth
from worker.observability.health_server import served
from worker.observability.traces import open_traces
from worker.observability.worker_metrics import EngineCollector, SpoolCollector, WorkerMetrics
from worker.processing.analyser import open_analyser
from worker.processing.scan_processor import ScanProcessor
from worker.queue.celery_app import CeleryQueue, make_app
from worker.queue.consumer_state import ConsumerState
from worker.queue.slots import Slots
from worker.queue.task import register_task, run_consumer
from worker.settings import Settings
from worker.storage.object_store import open_object_store

FINISH_S = 600.0
"""How long a stalled worker may finish its running scans; unfinished ones go to another worker."""
EXIT_GRACE_S = 15.0
"""How long a stalled worker without scans may take to shut down before it is killed."""


def scan_task(processor: ScanProcessor) -> Callable[[UUID], None]:
    """Return the task, which claims, analyses and saves one scan."""

    def analyse_scan(scan_id: UUID) -> None:
        with processor.claimed(scan_id) as claim:
            if claim is not None:
                processor.save(claim, processor.analyse(claim))

    return analyse_scan


def shutdown_when_stalled(consumer: ConsumerState, slots: Slots) -> Callable[[], None]:
    """Return the function that shuts this process down when its consumer hangs.

    Running scans get FINISH_S to finish. A consumer that does not react is killed with the process.
    """

    def force_exit() -> None:
        _wait_until(lambda: slots.busy == 0, FINISH_S)
        sleep(EXIT_GRACE_S)
        # Still running: the consumer hangs and will not shut down by itself.
        sys.stderr.flush()
        os._exit(EXIT_STALLED)

    def shut_down() -> None:
        structlog.get_logger().critical("worker_stalled", exit_code=EXIT_STALLED, running=slots.busy)
        consumer.request_shutdown(EXIT_STALLED)
        threading.Thread(target=force_exit, name="shutdown", daemon=True).start()

    return shut_down


def _wait_until(done: Callable[[], bool], deadline_s: float) -> None:
    until_s = monotonic() + deadline_s
    while not done() and monotonic() < until_s:
        sleep(0.1)


def _record_bundle(database: Database, analyser: SlideAnalyser) -> None:
    bundle = analyser.bundle
    with database.transaction() as connection:
        register_bundle(connection, bundle.digest, bundle.name, bundle.manifest.render())


OpenedAnalyser = Callable[[Settings], AbstractContextManager[SlideAnalyser]]


def run_worker(settings: Settings, opened: OpenedAnalyser = open_analyser) -> int:
    """Return the exit code of the worker. On SIGTERM it finishes its running scans first.

    Scans run in threads of this one process and share the networks and their batches.
    Raises: DeploymentError, where the bundle, a bucket or the credentials are wrong.
    """
    name = f"{socket.gethostname()}-{os.getpid()}"
    slots, health = Slots(settings.worker_slots), WorkerHealth()
    metrics = WorkerMetrics(slots)
    metrics.report_health(lambda: health.ready().yes, lambda: health.stall_s)
    metrics.registry.register(SpoolCollector(settings.spool_dir))
    with ExitStack() as stack:
        stack.enter_context(served(settings, metrics.registry, health))
        analyser = stack.enter_context(opened(settings))
        metrics.registry.register(EngineCollector(analyser.loads))
        database = stack.enter_context(
            Database(settings.database_url.get_secret_value(), pool_size=settings.worker_slots + 2)
        )
        require_current(settings.database_url.get_secret_value())
        _record_bundle(database, analyser)
        processor = ScanProcessor(
            settings=settings,
            database=database,
            scans=open_object_store(settings, settings.bucket_scans),
            results=open_object_store(settings, settings.bucket_results),
            analyser=analyser,
            worker=name,
            traces=stack.enter_context(open_traces(settings, name)),
            metrics=metrics,
        )
        app = make_app(settings)
        register_task(app, scan_task(processor), slots)
        consumer = ConsumerState()
        watched = MonitoredWorker(
            Services(database, processor.scans, CeleryQueue(app)), slots, consumer, settings.stalled_after_s
        )
        stack.enter_context(health.probing(watched, metrics.registry, shutdown_when_stalled(consumer, slots)))
        structlog.get_logger().info("worker_ready", worker=name, engine=analyser.engine)
        return run_consumer(app, slots, f"leukoflow@{name}")
