"""Joins lobes of one nucleus that were detected as separate cells because the pale cytoplasm was missed.

The lobes of a segmented neutrophil are smaller than any other nucleus, lie close together and fit into one
cell. Touching cells have none of these properties.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.geometry import Rect

LOBE_UM2 = 30.0
"""Upper limit of a lobe; the nucleus of a small lymphocyte is as large."""
NUCLEUS_UM2 = 85.0
"""Upper limit of all lobes together."""
GAP_UM = 2.5
"""Largest gap between two lobes."""
CELL_UM = 16.0
"""Largest side of the box around the lobes. Source: Bain, Blood Cells, 6th ed.: neutrophils
measure 13 µm on average"""


@dataclass(frozen=True, slots=True)
class _Part:
    """A cell, or one lobe of a cell."""

    label: int
    box: Rect
    nucleus_px: int


@dataclass(frozen=True, slots=True)
class _Picture:
    """The tile of the parts: labels int32 (H, W), uint8 (H, W) with 1 in nuclei, and their scale."""

    labels: NDArray[np.int32]
    nuclei: NDArray[np.uint8]
    um_per_px: float

    def nucleus(self, label: int, box: Rect) -> NDArray[np.bool_]:
        """Return bool (height, width) of the box: where the label's nucleus is."""
        rows, columns = slice(box.y, box.bottom), slice(box.x, box.right)
        own: NDArray[np.bool_] = (self.labels[rows, columns] == label) & (self.nuclei[rows, columns] > 0)
        return own

    def part(self, label: int, box: Rect) -> _Part:
        """Return the part of a label."""
        return _Part(label, box, int(np.count_nonzero(self.nucleus(label, box))))

    def gap_px(self, first: _Part, second: _Part) -> float | None:
        """Return the distance of two nuclei that may be lobes of one; None if they cannot be."""
        lesser, together = min(first.nucleus_px, second.nucleus_px), first.nucleus_px + second.nucleus_px
        if lesser >= LOBE_UM2 / self.um_per_px**2 or together > NUCLEUS_UM2 / self.um_per_px**2:
            return None
        box = first.box.around(second.box)
        if max(box.width, box.height) > CELL_UM / self.um_per_px:
            return None
        gap_px = _distance_px(self.nucleus(first.label, box), self.nucleus(second.label, box))
        return gap_px if gap_px <= GAP_UM / self.um_per_px else None

    def joined(self, first: _Part, second: _Part) -> _Part:
        """Join both under the first label, with the free part of their convex hull; return the part."""
        box = first.box.around(second.box)
        window = self.labels[box.y : box.bottom, box.x : box.right]
        window[window == second.label] = first.label
        window[_hull(window == first.label) & (window == 0)] = first.label
        return self.part(first.label, box)


def lobes_joined(
    labels: NDArray[np.int32],
    found: Sequence[tuple[int, Rect]],
    nuclei: NDArray[np.uint8],
    um_per_px: float,
) -> list[tuple[int, Rect]]:
    """Return (label, box) of each cell, in order; `labels`, int32 (H, W), is changed in place.

    Lobes get one label, closest pairs first, and with it the free part of their convex hull. `nuclei` uint8
    (H, W) is 1 in nuclei.
    """
    picture = _Picture(labels, nuclei, um_per_px)
    parts = {label: picture.part(label, box) for label, box in found}
    gaps_px = dict(_gaps(picture, combinations(parts.values(), 2)))
    while gaps_px:
        kept, other = min(gaps_px, key=lambda pair: (gaps_px[pair], pair))
        joined = picture.joined(parts[kept], parts.pop(other))
        parts[kept] = joined
        gaps_px = {pair: gap for pair, gap in gaps_px.items() if not {kept, other} & set(pair)}
        gaps_px |= _gaps(picture, ((joined, part) for part in parts.values() if part is not joined))
    return [(part.label, part.box) for part in parts.values()]


def _gaps(picture: _Picture, pairs: Iterable[tuple[_Part, _Part]]) -> Iterator[tuple[tuple[int, int], float]]:
    for pair in pairs:
        gap_px = picture.gap_px(*pair)
        if gap_px is not None:
            first, second = sorted(part.label for part in pair)
            yield (first, second), gap_px


def _distance_px(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the distance of two masks of one shape; infinite if one is empty."""
    if not first.any() or not second.any():
        return inf
    away = cv2.distanceTransform((~first).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(away[second].min())


def _hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = np.nonzero(mask)
    hull = cv2.convexHull(np.column_stack((columns, rows)).astype(np.int32))
    filled = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), hull, 1)
    return np.asarray(filled > 0)
