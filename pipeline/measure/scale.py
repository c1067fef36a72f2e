"""Estimates µm per pixel if the file does not state it: from red cells, else from all cells, else assumed.

A few red cells or leukocytes alone are poor evidence: a single leukocyte may be a small lymphocyte or a
promyelocyte twice as wide, and a round outline may be a speck. So all cells are combined as votes with the
spread of their kind, with a prior for cameras on oil immersion lenses.
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
"""Diameter of a disc with the area of the median leukocyte as outlined by the segmenter; measured on the
train splits of the data pack, with the scale of their red cells."""

PLAUSIBLE_UM = (0.03, 1.2)
"""From 150× oil immersion with a small camera pixel to a 10× objective."""

CANDIDATES_UM = (0.045, 0.07, 0.11, 0.17, 0.27)
"""Each covers scans within a factor of 1.6, so that one shows the segmenter cells of a familiar size."""

PRIOR_SPREAD = 0.35
"""Of the natural logarithm of µm per pixel, around `PipelineSpec.assumed_mpp_um`: laboratories' cameras on
100× lenses lie between 0.05 and 0.2 (the data pack's sets: 0.07 to 0.17)."""
PRIOR_TAIL = 4.0
"""Degrees of freedom of Student's t, whose heavy tails allow strong evidence for an unusual scale."""

RED_CELL_SPREAD = 0.085
"""of the natural logarithm, like the other spreads"""
RED_CELL_DOUBT = 0.25
"""Likelihood that a round outline is something else, relative to a red cell at the peak of its
distribution."""
RED_CELLS_COUNTED = 4
"""More red cells count no more than this many, since they share the blur and threshold of the picture."""

LEUKOCYTE_SPREAD = 0.21
LEUKOCYTE_DOUBT = 0.08
SURE_NUCLEUS = 0.2
"""least share of nucleus in a certain cell"""
FITTING = 0.48
"""Tolerance, in the natural logarithm, of the cell size at a candidate scale."""
CUT_BY_EDGE = 0.25
"""Weight of a cell for each edge of the picture that it touches: its size is a lower bound, or it is a
clump."""
CROP_SIDE_PX0 = 600
"""A smaller picture is a crop around one cell, and its middle counts most."""
ASIDE = 0.05
MIDDLE = 0.2
"""relative distance from the middle at which a cell of a crop counts little"""

FULL_SUPPORT = 0.3
"""Total weight of leukocytes that counts as full evidence; less counts proportionally."""
LEAST_SUPPORT = 0.1

MAX_SIDE_PX = 640
"""Side to which candidate pictures are cropped: enough for a cell at every scale."""

_STEP = 0.01
_LOG_UM: NDArray[np.float64] = np.arange(log(PLAUSIBLE_UM[0]), log(PLAUSIBLE_UM[1]), _STEP)


@dataclass(frozen=True, slots=True)
class Vote:
    """The evidence of one cell: the scale at which it would have the typical size, and its weight, 0 to 1."""

    um: float
    weight: float


def scale_of(
    stated: Mpp | None, sample: Rgb, segmenter: Segmenter, spec: PipelineSpec, pool: OrderedPool
) -> Scale:
    """Return the stated scale, else an estimate from `sample` (level 0), else the default."""
    if stated is not None:
        return Scale(stated, ScaleSource.FILE)
    red_cells_px0 = free_red_cells_px0(sample)
    diameter_px0 = mode_px0(red_cells_px0)
    if diameter_px0 is not None and _plausible(RED_CELL_UM / diameter_px0):
        return Scale(Mpp(RED_CELL_UM / diameter_px0), ScaleSource.RED_CELLS)
    red_cells_um = [um for d in red_cells_px0 if _plausible(um := RED_CELL_UM / d)]
    votes = tuple(leukocyte_votes(sample, segmenter, spec, pool))
    return combined_scale(red_cells_um, votes, spec.assumed_mpp_um)


def _plausible(mpp_um: float) -> bool:
    return PLAUSIBLE_UM[0] <= mpp_um <= PLAUSIBLE_UM[1]


def combined_scale(red_cells_um: Sequence[float], leukocytes: Sequence[Vote], assumed_um: float) -> Scale:
    """Return the most probable scale, as the mean of the highest mode.

    `red_cells_um`: the scale implied by each free red cell. Without evidence the result is the prior.
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
    # Each candidate that agrees adds a weight of up to 1.
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
    """Return the votes of the leukocytes in the middle of the sample.

    The sample is segmented at each candidate scale. Candidates near the true scale outline the same cells and
    imply the same scale; others outline lobes, platelets or clumps of varying size. The cells of one
    candidate share one vote by area, because platelets are many and small.
    """
    position_weight = _centre_weight if max(sample.shape[:2]) < CROP_SIDE_PX0 else _uniform_weight

    def votes(candidate_um: float) -> tuple[Vote, ...]:
        factor = candidate_um / spec.working_mpp_um
        width, height = round(sample.shape[1] * factor), round(sample.shape[0] * factor)
        picture = _centred(resized(sample, Size(max(1, width), max(1, height))))
        probabilities = segmenter.segment(_padded(picture, segmenter.stride_px)[None])[0]
        probabilities = probabilities[:, : picture.shape[0], : picture.shape[1]]
        return tuple(_votes(probabilities, candidate_um, spec, position_weight))

    return chain.from_iterable(pool.map(votes, CANDIDATES_UM))


def _votes(
    probabilities: NDArray[np.float32],
    candidate_um: float,
    spec: PipelineSpec,
    position_weight: Callable[[Rect, Size], float],
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
        weight *= (
            exp(-((misfit / FITTING) ** 2)) * CUT_BY_EDGE ** _edges(box, size) * position_weight(box, size)
        )
        um = candidate_um * LEUKOCYTE_UM / diameter_um
        yield Vote(min(max(um, PLAUSIBLE_UM[0]), PLAUSIBLE_UM[1]), weight)


def _edges(box: Rect, size: Size) -> int:
    return (box.x <= 0) + (box.y <= 0) + (box.right >= size.width) + (box.bottom >= size.height)


def _uniform_weight(_box: Rect, _size: Size) -> float:
    return 1.0


def _centre_weight(box: Rect, size: Size) -> float:
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
