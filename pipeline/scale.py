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
from pipeline.spec import PipelineSpec

RED_CELL_UM = 7.5
"""Source: Bain, Blood Cells, 6th ed., ch. 2: red cells on a dried smear are 6.7 to 7.7 µm across."""

LEUKOCYTE_UM = 14.0
"""Diameter of a disc with the area of the median leukocyte, as the segmenter outlines it; measured on the
train splits of the data pack at the scales their red cells give."""

MIN_RED_CELLS = 4
PLAUSIBLE_UM = (0.03, 1.2)
"""From 150× oil immersion with a small camera pixel to a 10× objective."""

CANDIDATES_UM = (0.045, 0.07, 0.11, 0.17, 0.27, 0.45)
AGREEMENT = 0.2
"""Votes within ±22 % are about the same cells."""
PRESENCE = 0.1
MIN_STRENGTH = 0.5

MAX_SIDE_PX = 640
"""Candidate pictures are cut to this side: enough for a cell at every candidate scale."""


def scale_of(stated: Mpp | None, sample: Rgb, segmenter: Segmenter, spec: PipelineSpec) -> Scale:
    """Return the scale: what the file says, else a measurement on `sample` (level 0), else the default."""
    if stated is not None:
        return Scale(stated, ScaleSource.FILE)
    diameter_px0 = red_cell_diameter_px0(sample)
    if diameter_px0 is not None and _plausible(RED_CELL_UM / diameter_px0):
        return Scale(Mpp(RED_CELL_UM / diameter_px0), ScaleSource.RED_CELLS)
    by_leukocytes = leukocyte_mpp(sample, segmenter, spec)
    if by_leukocytes is not None:
        return Scale(by_leukocytes, ScaleSource.LEUKOCYTES)
    return Scale(Mpp(spec.assumed_mpp_um), ScaleSource.ASSUMED)


def _plausible(mpp_um: float) -> bool:
    return PLAUSIBLE_UM[0] <= mpp_um <= PLAUSIBLE_UM[1]


def red_cell_diameter_px0(sample: Rgb) -> float | None:
    """Return the median diameter of the free-lying round red cells, or None where fewer than `MIN_RED_CELLS`.

    Red cells are the stained, round, filled outlines that do not touch the border and hold no nucleus.
    """
    reduction = max(1.0, max(sample.shape[:2]) / 1200)
    small = resized(sample, Size(round(sample.shape[1] / reduction), round(sample.shape[0] / reduction)))
    outlines = _outlines(small)
    diameters = [d for d in (_round_diameter_px(outline, small) for outline in outlines) if d is not None]
    mode = _mode(diameters)
    return None if mode is None else mode * reduction


def _outlines(picture: Rgb) -> list[NDArray[np.int32]]:
    green = cv2.GaussianBlur(picture[..., 1], (0, 0), 1.0)
    _, stained = cv2.threshold(green, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(stained, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(contour, np.int32) for contour in contours if len(contour) >= 20]


def _round_diameter_px(outline: NDArray[np.int32], picture: Rgb) -> float | None:
    x, y, width, height = cv2.boundingRect(outline)
    if x <= 1 or y <= 1 or x + width >= picture.shape[1] - 1 or y + height >= picture.shape[0] - 1:
        return None
    area, around = cv2.contourArea(outline), cv2.arcLength(outline, closed=True)
    hull = cv2.contourArea(cv2.convexHull(outline))
    if area < 60 or 4 * pi * area / around**2 < 0.72 or area / hull < 0.93 or not 0.7 < width / height < 1.43:
        return None
    mask = np.zeros((height, width), np.uint8)
    cv2.drawContours(mask, [outline - np.array([x, y])], -1, 1, cv2.FILLED)
    own = picture[y : y + height, x : x + width][mask > 0].astype(np.int16)
    # A nucleus is blue: red falls with green. In a red cell red stays well above green, or green well up.
    violet = (own[:, 2] - own[:, 1] > 35) & (own[:, 1] < 140)
    if violet.mean() > 0.12:
        return None
    return 2 * sqrt(area / pi)


def _mode(diameters: list[float]) -> float | None:
    """Return the median of the best-filled band of ±18 %, or None where it holds too few."""
    if len(diameters) < MIN_RED_CELLS:
        return None
    logs = np.log(np.sort(diameters))
    # Weighted by area: a picture full of platelets and specks still has its scale from its red cells.
    weights = np.exp(2 * logs)
    fills = [float(weights[np.abs(logs - centre) < 0.18].sum()) for centre in logs]
    band = logs[np.abs(logs - logs[int(np.argmax(fills))]) < 0.18]
    return exp(float(np.median(band))) if len(band) >= MIN_RED_CELLS else None


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
