"""A clock that some processes go by, and that can be set."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

_LIBRARY = "vendor/libfaketime/src/libfaketime.so.1"


class Clock:
    """The wall clock of the processes that are started with its environment. Their monotonic clock stays."""

    def __init__(self, folder: Path) -> None:
        self._ahead = folder / "ahead"
        self._library = folder / "libfaketime.so.1"
        spec = find_spec("libfaketime")
        assert spec is not None
        assert spec.origin is not None
        shutil.copyfile(Path(spec.origin).parent / _LIBRARY, self._library)
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """Let it be this far ahead of the machine's clock, within a second."""
        new = self._ahead.with_suffix(".new")
        new.write_text(f"{ahead_s:+d}\n")
        new.chmod(0o644)
        new.replace(self._ahead)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process that goes by it needs besides."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._ahead),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }


@contextmanager
def a_clock() -> Iterator[Clock]:
    """Return a clock whose files servers under another account can read."""
    with TemporaryDirectory(prefix="leukoflow-clock-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield Clock(folder)
