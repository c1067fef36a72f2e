"""Training curves for TensorBoard."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from pipeline.model.errors import UsageError
from pipeline.training.fit.progress import EpochRecord, TrainingProgress

FOLDER = "tensorboard"


class _Writer(Protocol):
    def add_scalar(self, tag: str, value: float, step: int) -> None: ...

    def flush(self) -> None: ...


class EventFiles:
    """A `TrainingProgress` that writes each epoch's figures into event files and forwards every call."""

    def __init__(self, run_dir: Path, listener: TrainingProgress) -> None:
        """Raises: UsageError, where TensorBoard is not installed."""
        if find_spec("tensorboard") is None:
            raise UsageError(
                "TensorBoard is not installed; install it with: pip install 'leukoflow[tensorboard]'",
                code="extra_missing",
            )
        self._folder = run_dir / FOLDER
        self._listener = listener
        self._writers: dict[str, _Writer] = {}

    def stepped(self, network: str, epoch: int, step: int, steps: int) -> None:
        """Forward it."""
        self._listener.stepped(network, epoch, step, steps)

    def finished_epoch(self, network: str, record: EpochRecord, epochs: int) -> None:
        """Write the epoch's four figures and forward it."""
        from torch.utils.tensorboard import SummaryWriter

        if network not in self._writers:
            self._writers[network] = SummaryWriter(str(self._folder / network))
        writer = self._writers[network]
        writer.add_scalar("accuracy/train", record.train_accuracy, record.epoch + 1)
        writer.add_scalar("accuracy/val", record.val_accuracy, record.epoch + 1)
        writer.add_scalar("loss/train", record.train_loss, record.epoch + 1)
        writer.add_scalar("loss/val", record.val_loss, record.epoch + 1)
        writer.flush()
        self._listener.finished_epoch(network, record, epochs)

    def says(self, sentence: str) -> None:
        """Forward it."""
        self._listener.says(sentence)
