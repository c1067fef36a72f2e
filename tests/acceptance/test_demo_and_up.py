"""The two commands that bring their own servers: demo ends by itself, up stays until it is told to stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import psutil
from typer.testing import CliRunner

from tests.acceptance.pictures import field_jpeg
from tests.support.command_line import app
from tests.support.log_check import note
from worker.embedded.free_ports import is_free

LEUKOFLOW = [sys.executable, "-m", "worker"]


def test_the_demo_takes_ones_own_scans_and_stops_what_it_started(tmp_path: Path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(4):
        (scans / f"field {number}.jpg").write_bytes(field_jpeg(60 + number))
    (scans / "notes.txt").write_text("no scan")
    (scans / "torn.jpg").write_bytes(field_jpeg(64)[:200])
    out = tmp_path / "out"

    result = subprocess.run(
        [*LEUKOFLOW, "demo", "--scans", str(scans), "--out", str(out), "--patients", "2"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    note(["DEMO-001", "DEMO-002", "S001-1", "S002-1"])
    assert result.returncode == 0, result.stderr
    assert "1 file that is no picture was skipped" in result.stderr
    assert "5 scans registered = 4 completed + 0 unassigned + 1 quarantined" in result.stdout
    assert "Patient DEMO-001" in result.stdout
    assert "Patient DEMO-002" in result.stdout
    assert len(list((out / "pictures").rglob("overview.jpg"))) == 4
    assert _running_in(out) == []


def _running_in(folder: Path) -> list[str]:
    """Command lines of processes that work in the folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        text = " ".join(process.info["cmdline"] or []) + " " + (process.info["cwd"] or "")
        if str(folder) in text and process.pid != os.getpid():
            found.append(text)
    return found


def test_up_serves_until_it_is_stopped(tmp_path: Path):
    log = (tmp_path / "up.log").open("w+")
    port = next(p for p in range(23_000, 32_000, 7) if is_free(p) and is_free(p + 1))
    up = subprocess.Popen(
        [*LEUKOFLOW, "up", "--state", str(tmp_path / "state")],
        env={**os.environ, "LEUKOFLOW_METRICS_PORT": str(port)},
        stdout=log,
        stderr=log,
    )
    try:
        text = _until(tmp_path / "up.log", "Ctrl-C stops everything")
        exported = dict(re.findall(r"export (\w+)=(\S+)", text))
        environment = {**os.environ, **exported}
        scan = tmp_path / "field.jpg"
        scan.write_bytes(field_jpeg(70))
        _run(environment, "submit", str(scan), "--patient", "P-1")
        _until_listed(environment, '"state": "completed"')
        assert "neutrophil" in _run(environment, "results", "P-1")
        for ours in (port, port + 1):
            environment["LEUKOFLOW_METRICS_PORT"] = str(ours)
            assert _run(environment, "healthcheck", "--ready") == "ready\n"
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
    assert _running_in(tmp_path / "state") == []


def _run(environment: dict[str, str], *arguments: str) -> str:
    """Return what the command prints, run in this process."""
    result = CliRunner().invoke(app, list(arguments), env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def _until(path: Path, sign: str) -> str:
    until_s = monotonic() + 60
    while sign not in (text := path.read_text()):
        assert monotonic() < until_s, text
        sleep(0.1)
    return text


def _until_listed(environment: dict[str, str], sign: str) -> None:
    until_s = monotonic() + 120
    while sign not in (text := _run(environment, "scans", "--json")):
        assert monotonic() < until_s, text
        sleep(0.1)
