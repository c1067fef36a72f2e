"""The command line with all its commands, for tests that look at it or call it in this process."""

from __future__ import annotations

from worker.cli.application import application

app = application()
