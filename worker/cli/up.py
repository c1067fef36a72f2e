"""up: the embedded set with a watcher and a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.stop_event import stop_event
from worker.embedded import EmbeddedSet, FixedPorts
from worker.embedded.leukoflow_processes import running_leukoflow


def up(
    state: Annotated[Path, typer.Option(help="Folder of the servers' data.")] = Path("build/up"),
    s3_port: Annotated[int | None, typer.Option(help="Port of the object store.")] = None,
) -> None:
    """Start the embedded set, a watcher and a worker; print where they are; stay until Ctrl-C."""
    stop = stop_event()
    with EmbeddedSet(state, FixedPorts(s3=s3_port)) as servers, running_leukoflow(servers) as children:
        settings = servers.settings()
        typer.echo(f"object store  http://{servers.s3_endpoint}  bucket {settings.bucket_scans}")
        typer.echo(f"secrets       {servers.state / 'secrets'}")
        typer.echo(f"logs          {servers.state / 'logs'}")
        typer.echo("In another shell, so that the other commands find these servers:")
        environment = servers.environment()
        for name in ("LEUKOFLOW_SECRETS_DIR", "LEUKOFLOW_S3_ENDPOINT", "LEUKOFLOW_S3_SECURE"):
            typer.echo(f"  export {name}={environment[name]}")
        typer.echo("Ctrl-C stops everything; what was stored stays.")
        while not stop.wait(1.0):
            if not all(child.is_running() for child in children):
                typer.echo("leukoflow: a process ended by itself; its log says why", err=True)
                raise typer.Exit(1)
