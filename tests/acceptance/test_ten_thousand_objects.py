"""A bucket of ten thousand objects: one sweep registers all, the next finds nothing, memory stays small."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import psutil
import pytest

from db.states import ScanState
from tests.support.deployment import deployment_on
from worker.ingest.watcher import Sweep, Watcher
from worker.observability.watcher_metrics import WatcherMetrics
from worker.queue.celery_app import CeleryQueue, make_app

OBJECTS = 10_000
MEMORY_BYTES = 150 * 2**20


@pytest.mark.long
def test_one_sweep_registers_ten_thousand(embedded, tmp_path, record_property):
    # On a busy machine sending takes minutes; what was sent may not fall due again meanwhile.
    with deployment_on(embedded, tmp_path, settle_s="0", resend_after_s="3600") as deployment:
        with ThreadPoolExecutor(8) as pool:
            keys = [f"P-{n % 500:04d}/S-{n % 1000:04d}/{n:05d}.jpg" for n in range(OBJECTS)]
            list(pool.map(lambda key: deployment.drop(key, b"\xff\xd8 no picture"), keys))
        queue = CeleryQueue(make_app(deployment.settings))
        watcher = Watcher(deployment.settings, deployment.database, deployment.store, queue, WatcherMetrics())
        before_bytes, start_s = _resident_bytes(), perf_counter()

        first = watcher.sweep()

        record_property("first_sweep_s", perf_counter() - start_s)
        assert first == Sweep(listed=OBJECTS, known=0, registered=OBJECTS, unsettled=0, gone=0)
        start_s = perf_counter()
        second = watcher.sweep()
        record_property("second_sweep_s", perf_counter() - start_s)
        record_property("growth_bytes", _resident_bytes() - before_bytes)
        assert second == Sweep(listed=OBJECTS, known=OBJECTS, registered=0, unsettled=0, gone=0)
        assert deployment.counts()[ScanState.RECEIVED] == OBJECTS
        assert _resident_bytes() - before_bytes < MEMORY_BYTES
        assert watcher.dispatch() == OBJECTS
        assert deployment.counts()[ScanState.QUEUED] == OBJECTS
        assert watcher.dispatch() == 0


def _resident_bytes() -> int:
    return psutil.Process(os.getpid()).memory_info().rss
