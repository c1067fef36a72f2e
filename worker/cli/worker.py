"""worker: one worker as a process."""

from __future__ import annotations

import typer

from worker.cli.bundles import EngineOption
from worker.observability import logs
from worker.processing.worker_process import run_worker
from worker.settings import Settings, load


def worker(engine: EngineOption = None) -> None:
    """Analyse scans. Start as many as there are machines; SIGTERM lets the running scans finish."""
    settings = load(Settings) if engine is None else load(Settings, engine=engine)
    logs.configure(settings.log_level)
    raise typer.Exit(run_worker(settings))
