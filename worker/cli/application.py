"""The commands, put together. The modules of one are imported when it is needed: all of them take seconds."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from importlib.metadata import version
from typing import Annotated

import typer


class Command(StrEnum):
    """The commands and groups of commands, in the order of the help."""

    DEMO = "demo"
    UP = "up"
    WATCH = "watch"
    WORKER = "worker"
    HEALTHCHECK = "healthcheck"
    SUBMIT = "submit"
    STATUS = "status"
    SCANS = "scans"
    RESULTS = "results"
    ASSIGN = "assign"
    REQUEUE = "requeue"
    REANALYSE = "reanalyse"
    RETAIN = "retain"
    SWEEP = "sweep"
    ANALYSE = "analyse"
    SYNTH = "synth"
    TRAIN = "train"
    EVALUATE = "evaluate"
    QUARANTINE = "quarantine"
    MODELS = "models"
    DB = "db"


def application(command: Command | None = None) -> typer.Typer:
    """Return the command line with one command; with all, where it is None."""
    app = typer.Typer(
        name="leukoflow",
        help="A blood-smear scan dropped into a bucket becomes a patient's leukocyte differential.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in Command if command is None else (command,):
        implementation = _implementation(name)
        if isinstance(implementation, typer.Typer):
            app.add_typer(implementation, name=name)
        else:
            app.command(name)(implementation)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("leukoflow"))
        raise typer.Exit


def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Not a medical device: for research and for the evaluation of workflows."""


def _implementation(command: Command) -> Callable[..., object] | typer.Typer:
    match command:
        case Command.DEMO:
            from worker.cli.demo import demo

            return demo
        case Command.UP:
            from worker.cli.up import up

            return up
        case Command.WATCH:
            from worker.cli.watch import watch

            return watch
        case Command.WORKER:
            from worker.cli.worker import worker

            return worker
        case Command.HEALTHCHECK:
            from worker.cli.probe import healthcheck

            return healthcheck
        case Command.SUBMIT:
            from worker.cli.submit import submit

            return submit
        case Command.STATUS:
            from worker.cli.status import status

            return status
        case Command.SCANS:
            from worker.cli.scans import scans

            return scans
        case Command.RESULTS:
            from worker.cli.patient_results import results

            return results
        case Command.ASSIGN:
            from worker.cli.scans import assign

            return assign
        case Command.REQUEUE:
            from worker.cli.scans import requeue

            return requeue
        case Command.REANALYSE:
            from worker.cli.housekeeping import reanalyse

            return reanalyse
        case Command.RETAIN:
            from worker.cli.housekeeping import retain

            return retain
        case Command.SWEEP:
            from worker.cli.housekeeping import sweep

            return sweep
        case Command.ANALYSE:
            from worker.cli.analyse import analyse

            return analyse
        case Command.SYNTH:
            from worker.cli.synth import synth

            return synth
        case Command.TRAIN:
            from worker.cli.training import train

            return train
        case Command.EVALUATE:
            from worker.cli.evaluation import evaluate

            return evaluate
        case Command.QUARANTINE:
            from worker.cli.scans import quarantine

            return quarantine
        case Command.MODELS:
            from worker.cli.models import models

            return models
        case Command.DB:
            from worker.cli.database_schema import db

            return db
