"""Crops cut in torch are the crops that the pipeline cuts with OpenCV."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.model.geometry import Mpp, Rect, Size  # noqa: E402
from pipeline.runtime.tensorrt.preparation import resampled, windows_at  # noqa: E402
from pipeline.sampling.crops import read_crop, resized  # noqa: E402
from tests.support.drawn import DrawnSlide  # noqa: E402

GREY_LEVELS = 1
"""that a pixel may differ from OpenCV's"""


def field(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def difference(ours, theirs):
    assert ours.dtype == torch.uint8
    return int(np.abs(ours.numpy().astype(int) - theirs.astype(int)).max())


@pytest.mark.parametrize(
    ("source", "target"),
    [((92, 92), (128, 128)), ((230, 230), (128, 128)), ((256, 256), (128, 128)), ((128, 128), (128, 128)),
     ((131, 97), (64, 48)), ((100, 300), (128, 128)), ((1, 1), (8, 8)), ((7, 5), (1, 1))],
)  # fmt: skip
def test_resampling_is_that_of_the_pipeline(source, target):
    windows = np.stack([field(*source, seed) for seed in range(3)])
    size = Size(target[1], target[0])
    ours = resampled(torch.from_numpy(windows), size)
    for made, window in zip(ours, windows, strict=True):
        assert difference(made, resized(window, size)) <= GREY_LEVELS


def test_crops_within_the_field_are_those_that_the_pipeline_reads():
    pixels = field(200, 260)
    centres = [(60.0, 70.0), (130.5, 99.0), (200.0, 140.0)]
    mpp, crop_mpp_um, crop = Mpp(0.25), 0.18, Size(128, 128)
    side = round(mpp.to_px0(128 * crop_mpp_um))
    rects = [Rect(round(x - side / 2), round(y - side / 2), side, side) for x, y in centres]
    ours = resampled(windows_at(torch.from_numpy(pixels), rects), crop)
    for made, centre in zip(ours, centres, strict=True):
        theirs = read_crop(DrawnSlide(pixels), centre, mpp, crop, crop_mpp_um)
        assert difference(made, theirs) <= GREY_LEVELS


def test_beyond_the_edge_the_outermost_pixels_are_repeated():
    pixels = field(20, 30)
    rects = [Rect(-5, -3, 10, 8), Rect(25, 16, 10, 8)]
    ours = windows_at(torch.from_numpy(pixels), rects).numpy()
    padded = np.pad(pixels, ((3, 4), (5, 5), (0, 0)), mode="edge")
    np.testing.assert_array_equal(ours[0], padded[:8, :10])
    np.testing.assert_array_equal(ours[1], padded[19:27, 30:40])


def test_windows_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        windows_at(torch.from_numpy(field(9, 9)), [Rect(0, 0, 3, 3), Rect(0, 0, 4, 3)])
