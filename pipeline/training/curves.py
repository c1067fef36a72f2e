"""Training curves as pictures: loss and accuracy, train and val, by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.training.progress import EpochRecord


def draw_curves(title: str, history: Sequence[EpochRecord], target: Path) -> None:
    """Write a PNG with two panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    epochs = [record.epoch + 1 for record in history]
    panels = {
        "loss": ([r.train_loss for r in history], [r.val_loss for r in history]),
        "accuracy": ([r.train_accuracy for r in history], [r.val_accuracy for r in history]),
    }
    for position, (name, (train, val)) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, 2, position)
        axes.plot(epochs, train, marker="o", label="train (varied)")
        axes.plot(epochs, val, marker="o", label="val")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(target, dpi=110)
