"""Logs are JSON lines, and tell neither patients, nor keys, nor secrets."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest
import structlog

from pipeline.model.errors import InputError
from worker.key_pattern import ScanIdentity
from worker.observability.logs import configure

TELLING = "Meier-4711"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Return where the log goes."""
    stream = io.StringIO()
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    configure("info", stream)
    yield stream
    structlog.configure(**before)
    root.handlers, root.level = handlers, level


def test_an_event_is_one_json_line(lines: io.StringIO) -> None:
    scan = uuid.uuid4()
    structlog.get_logger().info("claimed", scan_id=scan, attempt=2, states=["queued", "running"])
    structlog.get_logger().debug("unseen")
    (event,) = _events(lines)
    assert event["event"] == "claimed"
    assert event["level"] == "info"
    assert event["scan_id"] == str(scan)
    assert (event["attempt"], event["states"]) == (2, ["queued", "running"])
    assert event["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "field",
    [
        "patient",
        "patient_id",
        "object_key",
        "key",
        "specimen",
        "path",
        "filename",
        "metadata",
        "database_url",
        "s3_secret_key",
        "broker_password",
    ],
)
def test_a_telling_field_is_withheld_and_named(lines: io.StringIO, field: str) -> None:
    structlog.get_logger().info("registered", **{field: TELLING})
    (event,) = _events(lines)
    assert TELLING not in lines.getvalue()
    assert event["withheld"] == [field]


def test_a_record_is_not_written_out(lines: io.StringIO) -> None:
    identity = ScanIdentity(TELLING, "S1", "1")
    structlog.get_logger().info("registered", what=identity, more=[identity], within={"patient": TELLING})
    assert TELLING not in lines.getvalue()
    assert _events(lines)[0]["what"] == "<ScanIdentity>"


def test_fields_bound_to_the_context_are_withheld_too(lines: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(patient=TELLING, worker="w1"):
        structlog.get_logger().info("claimed")
    (event,) = _events(lines)
    assert TELLING not in lines.getvalue()
    assert event["worker"] == "w1"


def test_an_exception_tells_types_places_and_our_own_sentences_only(lines: io.StringIO) -> None:
    try:
        try:
            raise KeyError(TELLING)
        except KeyError as error:
            raise InputError("the scan is damaged", code="damaged") from error
    except InputError:
        structlog.get_logger().exception("failed")
    (event,) = _events(lines)
    assert TELLING not in lines.getvalue()
    assert event["exception"][0] == "InputError: the scan is damaged"
    assert "KeyError" in event["exception"]
    assert any(line.startswith("  test_logs.py:") for line in event["exception"])


def test_other_libraries_give_their_template_and_not_their_arguments(lines: io.StringIO) -> None:
    try:
        raise ValueError(TELLING)
    except ValueError:
        logging.getLogger("urllib3.connectionpool").warning("Retrying %s", f"/scans/{TELLING}", exc_info=True)
    (event,) = _events(lines)
    assert TELLING not in lines.getvalue()
    assert (event["event"], event["logger"], event["level"]) == (
        "Retrying %s",
        "urllib3.connectionpool",
        "warning",
    )
    assert event["exception"][0] == "ValueError"


def test_other_libraries_say_during_which_analysis_they_spoke(lines: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(scan_id="s1", attempt=2, worker="w1"):
        logging.getLogger("urllib3.connectionpool").warning("odd tag")
    logging.getLogger("urllib3.connectionpool").warning("odd tag")
    during, after = _events(lines)
    assert (during["scan_id"], during["attempt"], during["worker"]) == ("s1", 2, "w1")
    assert "scan_id" not in after


def test_importing_sets_nothing_up_and_configured_logs_go_to_stderr() -> None:
    program = (
        "import logging, structlog; before = structlog.get_config()\n"
        "import worker.observability.logs as logs\n"
        "assert structlog.get_config() == before and not logging.getLogger().handlers\n"
        "logs.configure('info'); structlog.get_logger().info('ready')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == ""
    assert json.loads(ended.stderr)["event"] == "ready"


def _events(lines: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]
