"""models quantise: networks that compute with bytes, where the accuracy gate lets them."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from worker.cli.bundles import asked_bundle
from worker.cli.model_figures import BundleFolder
from worker.cli.training import DataRoot, require_training_extra


def quantise(
    bundle: BundleFolder,
    data: DataRoot,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="A trial on at most so many val pictures a set; the bundle stays as it is."),
    ] = None,
) -> None:
    """Write int8 files beside the bundle's networks, those whose figures on val stay as good as they were.

    No Dice and no macro-F1 may fall by more than 0.005; the manifest says what was measured, and which
    networks stay as they are.
    """
    require_training_extra()
    manifest = asked_bundle(bundle).manifest
    from pipeline.training.export.int8_gate import quantise_bundle, read_pictures

    pictures = read_pictures(manifest, data, limit)
    if limit is None:
        told = quantise_bundle(bundle, pictures, typer.echo)
        typer.echo(f"{told.name} {told.version}: {told.digest}")
        return
    with TemporaryDirectory() as folder:
        copy = shutil.copytree(bundle, Path(folder) / "trial")
        quantise_bundle(copy, pictures, typer.echo)
    typer.echo("a trial: nothing was written")
