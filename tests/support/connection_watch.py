"""Watches whom a program speaks to: in each of its processes, Python and C++ alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")
FOREIGN = ("ORT_", "LEUKOFLOW_")
"""variables that a person's shell does not have"""


@dataclass(frozen=True, slots=True)
class ConnectionWatch:
    """A library to preload, and a home folder that starts empty."""

    library: Path
    home: Path
    notes: Path

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Return what Python did with `arguments`, as on a machine where nobody set a thing."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        watched = {
            "HOME": str(self.home),
            "LD_PRELOAD": str(self.library),
            "CONNECTIONS_FILE": str(self.notes),
        }
        return subprocess.run(
            [sys.executable, *arguments],
            env=plain | watched | variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def called(self) -> list[str]:
        """Return each name that was looked up and each address beyond this machine that was called."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def kept(self) -> list[str]:
        """Return the files that were left in the home folder."""
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*") if path.is_file())


def connection_watch(folder: Path) -> ConnectionWatch:
    """Return a watch whose files are in `folder`; skips the test where no C compiler is."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("watching connections needs Linux and a C compiler")
    library = folder / "connection_watch.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    home = folder / "home"
    home.mkdir()
    return ConnectionWatch(library, home, folder / "connections.txt")
