"""Kill -9 in mid-scan, and the whole set restarted: every scan completed once, nothing lost or doubled."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select

from db.states import ScanState
from db.tables import Attempt, Cell, Run
from pipeline.model.geometry import Size
from pipeline.synth.smear import draw_smear
from pipeline.synth.smear_spec import SmearSpec
from pipeline.synth.tiff_writer import write_pyramid
from tests.acceptance.pictures import field_jpeg
from tests.chaos.proxy import Proxy, Wire
from tests.support.deployment import Deployment, deployment_on
from worker.embedded import EmbeddedSet
from worker.embedded.leukoflow_processes import prepare_services

SHORT_LEASE = {"engine": "auto", "lease_s": "3", "heartbeat_s": "0.2", "worker_slots": "1"}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path: Path = tmp_path_factory.mktemp("slide") / "slide.tif"
    smear = draw_smear(SmearSpec(Size(3072, 2048), seed=21, leukocytes=60))
    write_pyramid(path, smear.spec.size_px0, smear.read, smear.spec.mpp)
    return path.read_bytes()


def runs_and_cells(deployment: Deployment) -> list[tuple[int, int]]:
    """(cells stored, cells found) of every run."""
    cells = select(func.count()).where(Cell.run_id == Run.id).scalar_subquery()
    with deployment.database.transaction() as connection:
        return [tuple(row) for row in connection.execute(select(cells, Run.n_found))]


def attempts(deployment: Deployment) -> list[str]:
    with deployment.database.transaction() as connection:
        return list(connection.execute(select(Attempt.outcome).order_by(Attempt.number)).scalars())


def test_a_worker_killed_in_mid_scan_loses_and_doubles_nothing(embedded, tmp_path, slide):
    with deployment_on(embedded, tmp_path, **SHORT_LEASE) as deployment:
        deployment.start("watch")
        first = deployment.start("worker")
        deployment.drop("P-1/S-1/slide.tif", slide)
        deployment.drop("P-1/S-1/field.jpg", field_jpeg(5))

        def in_mid_scan() -> bool:
            return any(r.state is ScanState.RUNNING and r.progress.tiles_done > 0 for r in deployment.rows())

        deployment.until(in_mid_scan)
        first.kill()
        deployment.start("worker")
        deployment.until_ended(2)

        assert deployment.counts()[ScanState.COMPLETED] == 2
        assert sorted(attempts(deployment)) == ["completed", "completed", "lost"]
        found = runs_and_cells(deployment)
        assert len(found) == 2
        assert all(stored == counted for stored, counted in found)
        assert max(counted for _, counted in found) > 30


def test_a_restart_of_the_whole_set_loses_nothing(tmp_path):
    servers = EmbeddedSet(tmp_path / "state")
    folder = tmp_path / "logs"
    folder.mkdir()
    try:
        servers.start()
        with deployment_on(servers, folder, **SHORT_LEASE) as deployment:
            deployment.start("watch")
            for number in range(6):
                deployment.drop(f"P-{number}/S-1/field.jpg", field_jpeg(30 + number))
            deployment.until(lambda: sum(deployment.counts().values()) == 6)
            deployment.stop()
            values = deployment.settings
            servers.stop()
            servers.start()
            prepare_services(values)
            deployment.database.close()
            deployment.start("watch")
            deployment.start("worker")
            deployment.until_ended(6)
            assert deployment.counts()[ScanState.COMPLETED] == 6
            assert [stored == counted for stored, counted in runs_and_cells(deployment)] == [True] * 6
    finally:
        servers.delete_outside()


def test_a_store_that_is_away_costs_a_scan_no_attempt(embedded, tmp_path):
    wire = Proxy(int(embedded.s3_endpoint.rpartition(":")[2]))
    try:
        endpoint = f"127.0.0.1:{wire.port}"
        with deployment_on(embedded, tmp_path, s3_endpoint=endpoint, max_attempts="1") as deployment:
            deployment.drop("P-1/S-1/field.jpg", field_jpeg(5))
            watcher = deployment.start("watch")
            deployment.until(lambda: deployment.counts()[ScanState.QUEUED] == 1)
            watcher.ask_to_stop()
            wire.set(Wire.REFUSING)
            worker_started = deployment.start("worker")
            deployment.until(lambda: attempts(deployment) == ["handed_back"])
            assert deployment.counts()[ScanState.RETRYABLE] == 1
            assert [row.error_code for row in deployment.rows()] == ["store_unreachable"]
            wire.set(Wire.WHOLE)
            assert worker_started.is_running()
            deployment.start("watch")
            deployment.until_ended(1)
            assert deployment.counts()[ScanState.COMPLETED] == 1
            deployment.stop()
    finally:
        wire.close()
