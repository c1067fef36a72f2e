import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from db.cell_rows import CELL_COLUMNS, contour_bytes, contour_of, contours_of
from db.tables import Cell

contours = npst.arrays(
    np.float32,
    st.tuples(st.integers(0, 12), st.just(2)),
    elements=st.floats(-1e6, 1e6, width=32),
)


@given(contours)
def test_a_contour_comes_back_bit_for_bit(contour):
    assert contour_of(contour_bytes(contour)).tobytes() == contour.tobytes()


@given(st.lists(contours, max_size=4))
def test_nucleus_contours_come_back_apart(several):
    packed = b"".join(contour_bytes(contour) for contour in several)
    back = contours_of(packed, [len(contour) for contour in several])
    assert [contour.tolist() for contour in back] == [contour.tolist() for contour in several]


def test_bytes_are_little_endian_pairs_of_x_and_y():
    assert contour_bytes(np.array([[1.0, -2.0]])) == b"\x00\x00\x80\x3f\x00\x00\x00\xc0"


def test_every_column_of_a_cell_is_copied():
    assert set(CELL_COLUMNS) == {column.name for column in Cell.__table__.columns}
    assert len(CELL_COLUMNS) == len(set(CELL_COLUMNS))
