"""The check of the session's logs finds what it looks for, and fails the session that wrote it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest

from tests.support.log_check import named_lines

ROOT = Path(__file__).resolve().parents[2]
NAME = "Пациент-7 №1"
SESSION = """
import structlog
from tests.support.log_check import note

def test_something(tmp_path):
    note(["Meier-4711"])
    {}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that the check of this very session does not read."""
    with TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize(
    "line",
    [
        f"read {NAME}/S-1/a.jpg",
        json.dumps({"event": f"swept {NAME}"}),
        f"GET /scans/{quote(NAME)}/S-1 HTTP/1.1",
        f"GET /scans?prefix={quote(NAME, safe='')}",
        f"KeyError({NAME!r})",
        f"DETAIL: Key (external_id)=({NAME}) already exists.",
    ],
)
def test_a_name_is_found_however_it_is_spelt(folder: Path, line: str) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "a.log").write_text(f"nothing\n{line}\n", encoding="utf-8")
    assert named_lines(folder, {NAME, "P-77"}) == [f"deep/a.log:2: {NAME}"]


@pytest.mark.parametrize("line", ["P-771", "UDP-77", "P-77-b", "p-77", "xP-77", "nothing"])
def test_a_part_of_another_word_is_no_name(folder: Path, line: str) -> None:
    (folder / "a.log").write_text(line)
    assert named_lines(folder, {"P-77"}) == []


def test_the_store_may_name_an_object_by_its_key_and_nothing_else(folder: Path) -> None:
    lines = "Delete scans P-77/S-1/a.jpg\nfound the patient P-77\ndeleting empty folder /scans/P-77 now\n"
    for name in ("seaweedfs.log", "worker.log"):
        (folder / name).write_text(lines)
    assert named_lines(folder, {"P-77", "P-77/S-1/a.jpg"}) == [
        "seaweedfs.log:2: P-77",
        "worker.log:1: P-77/S-1/a.jpg",
        "worker.log:2: P-77",
        "worker.log:3: P-77",
    ]


def test_what_the_store_holds_is_no_log(folder: Path) -> None:
    (folder / "seaweedfs" / "contents" / "ldb").mkdir(parents=True)
    (folder / "seaweedfs" / "contents" / "ldb" / "000001.log").write_text("P-77")
    assert named_lines(folder, {"P-77"}) == []


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("4711:M 25 Nov 2026 21:14:14.541 * Ready to accept connections", False),
        ("2026-11-25 21:14:14.541 UTC [4711] LOG:  checkpoint starting: time", False),
        ("2026-11-25 21:14:14.541 UTC [99] ERROR:  (external_id)=(4711)", True),
        ('{"event": "read [4711]"}', True),
    ],
)
def test_the_number_of_a_process_is_nobody_s(folder: Path, line: str, is_found: bool) -> None:
    (folder / "a.log").write_text(line)
    assert bool(named_lines(folder, {"4711"})) is is_found


def test_without_names_nothing_is_found(folder: Path) -> None:
    (folder / "a.log").write_text("P-77")
    assert named_lines(folder, set()) == []


@pytest.mark.parametrize(
    "deed",
    [
        '(tmp_path / "worker.log").write_text("claimed Meier-4711")',
        'structlog.get_logger().info("claimed", about="Meier-4711")',
    ],
)
def test_a_session_whose_log_names_a_patient_fails(folder: Path, deed: str) -> None:
    ended = session(folder, deed)
    assert ended.returncode == 1
    assert "1 passed, 1 error" in ended.stdout
    assert "name patients" in ended.stdout
    assert "Meier-4711" in ended.stdout


@pytest.mark.parametrize(
    "deed", ["pass", 'structlog.get_logger().info("claimed", patient="Meier-4711", scan_id="1")']
)
def test_a_session_that_names_nobody_passes(folder: Path, deed: str) -> None:
    ended = session(folder, deed)
    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout


def session(folder: Path, deed: str) -> subprocess.CompletedProcess[str]:
    """Return a session of one test that does this, with the check in it."""
    (folder / "test_it.py").write_text(SESSION.format(deed))
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "tests.support.log_check", "-p", "no:cacheprovider",
            "--basetemp", str(folder / "base"), "--rootdir", str(folder), "-c", os.devnull, "test_it.py",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
