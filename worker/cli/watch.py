"""watch: the watcher as a process."""

from __future__ import annotations

from db.database import Database
from db.revision import require_current
from worker.cli.stop_event import stop_event
from worker.ingest.watcher import Watcher
from worker.observability import logs
from worker.observability.health import Services, WatcherHealth
from worker.observability.health_server import served
from worker.observability.watcher_metrics import WatcherMetrics
from worker.queue.celery_app import CeleryQueue, make_app
from worker.settings import Settings, load
from worker.storage.object_store import open_object_store


def watch() -> None:
    """Watch the bucket: register new scans, send them to workers, take scans from silent workers."""
    settings = load(Settings)
    logs.configure(settings.log_level)
    require_current(settings.database_url.get_secret_value())
    metrics = WatcherMetrics()
    with Database(settings.database_url.get_secret_value()) as database:
        services = Services(
            database, open_object_store(settings, settings.bucket_scans), CeleryQueue(make_app(settings))
        )
        watcher = Watcher(settings, database, services.store, services.queue, metrics)
        health = WatcherHealth(services, metrics)
        with served(settings, metrics.registry, health), health.probing():
            watcher.run(stop_event())
