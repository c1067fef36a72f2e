"""`up` where its state cannot be written, or finds no room: one line, nothing half-written, no traceback."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.embedded import EmbeddedSet
from worker.exit_codes import EXIT_TRANSIENT, EXIT_USAGE

PR_CAPBSET_DROP = 24
"""Source: linux/prctl.h"""
CAP_DAC_OVERRIDE = 1
"""Source: linux/capability.h"""


def started_up(state: Path, prepared: Callable[[], object] | None = None) -> subprocess.CompletedProcess[str]:
    """Return what a `leukoflow up` did that ends by itself; `prepared` is called in its process first."""
    return subprocess.run(
        [sys.executable, "-m", "worker", "up", "--state", str(state)],
        preexec_fn=prepared,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_state_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for state, cause in ((file, "file exists"), (file / "state", "not a directory")):
        answer = started_up(state)
        assert (answer.returncode, answer.stdout) == (EXIT_USAGE, "")
        assert answer.stderr == f"leukoflow: {state} cannot be written: {cause}; choose another folder\n"
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "mine"


def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    def obeying_permissions() -> None:
        # Root does not, unless it gives up this; for others it is no call that they may make, nor need to.
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)

    tmp_path.chmod(0o555)
    state = tmp_path / "build" / "up"
    answer = started_up(state, obeying_permissions)
    assert (answer.returncode, answer.stdout) == (EXIT_USAGE, "")
    assert (
        answer.stderr == f"leukoflow: {state} cannot be written: permission denied; choose another folder\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files is a quota that needs no disk of its own."""

    def without_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    state = tmp_path / "state"
    answer = started_up(state, without_room)
    assert (answer.returncode, answer.stdout) == (EXIT_TRANSIENT, "")
    assert answer.stderr.startswith(f"leukoflow: the disk of {state} is full; the servers need ")
    assert answer.stderr.count("\n") == 1
    assert [path for path in state.rglob("*") if path.is_file() and path.stat().st_size] == []
    assert list(state.rglob("*.partial")) == []

    servers = EmbeddedSet(state)
    try:
        servers.start()
    finally:
        servers.delete_outside()


def test_a_disk_with_too_little_room_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "leukoflow-test", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no small disk may be mounted here")
    state = tmp_path / "build" / "up"
    try:
        answer = started_up(state)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
    assert (answer.returncode, answer.stdout) == (EXIT_TRANSIENT, "")
    assert answer.stderr.startswith(f"leukoflow: the disk of {state} is full; the servers need ")
