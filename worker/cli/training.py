"""train and evaluate. Training needs the `train` extra; nothing else does."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UsageError
from worker.cli.bundles import ProfileOption
from worker.cli.evaluation import evaluate_and_print

DataRoot = Annotated[Path, typer.Option("--data", help="Folder of the data sets, each with labels.csv.")]


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a TOML file.")],
    data: DataRoot,
    run: Annotated[Path, typer.Option(help="Folder for checkpoints, curves and weights.")] = Path("runs/run"),
) -> None:
    """Train the networks of a recipe; go on from the last checkpoint where the run was ended."""
    require_training_extra()
    from worker.cli.training_progress import train_with_progress

    train_with_progress(recipe, data, run)


def evaluate(
    data: DataRoot,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; none: the shipped one.")] = None,
    profile: ProfileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many scans a set.")] = None,
) -> None:
    """Measure a bundle on the val splits: classes, outlines, detection, by data set."""
    evaluate_and_print(data, bundle, profile, as_json=as_json, limit=limit)


def require_training_extra() -> None:
    """Raises: UsageError, where torch is not installed."""
    if find_spec("torch") is None:
        raise UsageError(
            "training needs torch; install it with: pip install 'leukoflow[train]'", code="extra_missing"
        )
