"""models quantise: int8 networks, where the accuracy gate admits them."""

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
        typer.Option(
            min=1, help="Try on at most this many val pictures of each set; the bundle is not changed."
        ),
    ] = None,
) -> None:
    """Write int8 files of the bundle's networks, where they are as accurate on val as FP32.

    No Dice and no macro-F1 may fall by more than 0.005. The manifest holds what was measured, and which
    networks stay in FP32.
    """
    require_training_extra()
    manifest = asked_bundle(bundle).manifest
    from pipeline.training.export.int8_gate import quantise_bundle, read_pictures

    pictures = read_pictures(manifest, data, limit)
    if limit is None:
        quantised = quantise_bundle(bundle, pictures, typer.echo)
        typer.echo(f"{quantised.name} {quantised.version}: {quantised.digest}")
        return
    with TemporaryDirectory() as folder:
        copy = shutil.copytree(bundle, Path(folder) / "trial")
        quantise_bundle(copy, pictures, typer.echo)
    typer.echo("trial run: nothing was written")
