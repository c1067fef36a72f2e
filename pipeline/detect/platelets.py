"""Finds small violet bodies in a picture without leukocytes: platelets, or cells without visible cytoplasm.

The segmenter treats platelets as background. If it finds no leukocyte, the ensemble classifies these bodies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.detect.instances import SlideFrame, outlined
from pipeline.model.domain import CellInstance, Rgb
from pipeline.model.geometry import Rect

AREA_UM2 = (1.8, 64.0)
"""1.5 to 9 µm across. Source: Bain, Blood Cells, 6th ed., ch. 3: platelets are 1 to 3 µm across, giant ones
as large as a red cell or larger; dried ones spread."""

VIOLET_DEPTH = 0.25
"""Least excess of the optical density in green over that in blue. It is 0.4 to 1.3 in the platelets of the
train split of pbc_barcelona, up to 0.17 in red cells, and 0 in plasma."""

BLUR_UM = 0.12
"""Sigma of the blur that removes granules and JPEG blocks."""

MAX_BODIES = 128
"""Only the largest are used; more than this is dirt."""


def violet_bodies(picture: Rgb, frame: SlideFrame) -> tuple[CellInstance, ...]:
    """Return the bodies of platelet size in a whole scan's level-0 pixels, uint8 (H, W, 3), largest first.

    They have no nucleus; `score` is the depth of their stain, 1 where it is twice `VIOLET_DEPTH` or more.
    """
    depth = _violet_depth(picture, frame.mpp.to_px0(BLUR_UM))
    stained = (depth > VIOLET_DEPTH).astype(np.uint8)
    closed = np.asarray(cv2.morphologyEx(stained, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), np.uint8)
    bodies = sorted(_bodies(closed, depth, frame), key=lambda body: -body.area_px0)
    return tuple(bodies[:MAX_BODIES])


def apart_from(bodies: Sequence[CellInstance], cells: Sequence[CellInstance]) -> tuple[CellInstance, ...]:
    """Return the bodies whose centroid lies in no box of a cell."""
    return tuple(
        body for body in bodies if not any(cell.bbox_px0.contains(*body.centroid_px0) for cell in cells)
    )


def _violet_depth(picture: Rgb, blur_px0: float) -> NDArray[np.float32]:
    """Return float32 (H, W): optical density in green less that in blue, against the brightest twentieth."""
    smooth = cv2.GaussianBlur(picture, (0, 0), max(0.5, blur_px0)).astype(np.float32)
    glass = np.percentile(smooth.reshape(-1, 3), 95, axis=0)
    density = np.clip(np.log((glass + 1.0) / (smooth + 1.0)), 0.0, None)
    return np.asarray(density[..., 1] - density[..., 2], np.float32)


def _bodies(
    stained: NDArray[np.uint8], depth: NDArray[np.float32], frame: SlideFrame
) -> Iterator[CellInstance]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(stained, connectivity=8)
    for label in range(1, count):
        if not AREA_UM2[0] <= frame.mpp.to_um2(float(stats[label, cv2.CC_STAT_AREA])) <= AREA_UM2[1]:
            continue
        x, y, width, height = (int(value) for value in stats[label, : cv2.CC_STAT_AREA])
        own = labels[y : y + height, x : x + width] == label
        deep = depth[y : y + height, x : x + width][own]
        score = float(np.clip(deep / (2 * VIOLET_DEPTH), 0.0, 1.0).mean())
        nucleus = np.zeros((height, width), np.uint8)
        yield outlined(own.astype(np.uint8), nucleus, Rect(x, y, width, height), frame, score=score)
