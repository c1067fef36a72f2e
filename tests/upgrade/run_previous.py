"""Watcher, worker and reader of the release before, whose code is first on the path: run as a module."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from worker.broker import CeleryQueue, make_app
from worker.object_store import open_object_store
from worker.tasks import run_worker
from worker.watcher import Watcher

import db
from db.database import Database
from db.reads import cells_of_run, record_results_read, results_of_patient
from db.schema import require_current
from worker import logs
from worker.settings import Settings, load_settings


def _watch(settings: Settings) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    url = settings.database_url.get_secret_value()
    require_current(url)
    with Database(url) as database:
        scans = open_object_store(settings, settings.bucket_scans)
        Watcher(settings, database, scans, CeleryQueue(make_app(settings))).run(stop)


def _results(settings: Settings, patient: str) -> None:
    """Print scans and cells of the patient, and record that they were read."""
    url = settings.database_url.get_secret_value()
    with Database(url) as database, database.transaction() as connection:
        found = results_of_patient(connection, patient)
        cells = [len(cells_of_run(connection, slide.run.run_id)) for slide in found.slides if slide.run]
        record_results_read(connection, found.patient_id, reader="r", purpose="p")
    print(len(found.slides), sum(cells))


def main() -> None:
    # Not the code of this release, which an installation may put on the path too.
    assert not (Path(db.__file__).parent / "roles.py").exists(), db.__file__
    settings = load_settings()
    logs.configure(settings.log_level)
    if sys.argv[1] == "watch":
        _watch(settings)
    elif sys.argv[1] == "worker":
        sys.exit(run_worker(settings))
    else:
        _results(settings, sys.argv[2])


if __name__ == "__main__":
    main()
