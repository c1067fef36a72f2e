"""What a watcher and a worker say of themselves is so: ready, live, stalled; on real servers."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest
from redis import Redis

from db.states import ScanState
from pipeline.model.geometry import Size
from pipeline.synth.smear import draw_smear
from pipeline.synth.smear_spec import SmearSpec
from pipeline.synth.tiff_writer import write_pyramid
from tests.acceptance.pictures import field_jpeg
from tests.support.deployment import Deployment, deployment_on
from tests.support.served import Served, serving
from worker.embedded import EmbeddedSet, ServerName
from worker.exit_codes import EXIT_STALLED
from worker.queue.celery_app import CeleryQueue, make_app
from worker.queue.scan_message import TASK_NAME
from worker.settings import variable_of

IMPATIENT = {"stalled_after_s": "2"}


@pytest.fixture
def deployment(embedded, tmp_path) -> Iterator[Deployment]:
    with deployment_on(embedded, tmp_path, settle_s="0", worker_slots="1") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory) -> Iterator[EmbeddedSet]:
    """Return servers that a test may stop."""
    servers = EmbeddedSet(tmp_path_factory.mktemp("own"))
    try:
        servers.start()
        yield servers
    finally:
        servers.delete_outside()


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> bytes:
    """Return a slide that takes much longer than a field."""
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    smear = draw_smear(SmearSpec(Size(4096, 4096), seed=21, leukocytes=150))
    write_pyramid(path, smear.spec.size_px0, smear.read, smear.spec.mpp)
    return path.read_bytes()


def queued(deployment: Deployment, number: int, of: int | None = None) -> None:
    """Let so many messages lie in the queue, besides those that are there, which nobody takes yet."""
    for place in range(number):
        deployment.drop(f"P-1/S-1/{place}.jpg", field_jpeg(40 + place))
    deployment.until(lambda: deployment.counts()[ScanState.QUEUED] == (of or number))


def test_a_worker_is_ready_once_its_models_are_loaded_and_its_services_answered(deployment: Deployment):
    worker = serving(deployment, "worker")
    assert worker.ask("/live")[0] == 200
    assert worker.ask("/nowhere")[0] == 404
    deployment.until(worker.is_ready)
    said = [event["event"] for event in worker.events()]
    assert said.index("health_served") < said.index("worker_ready")


def test_the_probe_command_says_what_the_process_says(deployment: Deployment):
    worker = serving(deployment, "worker")
    deployment.until(worker.is_ready)
    for arguments, port, code in (
        (["worker.observability.healthcheck"], worker.port, 0),
        (["worker.observability.healthcheck", "--ready"], worker.port, 0),
        (["worker", "healthcheck", "--ready"], worker.port, 0),
        (["worker", "healthcheck"], 1, 1),
        (["worker.observability.healthcheck"], 1, 1),
    ):
        result = probed(deployment, arguments, port)
        assert result.returncode == code, arguments
        assert len(result.stdout.splitlines()) == 1
        assert result.stderr == ""


def test_the_probe_of_a_process_that_serves_nothing_says_so(deployment: Deployment):
    result = subprocess.run(
        [sys.executable, "-m", "worker.observability.healthcheck"],
        env={**deployment.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "LEUKOFLOW_METRICS_PORT is not set" in result.stdout


def probed(deployment: Deployment, arguments: list[str], port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**deployment.environment, variable_of("metrics_port"): str(port)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(deployment: Deployment):
    worker = serving(deployment, "worker")
    result = probed(deployment, ["worker", "worker"], worker.port)
    assert result.returncode == 2
    assert "LEUKOFLOW_METRICS_PORT" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("trouble", ["deaf", "hung"])
def test_a_worker_that_takes_nothing_while_work_waits_says_so_and_ends_itself(
    deployment: Deployment, trouble: str
):
    deployment.start("watch")
    queued(deployment, 2)
    worker = serving(deployment, trouble, module="tests.support.deaf_worker", **IMPATIENT)
    answers = []
    # A deaf worker ends soon after it has said so: between two looks of `until` it may be gone.
    while worker.child.is_running():
        answers.append(worker.ask("/live"))
    assert worker.child.wait(1) == EXIT_STALLED
    assert deployment.counts()[ScanState.QUEUED] == 2
    (event,) = [event for event in worker.events() if event["event"] == "worker_stalled"]
    assert event["level"] == "critical"
    assert any(status == 503 and "takes none" in sentence for status, sentence in answers)

    deployment.start("worker")
    deployment.until_ended(2)
    assert deployment.counts()[ScanState.COMPLETED] == 2


def test_a_worker_that_is_busy_in_all_its_slots_goes_on(deployment: Deployment):
    deployment.start("watch")
    queued(deployment, 12)
    worker = serving(deployment, "worker", stalled_after_s="1")
    deployment.until_ended(12)
    assert deployment.counts()[ScanState.COMPLETED] == 12
    assert worker.child.is_running()
    assert "worker_stalled" not in worker.log.read_text()


def test_a_worker_whose_work_another_one_takes_is_left_alone(deployment: Deployment):
    deployment.start("watch")
    worker = serving(deployment, "worker")
    deaf = serving(deployment, "deaf", module="tests.support.deaf_worker", stalled_after_s="20")
    deployment.until(lambda: worker.is_ready() and deaf.is_ready())
    for place in range(6):
        deployment.drop(f"P-1/S-1/{place}.jpg", field_jpeg(40 + place))
    deployment.until_ended(6)
    assert deaf.child.is_running()
    assert deaf.metric("claims_ended_total", outcome="completed") == 0.0
    looked(deployment, deaf, 2)
    assert deaf.metric("worker_stall_seconds") == 0.0


def test_a_worker_that_was_told_to_end_is_not_taken_for_a_stalled_one(embedded, tmp_path, slide):
    """It leaves a slot empty and work lying for as long as it finishes what it holds."""
    with deployment_on(embedded, tmp_path, settle_s="0", worker_slots="2") as deployment:
        deployment.start("watch")
        deployment.drop("P-1/S-1/slide.tif", slide, {"priority": "stat"})
        queued(deployment, 6, of=7)
        worker = serving(deployment, "worker", stalled_after_s="0.5")
        deployment.until(lambda: deployment.counts()[ScanState.RUNNING] == 2)
        worker.child.ask_to_stop()
        assert worker.child.wait(120) == 0
        assert deployment.counts()[ScanState.RUNNING] == 0
        assert deployment.counts()[ScanState.QUEUED] > 0
        assert "worker_stalled" not in worker.log.read_text()


def looked(deployment: Deployment, worker: Served, looks: int) -> None:
    """Wait until the worker has looked at the broker so many times more, or has ended."""

    def count() -> float:
        return worker.metric("service_answers_total", service="broker") or 0.0

    before = count()
    deployment.until(lambda: not worker.child.is_running() or count() >= before + looks)


def test_without_its_database_a_worker_is_live_and_not_ready_and_does_not_end(own_servers, tmp_path):
    with deployment_on(own_servers, tmp_path, settle_s="0", worker_slots="1") as deployment:
        worker, watcher = serving(deployment, "worker", **IMPATIENT), serving(deployment, "watch")
        deployment.until(lambda: worker.is_ready() and watcher.is_ready())
        own_servers.kill(ServerName.POSTGRES)
        app = make_app(deployment.settings)
        for _ in range(4):
            app.send_task(TASK_NAME, args=[str(uuid.uuid4())])
        for process in (worker, watcher):
            deployment.until(
                lambda process=process: "the database does not answer" in process.ask("/ready")[1]
            )
            assert process.ask("/live")[0] == 200
            assert process.metric("service_up", service="database") == 0.0
            assert process.metric("service_up", service="broker") == 1.0
        assert watcher.metric("waiting_scans", priority="stat") is None
        assert worker.child.is_running()
        assert CeleryQueue(app).waiting_messages() == 0
        own_servers.restart(ServerName.POSTGRES)
        deployment.until(lambda: worker.is_ready() and watcher.is_ready())
        assert watcher.metric("waiting_scans", priority="stat") == 0.0


def test_without_its_broker_a_worker_waits_for_it_and_takes_up_work_again(own_servers, tmp_path):
    with deployment_on(
        own_servers, tmp_path, settle_s="0", worker_slots="1", resend_after_s="1"
    ) as deployment:
        deployment.start("watch")
        worker = serving(deployment, "worker", stalled_after_s="40")
        deployment.until(worker.is_ready)
        own_servers.kill(ServerName.VALKEY)
        deployment.until(lambda: "service_unreachable" in {event["event"] for event in worker.events()})
        deployment.drop("P-1/S-1/a.jpg", field_jpeg(40))
        assert worker.ask("/live")[0] == 200
        own_servers.restart(ServerName.VALKEY)
        deployment.until_ended(1)
        assert deployment.counts()[ScanState.COMPLETED] == 1
        assert worker.child.is_running()


def test_the_queue_says_how_many_messages_lie_in_it(deployment: Deployment):
    queue = CeleryQueue(make_app(deployment.settings))
    assert queue.waiting_messages() == 0
    client = Redis.from_url(deployment.settings.broker_url.get_secret_value())
    client.lpush(deployment.settings.queue, b"urgent")
    client.lpush(f"{deployment.settings.queue}\x06\x169", b"one", b"two")
    assert queue.waiting_messages() == 3
    client.delete(deployment.settings.queue, f"{deployment.settings.queue}\x06\x169")
