"""models: which bundles there are, and whether one is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.runtime.bundle import SHIPPED, Bundle, load_bundle
from worker.cli.training import require_training_extra
from worker.settings import load_local_settings

models = typer.Typer(help="Model bundles.", no_args_is_help=True)


@models.command("list")
def list_bundles() -> None:
    """List the shipped bundles with their networks."""
    console = Console(markup=False)
    for folder in sorted(path.parent for path in SHIPPED.parent.glob("*/manifest.json")):
        console.print(_bundle_table(load_bundle(folder)))


@models.command("verify")
def verify(
    bundle: Annotated[Path | None, typer.Argument(help="Folder of the bundle; none: the one in use.")] = None,
) -> None:
    """Check every file of a bundle against its manifest; exit code 78 where it does not fit."""
    chosen = load_local_settings().bundle if bundle is None else bundle
    manifest = load_bundle(chosen).manifest
    typer.echo(f"{manifest.name} {manifest.version} is whole: {manifest.digest}")


@models.command("export")
def export(
    segmenter: Annotated[Path, typer.Option(help="Run folder of the segmenter.")],
    classifier: Annotated[Path, typer.Option(help="Run folder of the classifiers.")],
    data: Annotated[Path, typer.Option(help="Folder of the data sets; its val splits give the figures.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new bundle.")],
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "leukoflow",
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = "0",
) -> None:
    """Make a bundle of trained networks: ONNX files, and the manifest that says from what and how well."""
    require_training_extra()
    from pipeline.training.bundle import BundleName, Runs
    from pipeline.training.command import export_bundle

    manifest = export_bundle(Runs(segmenter, classifier), data, out, BundleName(name, version))
    typer.echo(f"{manifest.name} {manifest.version}: {manifest.digest}")


def _bundle_table(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    table = Table(
        title=f"{manifest.name} {manifest.version}  {manifest.digest[:16]}", title_justify="left",
        caption=f"trained on {manifest.trained_on}", caption_justify="left",
    )  # fmt: skip
    for heading in ("network", "file", "parameters"):
        table.add_column(heading)
    table.add_row("segmenter", manifest.segmenter.file, "")
    for member in manifest.classifier.members:
        table.add_row(member.name, member.file, f"{member.parameters:,}")
    return table
