"""µm per pixel where the file does not say: measured on red cells, else on all cells there are, else assumed.

Few red cells and few leukocytes measure badly, each for itself: a lone leukocyte may be a small lymphocyte or
a promyelocyte twice as wide, and what looks like a red cell may be a speck. So all that is seen votes, with
the spread that its kind has, and cameras on oil immersion lenses are taken to be likelier than others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import exp, hypot, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.detect.instances import labelled_cells
from pipeline.measure.red_cells import RED_CELL_UM, free_red_cells_px0, mode_px0
from pipeline.model.domain import Rgb, Scale, ScaleSource
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.model.ports import OrderedPool, Segmenter
from pipeline.model.spec import PipelineSpec
from pipeline.sampling.crops import resized

LEUKOCYTE_UM = 14.0
"""Diameter of a disc with the area of the median leukocyte, as the segmenter outlines it; measured on the
train splits of the data pack at the scales their red cells give."""

PLAUSIBLE_UM = (0.03, 1.2)
"""From 150× oil immersion with a small camera pixel to a 10× objective."""

CANDIDATES_UM = (0.045, 0.07, 0.11, 0.17, 0.27)
"""Each shows the segmenter cells at a size that it knows, for scans within a factor of 1.6."""

PRIOR_SPREAD = 0.35
"""Of the natural logarithm of µm per pixel, around `PipelineSpec.assumed_mpp_um`: laboratories' cameras on
100× lenses lie between 0.05 and 0.2 (the data pack's sets: 0.07 to 0.17)."""
PRIOR_TAIL = 4.0
"""Degrees of freedom of Student's t, whose tails let strong evidence for an odd scale prevail."""

RED_CELL_SPREAD = 0.085
"""of the natural logarithm, as the others"""
RED_CELL_DOUBT = 0.25
"""How likely a round outline is something else, against a red cell at the peak of its spread."""
RED_CELLS_COUNTED = 4
"""More of them say no more than so many: they share a picture's blur and threshold."""

LEUKOCYTE_SPREAD = 0.21
LEUKOCYTE_DOUBT = 0.08
SURE_NUCLEUS = 0.2
"""share of a cell that is nucleus below which it may be none"""
FITTING = 0.48
"""A candidate at which cells come out this far, in the natural logarithm, from their size is not believed."""
CUT_BY_EDGE = 0.25
"""What a cell counts for with each edge of the picture that it touches: its size is a lower bound, or it is a
clump."""
CROP_SIDE_PX0 = 600
"""A smaller picture was cut around one cell: what lies in its middle counts most."""
ASIDE = 0.05
MIDDLE = 0.2
"""of the side, the distance from the middle at which a cell of a crop counts little"""

FULL_SUPPORT = 0.3
"""Leukocytes whose weights add up to less are that much less believed."""
LEAST_SUPPORT = 0.1

MAX_SIDE_PX = 640
"""Candidate pictures are cut to this side: enough for a cell at every candidate scale."""

_STEP = 0.01
_LOG_UM: NDArray[np.float64] = np.arange(log(PLAUSIBLE_UM[0]), log(PLAUSIBLE_UM[1]), _STEP)


@dataclass(frozen=True, slots=True)
class Vote:
    """One cell's: the scale at which it would be as large as its kind is, and what it counts for, 0 to 1."""

    um: float
    weight: float


def scale_of(
    stated: Mpp | None, sample: Rgb, segmenter: Segmenter, spec: PipelineSpec, pool: OrderedPool
) -> Scale:
    """Return the scale: what the file says, else a measurement on `sample` (level 0), else the default."""
    if stated is not None:
        return Scale(stated, ScaleSource.FILE)
    red_cells_px0 = free_red_cells_px0(sample)
    diameter_px0 = mode_px0(red_cells_px0)
    if diameter_px0 is not None and _plausible(RED_CELL_UM / diameter_px0):
        return Scale(Mpp(RED_CELL_UM / diameter_px0), ScaleSource.RED_CELLS)
    red_cells_um = [um for d in red_cells_px0 if _plausible(um := RED_CELL_UM / d)]
    votes = tuple(leukocyte_votes(sample, segmenter, spec, pool))
    return agreed(red_cells_um, votes, spec.assumed_mpp_um)


def _plausible(mpp_um: float) -> bool:
    return PLAUSIBLE_UM[0] <= mpp_um <= PLAUSIBLE_UM[1]


def agreed(red_cells_um: Sequence[float], leukocytes: Sequence[Vote], assumed_um: float) -> Scale:
    """Return the scale that everything seen agrees on best, by the mean of the likeliest mode.

    `red_cells_um`: what each free red cell says. Without any evidence near it the result is the prior's.
    """
    by_leukocytes = _support(leukocytes)
    evidence = _prior(assumed_um) + _by_red_cells(red_cells_um) + _by_leukocytes(by_leukocytes)
    top = int(np.argmax(evidence))
    near = np.abs(_LOG_UM - _LOG_UM[top]) < 2 * LEUKOCYTE_SPREAD
    belief = np.exp(evidence[near] - evidence[top])
    um = exp(float((belief * _LOG_UM[near]).sum() / belief.sum()))
    if any(abs(log(red / um)) < 2 * RED_CELL_SPREAD for red in red_cells_um):
        return Scale(Mpp(um), ScaleSource.RED_CELLS)
    if float(by_leukocytes[top]) >= LEAST_SUPPORT:
        return Scale(Mpp(um), ScaleSource.LEUKOCYTES)
    return Scale(Mpp(assumed_um), ScaleSource.ASSUMED)


def _prior(assumed_um: float) -> NDArray[np.float64]:
    off = (_LOG_UM - log(assumed_um)) / PRIOR_SPREAD
    return np.asarray(-(PRIOR_TAIL + 1) / 2 * np.log1p(off**2 / PRIOR_TAIL), np.float64)


def _by_red_cells(red_cells_um: Sequence[float]) -> NDArray[np.float64]:
    evidence = np.zeros_like(_LOG_UM)
    for um in red_cells_um:
        off = (_LOG_UM - log(um)) / RED_CELL_SPREAD
        evidence += np.log(RED_CELL_DOUBT + np.exp(-(off**2) / 2))
    return evidence * min(1.0, RED_CELLS_COUNTED / max(1, len(red_cells_um)))


def _by_leukocytes(support: NDArray[np.float64]) -> NDArray[np.float64]:
    most = float(support.max())
    # Candidates that agree, each with a weight up to 1, are so many witnesses.
    return np.asarray(
        max(1.0, most) * np.log(LEUKOCYTE_DOUBT + support / max(FULL_SUPPORT, most)), np.float64
    )


def _support(votes: Sequence[Vote]) -> NDArray[np.float64]:
    support = np.zeros_like(_LOG_UM)
    for vote in votes:
        support += vote.weight * np.exp(-(((_LOG_UM - log(vote.um)) / LEUKOCYTE_SPREAD) ** 2) / 2)
    return support


def leukocyte_votes(
    sample: Rgb, segmenter: Segmenter, spec: PipelineSpec, pool: OrderedPool
) -> Iterator[Vote]:
    """Return the votes of the leukocytes that the segmenter sees in the middle of the sample.

    It sees the sample as if it had each candidate scale. Candidates near the truth outline the same cells and
    imply the same scale; one far off outlines lobes, platelets or clumps, each of another size. The cells of
    one candidate share one vote by their areas: platelets are many, and small.
    """
    counted = _centrality if max(sample.shape[:2]) < CROP_SIDE_PX0 else _wherever

    def votes(candidate_um: float) -> tuple[Vote, ...]:
        factor = candidate_um / spec.working_mpp_um
        width, height = round(sample.shape[1] * factor), round(sample.shape[0] * factor)
        picture = _centred(resized(sample, Size(max(1, width), max(1, height))))
        probabilities = segmenter.segment(_padded(picture, segmenter.stride_px)[None])[0]
        probabilities = probabilities[:, : picture.shape[0], : picture.shape[1]]
        return tuple(_votes(probabilities, candidate_um, spec, counted))

    return chain.from_iterable(pool.map(votes, CANDIDATES_UM))


def _votes(
    probabilities: NDArray[np.float32],
    candidate_um: float,
    spec: PipelineSpec,
    counted: Callable[[Rect, Size], float],
) -> Iterator[Vote]:
    cell_p, nucleus_p = probabilities[1] + probabilities[2], np.ascontiguousarray(probabilities[2])
    labels, boxes = labelled_cells(cell_p, nucleus_p, spec.working_mpp_um, spec)
    size = Size(cell_p.shape[1], cell_p.shape[0])
    areas_px = np.bincount(labels.ravel(), minlength=max((label for label, _ in boxes), default=0) + 1)
    all_px = sum(int(areas_px[label]) for label, _ in boxes)
    for label, box in boxes:
        rows, columns = slice(box.y, box.bottom), slice(box.x, box.right)
        own = labels[rows, columns] == label
        nucleus = float((nucleus_p[rows, columns][own] > spec.nucleus_threshold).mean())
        diameter_um = 2 * sqrt(float(areas_px[label]) / pi) * spec.working_mpp_um
        misfit = log(diameter_um / LEUKOCYTE_UM)
        weight = float(areas_px[label]) / all_px * float(cell_p[rows, columns][own].mean())
        weight *= min(1.0, nucleus / SURE_NUCLEUS)
        weight *= exp(-((misfit / FITTING) ** 2)) * CUT_BY_EDGE ** _edges(box, size) * counted(box, size)
        um = candidate_um * LEUKOCYTE_UM / diameter_um
        yield Vote(min(max(um, PLAUSIBLE_UM[0]), PLAUSIBLE_UM[1]), weight)


def _edges(box: Rect, size: Size) -> int:
    return (box.x <= 0) + (box.y <= 0) + (box.right >= size.width) + (box.bottom >= size.height)


def _wherever(_box: Rect, _size: Size) -> float:
    return 1.0


def _centrality(box: Rect, size: Size) -> float:
    x = (box.x + box.width / 2) / size.width - 0.5
    y = (box.y + box.height / 2) / size.height - 0.5
    return ASIDE + (1 - ASIDE) * exp(-((hypot(x, y) / MIDDLE) ** 2))


def _centred(picture: Rgb) -> Rgb:
    top = max(0, (picture.shape[0] - MAX_SIDE_PX) // 2)
    left = max(0, (picture.shape[1] - MAX_SIDE_PX) // 2)
    return picture[top : top + MAX_SIDE_PX, left : left + MAX_SIDE_PX]


def _padded(picture: Rgb, stride_px: int) -> Rgb:
    down, right = -picture.shape[0] % stride_px, -picture.shape[1] % stride_px
    return np.pad(picture, ((0, down), (0, right), (0, 0)), constant_values=255)
