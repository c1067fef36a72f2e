"""Converts cells to rows and back. Contours are stored as little-endian float32 pairs, bit for bit."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain

import numpy as np
from sqlalchemy import Row

from pipeline.model.domain import CallStatus, Cell, CellCall, CellInstance, Contour
from pipeline.model.geometry import Rect
from pipeline.model.taxonomy import LEAVES, CellClass

CELL_COLUMNS = (
    *("run_id", "ordinal", "x_px0", "y_px0", "width_px0", "height_px0"),
    *("centroid_x_px0", "centroid_y_px0", "area_px0", "nucleus_area_px0", "area_um2", "nucleus_area_um2"),
    *("score", "touches_edge", "probability", "disagreement", "probabilities"),
    *("cell_class", "status", "nucleus_points", "contour_px0", "nucleus_contours_px0"),
)
"""Columns of fixed length come first, so that one `struct` packs them."""

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = struct.pack(">h", -1)
"""Source: PostgreSQL 18, COPY, binary format"""
_FLOAT4, _INT4 = 700, 23
"""oids. Source: PostgreSQL's pg_type.dat"""
_LENGTH = struct.Struct(">i")
_WIDTHS = {"q": 8, "i": 4, "d": 8, "f": 4, "?": 1}
_FIXED_TYPES = "q" + "i" * 5 + "d" * 6 + "f?ff"
_ROWS_A_CHUNK = 256
_POINTS = np.dtype("<f4")


def _fixed_layout() -> struct.Struct:
    """Return the layout of the fixed-length part: fields, then probabilities as an array of float4."""
    fields = "".join("i" + kind for kind in _FIXED_TYPES)
    return struct.Struct(">h" + fields + "i" + "iiiii" + "if" * len(LEAVES))


_FIXED = _fixed_layout()
_FIXED_LENGTHS = tuple(_WIDTHS[kind] for kind in _FIXED_TYPES)
_PROBABILITIES_HEAD = (20 + 8 * len(LEAVES), 1, 0, _FLOAT4, len(LEAVES), 1)
"""bytes; dimensions, no nulls, the elements' type; length and first index of the only dimension"""


def copy_chunks(run_id: int, cells: Sequence[Cell]) -> Iterator[bytes]:
    """Yield the data for `COPY cell (CELL_COLUMNS) FROM STDIN (FORMAT BINARY)` in chunks of some hundred
    rows.

    psycopg's own `write_row` converts value by value, which is slower: docs/performance.md.
    """
    yield _SIGNATURE
    for start in range(0, len(cells), _ROWS_A_CHUNK):
        part = cells[start : start + _ROWS_A_CHUNK]
        yield b"".join(_row(run_id, start + place, cell) for place, cell in enumerate(part))
    yield _END


def _row(run_id: int, ordinal: int, cell: Cell) -> bytes:
    found, call = cell.instance, cell.call
    box = found.bbox_px0
    values = (
        *(run_id, ordinal, box.x, box.y, box.width, box.height, *found.centroid_px0),
        *(found.area_px0, found.nucleus_area_px0, found.area_um2, found.nucleus_area_um2),
        *(found.score, found.touches_edge, call.probability, call.disagreement),
    )
    shares = call.probabilities
    fixed = _FIXED.pack(
        len(CELL_COLUMNS),
        *chain.from_iterable(zip(_FIXED_LENGTHS, values, strict=True)),
        *_PROBABILITIES_HEAD,
        *chain.from_iterable((4, shares.get(leaf, 0.0)) for leaf in LEAVES),
    )
    nuclei = found.nucleus_contours_px0
    return b"".join(
        (
            fixed,
            _word(call.cell_class),
            _word(call.status),
            _field(_integers([len(contour) for contour in nuclei])),
            _field(contour_bytes(found.contour_px0)),
            _field(b"".join(contour_bytes(contour) for contour in nuclei)),
        )
    )


def _field(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


@cache
def _word(word: CellClass | CallStatus) -> bytes:
    return _field(word.value.encode())


def _integers(values: Sequence[int]) -> bytes:
    """Return an array of int4; an empty array has no dimension in PostgreSQL."""
    if not values:
        return struct.pack(">iii", 0, 0, _INT4)
    return struct.pack(
        f">5i{2 * len(values)}i", 1, 0, _INT4, len(values), 1, *chain.from_iterable((4, v) for v in values)
    )


def contour_bytes(contour_px0: Contour) -> bytes:
    """Return the points of a contour, x and y in turn, little-endian float32."""
    return np.ascontiguousarray(contour_px0, dtype=_POINTS).tobytes()


def contour_of(packed: bytes) -> Contour:
    """Return the contour, float32 (N, 2), from its bytes."""
    return np.frombuffer(packed, dtype=_POINTS).reshape(-1, 2).astype(np.float32)


def contours_of(packed: bytes, points: Sequence[int]) -> tuple[Contour, ...]:
    """Return the contours that are concatenated in `packed`, given the number of points of each."""
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
