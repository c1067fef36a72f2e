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
from tests.support.house import House, house_on
from tests.support.served import Served, serving
from worker.embedded import EmbeddedSet, ServerName
from worker.exit_codes import EXIT_STALLED
from worker.queue.celery_app import CeleryQueue, make_app
from worker.queue.scan_message import TASK_NAME
from worker.settings import variable_of

IMPATIENT = {"stalled_after_s": "2"}


@pytest.fixture
def house(embedded, tmp_path) -> Iterator[House]:
    with house_on(embedded, tmp_path, settle_s="0", worker_slots="1") as house:
        yield house


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


def queued(house: House, number: int, of: int | None = None) -> None:
    """Let so many messages lie in the queue, besides those that are there, which nobody takes yet."""
    for place in range(number):
        house.drop(f"P-1/S-1/{place}.jpg", field_jpeg(40 + place))
    house.until(lambda: house.counts()[ScanState.QUEUED] == (of or number))


def test_a_worker_is_ready_once_its_models_are_loaded_and_its_services_answered(house: House):
    worker = serving(house, "worker")
    assert worker.ask("/live")[0] == 200
    assert worker.ask("/nowhere")[0] == 404
    house.until(worker.is_ready)
    said = [event["event"] for event in worker.events()]
    assert said.index("health_served") < said.index("worker_ready")


def test_the_probe_command_says_what_the_process_says(house: House):
    worker = serving(house, "worker")
    house.until(worker.is_ready)
    for arguments, port, code in (
        (["worker.observability.healthcheck"], worker.port, 0),
        (["worker.observability.healthcheck", "--ready"], worker.port, 0),
        (["worker", "healthcheck", "--ready"], worker.port, 0),
        (["worker", "healthcheck"], 1, 1),
        (["worker.observability.healthcheck"], 1, 1),
    ):
        result = probed(house, arguments, port)
        assert result.returncode == code, arguments
        assert len(result.stdout.splitlines()) == 1
        assert result.stderr == ""


def test_the_probe_of_a_process_that_serves_nothing_says_so(house: House):
    result = subprocess.run(
        [sys.executable, "-m", "worker.observability.healthcheck"],
        env={**house.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "LEUKOFLOW_METRICS_PORT is not set" in result.stdout


def probed(house: House, arguments: list[str], port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**house.environment, variable_of("metrics_port"): str(port)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(house: House):
    worker = serving(house, "worker")
    result = probed(house, ["worker", "worker"], worker.port)
    assert result.returncode == 2
    assert "LEUKOFLOW_METRICS_PORT" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("trouble", ["deaf", "hung"])
def test_a_worker_that_takes_nothing_while_work_waits_says_so_and_ends_itself(house: House, trouble: str):
    house.start("watch")
    queued(house, 2)
    worker = serving(house, trouble, module="tests.support.deaf_worker", **IMPATIENT)
    answers = []

    def ended() -> bool:
        answers.append(worker.ask("/live"))
        return not worker.child.is_running()

    house.until(ended)
    assert worker.child.wait(1) == EXIT_STALLED
    assert house.counts()[ScanState.QUEUED] == 2
    (event,) = [event for event in worker.events() if event["event"] == "worker_stalled"]
    assert event["level"] == "critical"
    assert any(status == 503 and "takes none of it" in sentence for status, sentence in answers)

    house.start("worker")
    house.until_ended(2)
    assert house.counts()[ScanState.COMPLETED] == 2


def test_a_worker_that_is_busy_in_all_its_slots_goes_on(house: House):
    house.start("watch")
    queued(house, 12)
    worker = serving(house, "worker", stalled_after_s="1")
    house.until_ended(12)
    assert house.counts()[ScanState.COMPLETED] == 12
    assert worker.child.is_running()
    assert "worker_stalled" not in worker.log.read_text()


def test_a_worker_whose_work_another_one_takes_is_left_alone(house: House):
    house.start("watch")
    worker = serving(house, "worker")
    deaf = serving(house, "deaf", module="tests.support.deaf_worker", stalled_after_s="20")
    house.until(lambda: worker.is_ready() and deaf.is_ready())
    for place in range(6):
        house.drop(f"P-1/S-1/{place}.jpg", field_jpeg(40 + place))
    house.until_ended(6)
    assert deaf.child.is_running()
    assert deaf.metric("claims_ended_total", outcome="completed") == 0.0
    looked(house, deaf, 2)
    assert deaf.metric("worker_idle_at_work_seconds") == 0.0


def test_a_worker_that_was_told_to_end_is_not_taken_for_a_stalled_one(embedded, tmp_path, slide):
    """It leaves a slot empty and work lying for as long as it finishes what it holds."""
    with house_on(embedded, tmp_path, settle_s="0", worker_slots="2") as house:
        house.start("watch")
        house.drop("P-1/S-1/slide.tif", slide, {"priority": "stat"})
        queued(house, 6, of=7)
        worker = serving(house, "worker", stalled_after_s="0.5")
        house.until(lambda: house.counts()[ScanState.RUNNING] == 2)
        worker.child.ask_to_stop()
        assert worker.child.wait(120) == 0
        assert house.counts()[ScanState.RUNNING] == 0
        assert house.counts()[ScanState.QUEUED] > 0
        assert "worker_stalled" not in worker.log.read_text()


def looked(house: House, worker: Served, looks: int) -> None:
    """Wait until the worker has looked at the broker so many times more, or has ended."""

    def count() -> float:
        return worker.metric("service_answers_total", service="broker") or 0.0

    before = count()
    house.until(lambda: not worker.child.is_running() or count() >= before + looks)


def test_without_its_database_a_worker_is_live_and_not_ready_and_does_not_end(own_servers, tmp_path):
    with house_on(own_servers, tmp_path, settle_s="0", worker_slots="1") as house:
        worker, watcher = serving(house, "worker", **IMPATIENT), serving(house, "watch")
        house.until(lambda: worker.is_ready() and watcher.is_ready())
        own_servers.kill(ServerName.POSTGRES)
        app = make_app(house.settings)
        for _ in range(4):
            app.send_task(TASK_NAME, args=[str(uuid.uuid4())])
        for process in (worker, watcher):
            house.until(lambda process=process: "the database does not answer" in process.ask("/ready")[1])
            assert process.ask("/live")[0] == 200
            assert process.metric("service_up", service="database") == 0.0
            assert process.metric("service_up", service="broker") == 1.0
        assert watcher.metric("waiting_scans", priority="stat") is None
        assert worker.child.is_running()
        assert CeleryQueue(app).waiting_messages() == 0
        own_servers.restart(ServerName.POSTGRES)
        house.until(lambda: worker.is_ready() and watcher.is_ready())
        assert watcher.metric("waiting_scans", priority="stat") == 0.0


def test_without_its_broker_a_worker_waits_for_it_and_takes_up_work_again(own_servers, tmp_path):
    with house_on(own_servers, tmp_path, settle_s="0", worker_slots="1", resend_after_s="1") as house:
        house.start("watch")
        worker = serving(house, "worker", stalled_after_s="40")
        house.until(worker.is_ready)
        own_servers.kill(ServerName.VALKEY)
        house.until(lambda: "service_away" in {event["event"] for event in worker.events()})
        house.drop("P-1/S-1/a.jpg", field_jpeg(40))
        assert worker.ask("/live")[0] == 200
        own_servers.restart(ServerName.VALKEY)
        house.until_ended(1)
        assert house.counts()[ScanState.COMPLETED] == 1
        assert worker.child.is_running()


def test_the_queue_says_how_many_messages_lie_in_it(house: House):
    queue = CeleryQueue(make_app(house.settings))
    assert queue.waiting_messages() == 0
    client = Redis.from_url(house.settings.broker_url.get_secret_value())
    client.lpush(house.settings.queue, b"urgent")
    client.lpush(f"{house.settings.queue}\x06\x169", b"one", b"two")
    assert queue.waiting_messages() == 3
    client.delete(house.settings.queue, f"{house.settings.queue}\x06\x169")
