"""models: which bundles there are, and whether one is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from pipeline.bundle.int8_figures import Precision
from pipeline.runtime.bundle_loader import SHIPPED, Bundle
from worker.cli import model_figures
from worker.cli.bundles import asked_settings, bundle_in_use
from worker.cli.engines import build_engines
from worker.cli.quantise import quantise
from worker.cli.training import require_training_extra

models = typer.Typer(help="Model bundles.", no_args_is_help=True)
models.command("build-engines")(build_engines)
models.command("card")(model_figures.card)
models.command("threshold")(model_figures.threshold)
models.command("time")(model_figures.time)
models.command("quantise")(quantise)


@models.command("list")
def list_bundles() -> None:
    """List the shipped bundles with their networks, and the digests that their results carry."""
    console = Console(markup=False)
    for folder in sorted(path.parent for path in SHIPPED.parent.glob("*/manifest.json")):
        bundle = bundle_in_use(asked_settings(folder, None))
        console.print(_bundle_table(bundle))
        for line in _digest_lines(bundle):
            typer.echo(line)


@models.command("verify")
def verify(
    bundle: Annotated[Path | None, typer.Argument(help="Folder of the bundle; none: the one in use.")] = None,
) -> None:
    """Check every file of a bundle against its manifest; exit code 2 where it does not fit."""
    found = bundle_in_use(asked_settings(bundle, None))
    typer.echo(f"{found.manifest.name} {found.manifest.version} is whole.")
    for line in _digest_lines(found):
        typer.echo(line)


@models.command("export")
def export(
    segmenter: Annotated[
        list[Path],
        typer.Option(help="Run folder of a segmenter: the light U-Net's, and again for each other."),
    ],
    classifier: Annotated[Path, typer.Option(help="Run folder of the classifiers.")],
    data: Annotated[Path, typer.Option(help="Folder of the data sets; its val splits give the figures.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new bundle.")],
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "leukoflow",
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = "0",
    views: Annotated[int, typer.Option(help="Views of a crop that are averaged: 1, 2 or 4.")] = 1,
    storage: Annotated[
        Literal["float16", "float32"],
        typer.Option(help="How files hold the weights; networks compute in float32 either way."),
    ] = "float16",
) -> None:
    """Make a bundle of trained networks: ONNX files, and the manifest that says from what and how well."""
    require_training_extra()
    from pipeline.training.command import export_bundle
    from pipeline.training.export.bundle_export import BundleName, ExportOptions, Runs
    from pipeline.training.export.weight_storage import Storage

    runs, making = Runs(tuple(segmenter), classifier), ExportOptions(views, Storage(storage))
    manifest = export_bundle(runs, data, out, BundleName(name, version), making)
    typer.echo(f"{manifest.name} {manifest.version}: {manifest.digest}")


def _digest_lines(bundle: Bundle) -> Iterator[str]:
    """Yield a heading, then for each profile and precision the digest of results, whole, to be copied."""
    yield "Results carry the digest of the profile and the precision; * is in use here:"
    labels: dict[str, str] = {}
    for entry in bundle.manifest.segmenter.profiles:
        for precision in Precision:
            label = f"{entry.profile:8} {precision}"
            labels.setdefault(bundle.manifest.digest_of(entry.profile, precision), label)
    for digest, label in labels.items():
        yield f"{'*' if digest == bundle.digest else ' '} {label} {digest}"


def _bundle_table(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    table = Table(
        title=f"{manifest.name} {manifest.version}", title_justify="left",
        caption=f"trained on {manifest.trained_on}", caption_justify="left",
    )  # fmt: skip
    for heading in ("network", "file", "parameters", "MB", "profiles"):
        table.add_column(heading)
    for member in (*manifest.segmenter.members, *manifest.classifier.members):
        size_mb = f"{bundle.file_of(member).stat().st_size / 1e6:.1f}"
        table.add_row(
            member.name, member.file, f"{member.parameters:,}", size_mb, manifest.profiles_of(member)
        )
    return table
