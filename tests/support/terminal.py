"""The real command line, as a pipe and as a terminal see it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LINES = 60


def piped(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Return what became of `leukoflow` with the arguments; nothing that it prints to is a terminal."""
    return subprocess.run(
        command_line(*arguments),
        env={**os.environ, **(environment or {})},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def command_line(*arguments: str) -> list[str]:
    """Return the command that runs `leukoflow` with the arguments."""
    return [sys.executable, "-m", "worker", *arguments]


def on_terminal(*arguments: str, columns: int, environment: Mapping[str, str] | None = None) -> str:
    """Return what `leukoflow` showed on a terminal so wide, without colours and cursor movements."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    given = {**os.environ, "TERM": "xterm", **(environment or {})}
    for of_the_caller in ("COLUMNS", "LINES", "NO_COLOR", "CI"):
        given.pop(of_the_caller, None)
    with subprocess.Popen(
        command_line(*arguments), env=given, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # how Linux says that the other side is closed
            while chunk := os.read(ours, 65536):
                shown += chunk
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return _CONTROL.sub("", shown.decode()).replace("\r\n", "\n")
