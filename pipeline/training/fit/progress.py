"""Progress of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of a network's history. Accuracy is that of the task: of classes, or Dice of tissues."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds_s: float


class TrainingProgress(Protocol):
    """Receives steps, completed epochs and messages."""

    def stepped(self, network: str, epoch: int, step: int, steps: int) -> None: ...

    def finished_epoch(self, network: str, record: EpochRecord, epochs: int) -> None: ...

    def says(self, sentence: str) -> None: ...
