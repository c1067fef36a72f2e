"""train: the networks of a recipe. It needs the extra `train`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from pipeline.model.errors import UsageError

DataRoot = Annotated[Path, typer.Option("--data", help="Folder of the data sets.")]


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a TOML file.")],
    data: DataRoot,
    run: Annotated[Path, typer.Option(help="Folder for checkpoints, curves and weights.")] = Path("runs/run"),
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's seed.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's epochs.")] = None,
    folder: Annotated[
        list[str] | None, typer.Option(help="Train on this data set instead of the recipe's; repeatable.")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Train without this data set; repeatable.")
    ] = None,
    fold: Annotated[
        str | None, typer.Option(help="2/5: validate on the second of five parts, in whole groups.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Training run of a segmenter, which provides pseudo-labels.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write event files for TensorBoard.")
    ] = False,
) -> None:
    """Train the networks of a recipe; an interrupted run is resumed after its last complete epoch.

    Values given on the command line become part of the recipe in the run folder.
    """
    require_training_extra()
    from pipeline.training.fit.self_training import teacher_in
    from pipeline.training.recipe.overrides import Overrides
    from worker.cli.training_progress import ProgressOutput, train_with_progress

    overrides = Overrides(
        seed,
        epochs,
        tuple(folder or ()),
        tuple(leave_out or ()),
        fold,
        None if teacher is None else teacher_in(teacher),
    )
    output = ProgressOutput.TERMINAL_AND_TENSORBOARD if tensorboard else ProgressOutput.TERMINAL
    train_with_progress(recipe, data, run, overrides, output)


def require_training_extra() -> None:
    """Raises: UsageError, where torch is not installed."""
    if find_spec("torch") is None:
        raise UsageError(
            "training needs torch; install it with: pip install 'leukoflow[train]'", code="extra_missing"
        )
