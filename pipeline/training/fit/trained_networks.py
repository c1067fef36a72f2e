"""Trains the networks of a run one after the other; each has a folder with weights, history and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from pipeline.training.fit.curves import draw_curves
from pipeline.training.fit.progress import EpochRecord, TrainingProgress
from pipeline.training.fit.training_loop import (
    BEST_FILE,
    Task,
    TrainableNetwork,
    fit,
    kept_epoch,
    weights_digest,
)
from pipeline.training.recipe.recipes import Schedule


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """One network of a training run, with its history."""

    name: str
    history: tuple[EpochRecord, ...]
    kept: EpochRecord
    """the epoch whose weights are kept"""
    weights_sha256: str

    def facts(self) -> dict[str, object]:
        """Return the network's entry in the run folder's results."""
        return {
            "name": self.name,
            "epochs": len(self.history),
            "kept_epoch": self.kept.epoch + 1,
            "train_accuracy": round(self.kept.train_accuracy, 4),
            "val_accuracy": round(self.kept.val_accuracy, 4),
            "weights_sha256": self.weights_sha256,
        }


def fit_all(
    networks: Sequence[TrainableNetwork],
    task: Task,
    schedule: Schedule,
    run_dir: Path,
    progress: TrainingProgress,
) -> tuple[TrainedNetwork, ...]:
    """Return the trained networks; those already complete are not trained again."""
    trained: list[TrainedNetwork] = []
    for trainable in networks:
        folder = run_dir / trainable.name
        history = fit(trainable, task, schedule, folder, progress)
        draw_curves(trainable.name, history, folder / "curves.png")
        kept = history[kept_epoch(history, schedule.keep)]
        trained.append(
            TrainedNetwork(trainable.name, history, kept, weights_digest(load_file(folder / BEST_FILE)))
        )
    return tuple(trained)
