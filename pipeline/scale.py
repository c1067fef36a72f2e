"""µm per pixel where the file does not say: measured on red cells, else on leukocytes, else assumed."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, pi, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import Rgb, Scale, ScaleSource
from pipeline.geometry import Mpp, Size
from pipeline.ports import Segmenter
from pipeline.preprocess import resized
from pipeline.red_cells import RED_CELL_UM, mode_px0
from pipeline.spec import PipelineSpec

LEUKOCYTE_UM = 14.0
"""Diameter of a disc with the area of the median leukocyte, as the segmenter outlines it; measured on the
train splits of the data pack at the scales their red cells give."""

PLAUSIBLE_UM = (0.03, 1.2)
"""From 150× oil immersion with a small camera pixel to a 10× objective."""

CANDIDATES_UM = (0.045, 0.07, 0.11, 0.17, 0.27, 0.45)
AGREEMENT = 0.2
"""Votes within ±22 % are about the same cells."""
PRESENCE = 0.1
MIN_STRENGTH = 0.5

MAX_SIDE_PX = 640
"""Candidate pictures are cut to this side: enough for a cell at every candidate scale."""


def scale_of(
    stated: Mpp | None, sample: Rgb, red_cells_px0: Sequence[float], segmenter: Segmenter, spec: PipelineSpec
) -> Scale:
    """Return the scale: what the file says, else a measurement on `sample` (level 0), else the default."""
    if stated is not None:
        return Scale(stated, ScaleSource.FILE)
    diameter_px0 = mode_px0(red_cells_px0)
    if diameter_px0 is not None and _plausible(RED_CELL_UM / diameter_px0):
        return Scale(Mpp(RED_CELL_UM / diameter_px0), ScaleSource.RED_CELLS)
    by_leukocytes = leukocyte_mpp(sample, segmenter, spec)
    if by_leukocytes is not None:
        return Scale(by_leukocytes, ScaleSource.LEUKOCYTES)
    return Scale(Mpp(spec.assumed_mpp_um), ScaleSource.ASSUMED)


def _plausible(mpp_um: float) -> bool:
    return PLAUSIBLE_UM[0] <= mpp_um <= PLAUSIBLE_UM[1]


def leukocyte_mpp(sample: Rgb, segmenter: Segmenter, spec: PipelineSpec) -> Mpp | None:
    """Return the scale at which the leukocytes found are as large as leukocytes are, or None.

    The segmenter sees the sample as if it had each candidate scale. Candidates near the truth outline the
    same cells and imply the same scale; one far off outlines a lobe or a clump, and stands alone.
    """
    votes = [vote for um in CANDIDATES_UM if (vote := _vote(sample, um, segmenter, spec)) is not None]
    agreed = agreed_um(votes)
    return None if agreed is None else Mpp(min(max(agreed, PLAUSIBLE_UM[0]), PLAUSIBLE_UM[1]))


def agreed_um(votes: Sequence[tuple[float, float]]) -> float | None:
    """Return the implied scale that most votes (support, implied µm/px) agree on, or None without support.

    Of the votes that agree, each also counts `PRESENCE` for being there at all.
    """
    camps = [
        [(support, um) for support, um in votes if abs(log(um / centre)) < AGREEMENT] for _, centre in votes
    ]
    strength = [sum(support + PRESENCE for support, _ in camp) for camp in camps]
    if not camps or max(strength) < MIN_STRENGTH:
        return None
    best = camps[strength.index(max(strength))]
    total = sum(support + PRESENCE for support, _ in best)
    return exp(sum((support + PRESENCE) * log(um) for support, um in best) / total)


def _vote(
    sample: Rgb, candidate_um: float, segmenter: Segmenter, spec: PipelineSpec
) -> tuple[float, float] | None:
    """Return (support, implied µm per level-0 px) of one candidate."""
    factor = candidate_um / spec.working_mpp_um
    picture = _centred(
        resized(
            sample, Size(max(1, round(sample.shape[1] * factor)), max(1, round(sample.shape[0] * factor)))
        )
    )
    probabilities = segmenter.segment(_padded(picture, segmenter.stride_px)[None])[0]
    probabilities = probabilities[:, : picture.shape[0], : picture.shape[1]]
    cell = probabilities[1] + probabilities[2]
    areas, sureness = _cell_areas(cell, probabilities[2])
    if not areas:
        return None
    diameter_um = 2 * sqrt(float(np.median(areas)) / pi) * spec.working_mpp_um
    misfit = log(diameter_um / LEUKOCYTE_UM)
    return sureness * exp(-((misfit / 0.35) ** 2)), candidate_um * LEUKOCYTE_UM / diameter_um


def _cell_areas(cell: NDArray[np.float32], nucleus: NDArray[np.float32]) -> tuple[list[float], float]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats((cell > 0.5).astype(np.uint8), connectivity=4)
    areas: list[float] = []
    sure: list[float] = []
    for label in range(1, count):
        own = labels == label
        if stats[label, cv2.CC_STAT_AREA] < 80 or not (nucleus[own] > 0.5).any():
            continue
        areas.append(float(stats[label, cv2.CC_STAT_AREA]))
        sure.append(float(cell[own].mean()) * min(1.0, float((nucleus[own] > 0.5).mean()) / 0.2))
    return areas, float(np.mean(sure)) if sure else 0.0


def _centred(picture: Rgb) -> Rgb:
    top = max(0, (picture.shape[0] - MAX_SIDE_PX) // 2)
    left = max(0, (picture.shape[1] - MAX_SIDE_PX) // 2)
    return picture[top : top + MAX_SIDE_PX, left : left + MAX_SIDE_PX]


def _padded(picture: Rgb, stride_px: int) -> Rgb:
    down, right = -picture.shape[0] % stride_px, -picture.shape[1] % stride_px
    return np.pad(picture, ((0, down), (0, right), (0, 0)), constant_values=255)
