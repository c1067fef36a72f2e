"""train. It needs the `train` extra."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UsageError

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


def require_training_extra() -> None:
    """Raises: UsageError, where torch is not installed."""
    if find_spec("torch") is None:
        raise UsageError(
            "training needs torch; install it with: pip install 'leukoflow[train]'", code="extra_missing"
        )
