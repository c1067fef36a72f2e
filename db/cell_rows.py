"""A cell as a row, and back. Contours are little-endian float32 pairs: bit for bit as they came."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sqlalchemy import Row

from pipeline.domain import CallStatus, Cell, CellCall, CellInstance, Contour
from pipeline.geometry import Rect
from pipeline.taxonomy import LEAVES, CellClass

CELL_TYPES = (
    *("int8", "int4", "int4", "int4", "int4", "int4"),
    *("float8", "float8", "float8", "float8", "float8", "float8"),
    *("float4", "bool", "varchar", "varchar", "float4", "float4"),
    *("float4[]", "int4[]", "bytea", "bytea"),
)
CELL_COLUMNS = (
    *("run_id", "ordinal", "x_px0", "y_px0", "width_px0", "height_px0"),
    *("centroid_x_px0", "centroid_y_px0", "area_px0", "nucleus_area_px0", "area_um2", "nucleus_area_um2"),
    *("score", "touches_edge", "cell_class", "status", "probability", "disagreement"),
    *("probabilities", "nucleus_points", "contour_px0", "nucleus_contours_px0"),
)
_POINTS = np.dtype("<f4")

CellRow = tuple[
    int | float | bool | str | bytes | list[float] | list[int],
    ...,
]


def cell_row(run_id: int, ordinal: int, cell: Cell) -> CellRow:
    """Return the values of CELL_COLUMNS for one cell."""
    found, call = cell.instance, cell.call
    return (
        run_id,
        ordinal,
        found.bbox_px0.x,
        found.bbox_px0.y,
        found.bbox_px0.width,
        found.bbox_px0.height,
        float(found.centroid_px0[0]),
        float(found.centroid_px0[1]),
        float(found.area_px0),
        float(found.nucleus_area_px0),
        float(found.area_um2),
        float(found.nucleus_area_um2),
        float(found.score),
        bool(found.touches_edge),
        call.cell_class.value,
        call.status.value,
        float(call.probability),
        float(call.disagreement),
        [float(call.probabilities.get(leaf, 0.0)) for leaf in LEAVES],
        [len(contour) for contour in found.nucleus_contours_px0],
        contour_bytes(found.contour_px0),
        b"".join(contour_bytes(contour) for contour in found.nucleus_contours_px0),
    )


def contour_bytes(contour_px0: Contour) -> bytes:
    """Return the points of a contour, x and y in turn, little-endian float32."""
    return np.ascontiguousarray(contour_px0, dtype=_POINTS).tobytes()


def contour_of(packed: bytes) -> Contour:
    """Return float32 (N, 2) from what `contour_bytes` gave."""
    return np.frombuffer(packed, dtype=_POINTS).reshape(-1, 2).astype(np.float32)


def contours_of(packed: bytes, points: Sequence[int]) -> tuple[Contour, ...]:
    """Return the contours that lie one behind the other in `packed`, with so many points each."""
    every = contour_of(packed)
    ends = np.cumsum(points, dtype=np.int64)
    return tuple(every[end - count : end] for end, count in zip(ends, points, strict=True))


def cell_of(row: Row[*tuple[object, ...]], classes: Sequence[str]) -> Cell:
    """Return the cell of a row of the table `cell`; `classes` names the probabilities, in their order."""
    return Cell(
        CellInstance(
            bbox_px0=Rect(row.x_px0, row.y_px0, row.width_px0, row.height_px0),
            centroid_px0=(row.centroid_x_px0, row.centroid_y_px0),
            contour_px0=contour_of(row.contour_px0),
            nucleus_contours_px0=contours_of(row.nucleus_contours_px0, row.nucleus_points),
            area_px0=row.area_px0,
            nucleus_area_px0=row.nucleus_area_px0,
            area_um2=row.area_um2,
            nucleus_area_um2=row.nucleus_area_um2,
            score=row.score,
            touches_edge=row.touches_edge,
        ),
        CellCall(
            cell_class=CellClass(row.cell_class),
            status=CallStatus(row.status),
            probability=row.probability,
            probabilities={
                CellClass(name): value for name, value in zip(classes, row.probabilities, strict=True)
            },
            disagreement=row.disagreement,
        ),
    )
