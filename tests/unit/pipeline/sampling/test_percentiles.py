from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.sampling.percentiles import percentile


@given(
    values=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40)),
    percent=st.floats(0, 100, allow_subnormal=False),
)
def test_it_is_numpys(values, percent):
    assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)), abs=1e-9)


def test_one_channel_of_a_picture():
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert percentile(picture[..., 1], 50) == np.percentile(picture[..., 1], 50)
