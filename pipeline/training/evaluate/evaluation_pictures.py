"""Figures of an evaluation as small PNGs for a model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from pipeline.model.domain import Rgb
from pipeline.model.errors import UsageError
from pipeline.model.geometry import Rect
from pipeline.model.taxonomy import CellClass
from pipeline.training.data.cell_metrics import Confusion
from pipeline.training.data.images import read_rgb
from pipeline.training.data.sources import ALL_SOURCES
from pipeline.training.evaluate.end_to_end import LabelledCell, PictureScore, Prediction
from pipeline.training.evaluate.probability_calibration import reliability, risk_coverage
from pipeline.training.evaluate.set_report import confusion_of, scored_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_BYTES = 150_000
MISTAKES = 16
_COLUMNS = 4
_CROP_PX = 88
_MARGIN = 0.35
"""of the longer side of a box, shown around it"""
_DPIS = (110, 90, 75, 60, 48)
_COLOURS = 96


@dataclass(frozen=True, slots=True)
class Mistake:
    """A labelled cell with a wrong prediction."""

    data_set: str
    picture: str
    truth: CellClass
    prediction: Prediction


def draw_reliability(scores: Sequence[PictureScore], target: Path) -> None:
    """Write the reliability diagram of the cells that were found, with the share of cells in each bin."""
    found = _found(scores)
    probabilities = np.array([prediction.probability for _, prediction in found], np.float64)
    bins = reliability(probabilities, np.array([cell.correct for cell, _ in found], np.bool_))
    figure, axes = _figure(4.4, 4.0)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="calibrated")
    axes.plot([b.mean_probability for b in bins], [b.accuracy for b in bins], marker="o", label="measured")
    total = sum(b.n for b in bins)
    axes.bar(
        [b.low for b in bins], [b.n / total for b in bins], width=bins[0].high - bins[0].low if bins else 0.1,
        align="edge", alpha=0.25, label="share of cells",
    )  # fmt: skip
    axes.set_xlabel("probability of the predicted group")
    axes.set_ylabel("accuracy")
    axes.legend()
    _save(figure, target)


def draw_risk_coverage(scores: Sequence[PictureScore], accept_probability: float, target: Path) -> None:
    """Write the risk-coverage curve of each set."""
    figure, axes = _figure(5.6, 4.0)
    for name in dict.fromkeys(score.data_set for score in scores):
        cells = scored_cells([score for score in scores if score.data_set == name])
        points = risk_coverage(cells.scores, cells.correct)
        if points:
            axes.plot([p.coverage for p in points], [p.risk for p in points], label=name.replace("_", " "))
            accepted = [p for p in points if p.threshold >= accept_probability]
            if accepted:
                axes.plot(accepted[-1].coverage, accepted[-1].risk, marker="o", color="black", markersize=4)
    axes.set_xlabel(f"coverage (dot: probability ≥ {accept_probability:.2f})")
    axes.set_ylabel("risk: error among the accepted calls")
    axes.legend(fontsize=7)
    _save(figure, target)


def draw_confusion(title: str, scores: Sequence[PictureScore], target: Path) -> None:
    """Write the confusion matrix of truth by prediction; colours are shares of the row."""
    table = _used(confusion_of([cell for score in scores for cell in score.cells]))
    counts = np.array(table.counts)
    figure, axes = _figure(5.4, 4.8)
    axes.imshow(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    names = [name.replace("_", " ") for name in table.names]
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.set_title(title)
    for row, column in np.argwhere(counts).tolist():
        dark = counts[row, column] > counts[row].sum() / 2
        axes.text(
            column, row, str(counts[row, column]), ha="center", va="center", fontsize=7,
            color="white" if dark else "black",
        )  # fmt: skip
    _save(figure, target)


def worst_mistakes(scores: Sequence[PictureScore], most: int = MISTAKES) -> tuple[Mistake, ...]:
    """Return the wrong predictions with the highest probability, of sets whose pictures may be shown."""
    mistakes = [
        Mistake(score.data_set, score.picture, cell.truth, prediction)
        for score in scores
        if score.data_set in ALL_SOURCES and ALL_SOURCES[score.data_set].shippable
        for cell, prediction in _found([score])
        if not cell.correct
    ]
    return tuple(sorted(mistakes, key=lambda m: (-m.prediction.probability, m.picture))[:most])


def draw_mistakes(mistakes: Sequence[Mistake], data_root: Path, target: Path) -> None:
    """Write a contact sheet: each cell with its truth, its prediction with the probability, and its set."""
    rows = max(1, -(-len(mistakes) // _COLUMNS))
    figure = _canvas(6.4, 1.95 * rows)
    for position, mistake in enumerate(mistakes, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, position)
        prediction = mistake.prediction
        axes.imshow(_crop(read_rgb(data_root / mistake.picture), prediction.bbox_px0))
        axes.set_axis_off()
        axes.set_title(
            f"{_short(mistake.truth)}\n→ {_short(prediction.cell_class)} {prediction.probability:.2f}\n"
            f"{mistake.data_set}",
            fontsize=6,
        )
    _save(figure, target)


def _found(scores: Sequence[PictureScore]) -> list[tuple[LabelledCell, Prediction]]:
    return [(c, c.prediction) for score in scores for c in score.cells if c.prediction is not None]


def _used(table: Confusion) -> Confusion:
    counts = np.array(table.counts)
    used = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)).tolist()
    return Confusion(
        tuple(table.names[index] for index in used),
        tuple(tuple(int(counts[row, column]) for column in used) for row in used),
    )


def _short(cell_class: CellClass) -> str:
    return cell_class.value.replace("_", " ")


def _crop(picture: Rgb, box: Rect) -> Rgb:
    side = round(max(box.width, box.height) * (1 + 2 * _MARGIN))
    x, y = box.x + box.width // 2 - side // 2, box.y + box.height // 2 - side // 2
    visible = Rect(x, y, side, side).intersection(Rect(0, 0, picture.shape[1], picture.shape[0]))
    crop = picture[visible.y : visible.bottom, visible.x : visible.right]
    return np.asarray(cv2.resize(crop, (_CROP_PX, _CROP_PX), interpolation=cv2.INTER_AREA), np.uint8)


def _figure(width_inch: float, height_inch: float) -> tuple[Figure, Axes]:
    figure = _canvas(width_inch, height_inch)
    axes = figure.add_subplot(1, 1, 1)
    axes.grid(alpha=0.2)
    return figure, axes


def _canvas(width_inch: float, height_inch: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure

    figure = MatplotlibFigure(figsize=(width_inch, height_inch), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, target: Path) -> None:
    """Write a palette PNG, at the highest resolution that fits into `MAX_BYTES`."""
    body = b""
    for dpi in _DPIS:
        drawn = BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        small = BytesIO()
        Image.open(drawn).convert("RGB").quantize(_COLOURS).save(small, format="PNG", optimize=True)
        body = small.getvalue()
        if len(body) <= MAX_BYTES:
            break
    try:
        target.write_bytes(body)
    except OSError as error:
        raise UsageError(f"'{target.name}' cannot be written.", code="file_unusable") from error
