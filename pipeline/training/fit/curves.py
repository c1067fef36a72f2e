"""Training curves as PNG: accuracy and loss by epoch, train and val, as in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.training.fit.progress import EpochRecord


def draw_curves(title: str, history: Sequence[EpochRecord], target: Path) -> None:
    """Write a PNG with two panels: accuracy on the left, loss on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    epochs = [record.epoch + 1 for record in history]
    panels = {
        "accuracy": ([r.train_accuracy for r in history], [r.val_accuracy for r in history]),
        "loss": ([r.train_loss for r in history], [r.val_loss for r in history]),
    }
    for position, (name, (train, val)) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, 2, position)
        axes.plot(epochs, train, marker="o", markersize=3, label="train (augmented)")
        axes.plot(epochs, val, marker="o", markersize=3, label="val")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(target, dpi=90)
