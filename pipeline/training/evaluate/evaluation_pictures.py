"""An evaluation as pictures: small PNGs for a model card."""

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
from pipeline.training.evaluate.end_to_end import Answer, Found, PictureScore
from pipeline.training.evaluate.probability_calibration import reliability, risk_coverage
from pipeline.training.evaluate.set_report import confusion_of, scored_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BYTES = 150_000
MISTAKES = 16
_COLUMNS = 4
_CROP_PX = 88
_MARGIN = 0.35
"""of the longer side of a box, shown around it"""
_DPIS = (110, 90, 75, 60, 48)
_COLOURS = 96


@dataclass(frozen=True, slots=True)
class Mistake:
    """A labelled cell that was called wrongly."""

    data_set: str
    picture: str
    truth: CellClass
    found: Found


def draw_reliability(scores: Sequence[PictureScore], target: Path) -> None:
    """Write the reliability diagram of the found cells, with the share of cells in each bin."""
    answers = _found(scores)
    probabilities = np.array([found.probability for _, found in answers], np.float64)
    bins = reliability(probabilities, np.array([answer.right for answer, _ in answers], np.bool_))
    figure, axes = _figure(4.4, 4.0)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="calibrated")
    axes.plot([b.mean_probability for b in bins], [b.accuracy for b in bins], marker="o", label="measured")
    total = sum(b.n for b in bins)
    axes.bar(
        [b.low for b in bins], [b.n / total for b in bins], width=bins[0].high - bins[0].low if bins else 0.1,
        align="edge", alpha=0.25, label="share of cells",
    )  # fmt: skip
    axes.set_xlabel("probability of the called group")
    axes.set_ylabel("share that is right")
    axes.legend()
    _save(figure, target)


def draw_risk_coverage(scores: Sequence[PictureScore], accept_probability: float, target: Path) -> None:
    """Write the curve of each set: the error among the called cells by the share that is called."""
    figure, axes = _figure(5.6, 4.0)
    for name in dict.fromkeys(score.data_set for score in scores):
        cells = scored_cells([score for score in scores if score.data_set == name])
        points = risk_coverage(cells.scores, cells.right)
        if points:
            axes.plot([p.coverage for p in points], [p.risk for p in points], label=name.replace("_", " "))
            shipped = [p for p in points if p.threshold >= accept_probability]
            if shipped:
                axes.plot(shipped[-1].coverage, shipped[-1].risk, marker="o", color="black", markersize=4)
    axes.set_xlabel(f"coverage (dot: probability ≥ {accept_probability:.2f})")
    axes.set_ylabel("share of wrong calls among the called")
    axes.legend(fontsize=7)
    _save(figure, target)


def draw_confusion(title: str, scores: Sequence[PictureScore], target: Path) -> None:
    """Write the table of truth by best guess as a picture; colours are shares of the row."""
    table = _used(confusion_of([answer for score in scores for answer in score.answers]))
    counts = np.array(table.counts)
    figure, axes = _figure(5.4, 4.8)
    axes.imshow(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    names = [name.replace("_", " ") for name in table.names]
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("answer")
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
    """Return the wrong calls with the highest probability, of sets whose pictures may be shown."""
    mistakes = [
        Mistake(score.data_set, score.picture, answer.truth, found)
        for score in scores
        if score.data_set in ALL_SOURCES and ALL_SOURCES[score.data_set].shippable
        for answer, found in _found([score])
        if not answer.right
    ]
    return tuple(sorted(mistakes, key=lambda m: (-m.found.probability, m.picture))[:most])


def draw_mistakes(mistakes: Sequence[Mistake], data_root: Path, target: Path) -> None:
    """Write a contact sheet: each cell with its truth, what was said, how surely, and its set."""
    rows = max(1, -(-len(mistakes) // _COLUMNS))
    figure = _canvas(6.4, 1.95 * rows)
    for position, mistake in enumerate(mistakes, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, position)
        axes.imshow(_crop(read_rgb(data_root / mistake.picture), mistake.found.bbox_px0))
        axes.set_axis_off()
        axes.set_title(
            f"{_short(mistake.truth)}\nsaid {_short(mistake.found.said)} {mistake.found.probability:.2f}\n"
            f"{mistake.data_set}",
            fontsize=6,
        )
    _save(figure, target)


def _found(scores: Sequence[PictureScore]) -> list[tuple[Answer, Found]]:
    return [(a, a.found) for score in scores for a in score.answers if a.found is not None]


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
    place = Rect(x, y, side, side).intersection(Rect(0, 0, picture.shape[1], picture.shape[0]))
    crop = picture[place.y : place.bottom, place.x : place.right]
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
    """Write a palette PNG, as fine as fits into `MOST_BYTES`."""
    body = b""
    for dpi in _DPIS:
        drawn = BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        small = BytesIO()
        Image.open(drawn).convert("RGB").quantize(_COLOURS).save(small, format="PNG", optimize=True)
        body = small.getvalue()
        if len(body) <= MOST_BYTES:
            break
    try:
        target.write_bytes(body)
    except OSError as error:
        raise UsageError(f"'{target.name}' cannot be written.", code="file_unusable") from error
