"""The commands, put together."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from worker.cli import (
    analyse,
    demo,
    evaluation,
    housekeeping,
    model_figures,
    models,
    services,
    status,
    submit,
    synth,
    training,
)
from worker.cli import patient_results as results
from worker.cli import quantise as quantising
from worker.cli import scans as ledger

app = typer.Typer(
    name="leukoflow",
    help="A blood-smear scan dropped into a bucket becomes a patient's leukocyte differential.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("demo")(demo.demo)
app.command("up")(services.up)
app.command("watch")(services.watch)
app.command("worker")(services.worker)
app.command("healthcheck")(services.healthcheck)
app.command("submit")(submit.submit)
app.command("status")(status.status)
app.command("scans")(ledger.scans)
app.command("results")(results.results)
app.command("assign")(ledger.assign)
app.command("requeue")(ledger.requeue)
app.command("reanalyse")(housekeeping.reanalyse)
app.command("retain")(housekeeping.retain)
app.command("sweep")(housekeeping.sweep)
app.command("analyse")(analyse.analyse)
app.command("synth")(synth.synth)
app.command("train")(training.train)
app.command("evaluate")(evaluation.evaluate)
app.add_typer(ledger.quarantine, name="quarantine")
models.models.command("card")(model_figures.card)
models.models.command("threshold")(model_figures.threshold)
models.models.command("time")(model_figures.time)
models.models.command("quantise")(quantising.quantise)
app.add_typer(models.models, name="models")
app.add_typer(services.db, name="db")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("leukoflow"))
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Not a medical device: for research and for the evaluation of workflows."""
