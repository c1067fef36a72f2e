"""The processes: watch, worker, up; and the schema."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import make_url

from db.database import Database
from db.granting import roles_sql
from db.roles import Role
from db.schema import add_login, apply_roles, require_current, upgrade
from pipeline.model.errors import UsageError
from worker.cli.bundles import EngineOption
from worker.embedded import EmbeddedSet, FixedPorts
from worker.embedded.leukoflow_processes import running_leukoflow
from worker.ingest.watcher import Watcher
from worker.observability import logs
from worker.observability.health import Services, WatcherHealth
from worker.observability.health_server import served
from worker.observability.healthcheck import query
from worker.observability.watcher_metrics import WatcherMetrics
from worker.processing.worker_process import run_worker
from worker.queue.celery_app import CeleryQueue, make_app
from worker.settings import DatabaseSettings, ServedSettings, Settings, load
from worker.storage.object_store import open_object_store

db = typer.Typer(help="The database schema.", no_args_is_help=True)


@db.command("upgrade")
def upgrade_schema() -> None:
    """Bring the schema to this release's revision."""
    typer.echo(f"schema at revision {upgrade(_database_url())}")


@db.command("roles")
def roles(
    only_print: Annotated[
        bool, typer.Option("--print", help="Print what makes the roles, for an administrator; do nothing.")
    ] = False,
) -> None:
    """Make the roles that processes and people log in as members of, and give each what it needs.

    As the owner of the database, after `leukoflow db upgrade`. A second time changes nothing.
    """
    if only_print:
        typer.echo(roles_sql(make_url(_database_url()).username or "owner"), nl=False)
        return
    url = _database_url()
    require_current(url)
    made = apply_roles(url)
    typer.echo(f"made {', '.join(made)}" if made else "every role was there")
    typer.echo("each has what it needs; the tables belong to leukoflow_migrator")


@db.command("login")
def login(
    name: Annotated[str, typer.Argument(help="The login.")],
    role: Annotated[Role, typer.Argument(help="What it may do.")],
    password_file: Annotated[Path, typer.Option(help="File with its password.", dir_okay=False)],
) -> None:
    """Let a process or a person log in to the database as a member of a role."""
    try:
        password = password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{password_file} cannot be read", code="file_unreadable") from error
    add_login(_database_url(), name, role, password)
    typer.echo(f"{name} may log in as a member of {role}")


def _database_url() -> str:
    return load(DatabaseSettings).database_url.get_secret_value()


def watch() -> None:
    """Watch the bucket: register new scans, send them to workers, take scans from silent workers."""
    settings = load(Settings)
    logs.configure(settings.log_level)
    require_current(settings.database_url.get_secret_value())
    metrics = WatcherMetrics()
    with Database(settings.database_url.get_secret_value()) as database:
        services = Services(
            database, open_object_store(settings, settings.bucket_scans), CeleryQueue(make_app(settings))
        )
        watcher = Watcher(settings, database, services.store, services.queue, metrics)
        health = WatcherHealth(services, metrics)
        with served(settings, metrics.registry, health), health.probing():
            watcher.run(_stop_event())


def worker(engine: EngineOption = None) -> None:
    """Analyse scans. Start as many as there are machines; SIGTERM lets the running scans finish."""
    settings = load(Settings) if engine is None else load(Settings, engine=engine)
    logs.configure(settings.log_level)
    raise typer.Exit(run_worker(settings))


def healthcheck(
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it is ready, and not whether it lives.")
    ] = False,
) -> None:
    """Ask the watcher or worker that LEUKOFLOW_METRICS_PORT names how it is; exit code 0 or 1."""
    yes, sentence = query(load(ServedSettings), "/ready" if ready else "/live")
    typer.echo(sentence)
    raise typer.Exit(0 if yes else 1)


def up(
    state: Annotated[Path, typer.Option(help="Folder of the servers' data.")] = Path("build/up"),
    s3_port: Annotated[int | None, typer.Option(help="Port of the object store.")] = None,
) -> None:
    """Start the embedded set, a watcher and a worker; print where they are; stay until Ctrl-C."""
    stop = _stop_event()
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


def _stop_event() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
