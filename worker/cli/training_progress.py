"""train, with its progress on the terminal."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline.training.command import train
from pipeline.training.fit.event_files import EventFiles
from pipeline.training.fit.progress import EpochRecord
from pipeline.training.recipe.overrides import Overrides


class ProgressOutput(Enum):
    """Where the progress of a training run is shown."""

    TERMINAL = "terminal"
    TERMINAL_AND_TENSORBOARD = "terminal and tensorboard"


def train_with_progress(
    recipe: str, data: Path, run: Path, overrides: Overrides, output: ProgressOutput
) -> None:
    """Train the networks of a recipe into the folder `run`. Raises: UsageError, as `command.train`."""
    console = Console(markup=False)
    with _Bars(console) as bars:
        progress = EventFiles(run, bars) if output is ProgressOutput.TERMINAL_AND_TENSORBOARD else bars
        trained = train(recipe, data, run, progress, overrides)
    for network in trained:
        kept = network.kept
        console.print(
            f"{network.name}: val accuracy {kept.val_accuracy:.4f} in epoch {kept.epoch + 1}, "
            f"weights {network.weights_sha256[:12]}",
            highlight=False,
        )
    console.print(f"weights, histories and curves: {run}")


class _Bars:
    """A `TrainingProgress` on the terminal: a bar for each epoch, and a line when it is complete."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, transient=True,
        )  # fmt: skip
        self._bar: tuple[str, int, TaskID] | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stepped(self, network: str, epoch: int, step: int, steps: int) -> None:
        """Move the epoch's bar."""
        if self._bar is None or self._bar[:2] != (network, epoch):
            self._drop_bar()
            task = self._progress.add_task(f"{network}, epoch {epoch + 1}", total=steps)
            self._bar = (network, epoch, task)
        self._progress.update(self._bar[2], completed=step)

    def finished_epoch(self, network: str, record: EpochRecord, epochs: int) -> None:
        """Print the epoch's figures."""
        self._drop_bar()
        self._progress.console.print(
            f"{network} {record.epoch + 1}/{epochs}: "
            f"loss {record.train_loss:.4f}, val {record.val_loss:.4f}; "
            f"accuracy {record.train_accuracy:.4f}, val {record.val_accuracy:.4f}; {record.seconds_s:.0f} s",
            highlight=False,
        )

    def says(self, sentence: str) -> None:
        """Print a remark."""
        self._progress.console.print(sentence, highlight=False)

    def _drop_bar(self) -> None:
        if self._bar is not None:
            self._progress.remove_task(self._bar[2])
            self._bar = None
