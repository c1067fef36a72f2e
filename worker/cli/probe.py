"""healthcheck: asks a watcher or worker how it is."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.observability.healthcheck import query
from worker.settings import ServedSettings, load


def healthcheck(
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it is ready, and not whether it lives.")
    ] = False,
) -> None:
    """Ask the watcher or worker that LEUKOFLOW_METRICS_PORT names how it is; exit code 0 or 1."""
    yes, sentence = query(load(ServedSettings), "/ready" if ready else "/live")
    typer.echo(sentence)
    raise typer.Exit(0 if yes else 1)
