from __future__ import annotations

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.synth.smear import draw_smear
from pipeline.synth.smear_spec import DRAWN_CLASSES, EVEN, LEFT_SHIFT, SmearSpec, apportion

SPEC = SmearSpec(Size(1300, 1150), seed=11, leukocytes=24, mix=EVEN, touching_fraction=0.25)
WHOLE = Rect(0, 0, 1300, 1150)


@pytest.fixture(scope="module")
def smear():
    return draw_smear(SPEC)


@pytest.fixture(scope="module")
def picture(smear):
    return smear.read(WHOLE)


def filled(contours, size):
    mask = np.zeros((size.height, size.width), np.uint8)
    for contour in contours:
        cv2.fillPoly(mask, [np.round(contour - 0.5).astype(np.int32)], 1)
    return mask.astype(bool)


@settings(max_examples=40, deadline=None)
@given(
    x=st.integers(-20, 1290),
    y=st.integers(-20, 1140),
    width=st.integers(1, 600),
    height=st.integers(1, 600),
    split=st.floats(0, 1),
)
def test_any_rectangle_is_cut_from_the_same_pixels(smear, picture, x, y, width, height, split):
    bordered = cv2.copyMakeBorder(picture, 20, 640, 20, 640, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    expected = bordered[y + 20 : y + 20 + height, x + 20 : x + 20 + width]
    cut = round(split * width)
    left = smear.read(Rect(x, y, cut, height))
    right = smear.read(Rect(x + cut, y, width - cut, height))
    assert np.array_equal(np.concatenate([left, right], axis=1), expected)


def test_a_fresh_smear_of_the_same_spec_has_the_same_pixels_in_any_order_of_reading(picture):
    again = draw_smear(SPEC)
    lower = again.read(Rect(0, 600, 1300, 550))
    upper = again.read(Rect(0, 0, 1300, 600))
    assert np.array_equal(np.concatenate([upper, lower]), picture)


def test_another_seed_gives_other_cells_and_another_stain(smear, picture):
    other = draw_smear(replace(SPEC, seed=12))
    assert {cell.centre_px0 for cell in other.truth}.isdisjoint(cell.centre_px0 for cell in smear.truth)
    glass = [np.percentile(pixels, 95, axis=(0, 1)) for pixels in (other.read(WHOLE), picture)]
    assert np.abs(glass[0] - glass[1]).max() > 2


def test_blocks_meet_without_an_edge(picture):
    steps = np.abs(np.diff(picture.astype(float), axis=1)).mean(axis=(0, 2))
    rows = np.abs(np.diff(picture.astype(float), axis=0)).mean(axis=(1, 2))
    for profile in (steps, rows):
        for seam in (511, 1023):
            near = profile[seam - 40 : seam + 41]
            assert near[40] <= np.percentile(near, 98) + 0.25


@pytest.mark.parametrize("count", [1, 7, 24])
def test_truth_holds_exactly_the_leukocytes_and_classes_of_the_spec(count):
    spec = replace(SPEC, leukocytes=count, mix=LEFT_SHIFT)
    found = Counter(cell.cell_class for cell in draw_smear(spec).truth)
    assert found == Counter({cls: n for cls, n in apportion(LEFT_SHIFT, count) if n})
    assert sum(found.values()) == count


def test_leukocytes_lie_wholly_on_the_smear_and_inside_the_glass_margin():
    spec = replace(SPEC, glass_margin_um=30.0)
    smear = draw_smear(spec)
    for cell in smear.truth:
        assert cell.outline_px0.min() >= 120
        assert (cell.outline_px0.max(axis=0) <= (1300 - 120, 1150 - 120)).all()
    margin = smear.read(Rect(0, 0, 1300, 90)).astype(float)
    assert np.ptp(np.median(margin, axis=1), axis=0).max() < 15
    assert margin.std(axis=(0, 1)).max() < 6


def test_every_nucleus_lies_in_its_cell(smear):
    for cell in smear.truth:
        assert cell.nuclei_px0
        for nucleus in cell.nuclei_px0:
            inside = [cv2.pointPolygonTest(cell.outline_px0, (float(x), float(y)), True) for x, y in nucleus]
            assert min(inside) > -0.5


def test_outlines_are_where_the_stain_is(smear, picture):
    """The nucleus is darkest; the cytoplasm lets through less than the glass; glass is what cells leave."""
    grey = picture.astype(float)
    glass = np.percentile(grey, 90, axis=(0, 1)).sum()
    for cell in smear.truth:
        whole, nucleus = filled([cell.outline_px0], SPEC.size_px0), filled(cell.nuclei_px0, SPEC.size_px0)
        cytoplasm = whole & ~nucleus
        inside, around = grey[nucleus].sum(axis=1).mean(), grey[cytoplasm].sum(axis=1).mean()
        assert inside < 0.8 * around
        assert around < 0.95 * glass
        red, _, blue = grey[nucleus].mean(axis=0)
        assert blue > red + 20


def test_nuclei_that_threshold_finds_match_the_truth(smear, picture):
    """An independent look: dark violet pixels, found without the truth, overlap the drawn nuclei."""
    true = np.zeros(picture.shape[:2], bool)
    for cell in smear.truth:
        if cell.cell_class not in DRAWN_CLASSES[-1:]:
            true |= filled(cell.nuclei_px0, SPEC.size_px0)
    near = cv2.dilate(true.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    dark = (picture[..., 0] < 120) & (picture[..., 1] < 95)
    assert (dark & true).sum() / true.sum() > 0.85
    assert (dark & near).sum() > 0.6 * dark.sum()


def test_touching_cells_touch_and_hardly_overlap(smear):
    touching = [cell for cell in smear.truth if cell.touching]
    assert len(touching) == 6
    masks = [filled([cell.outline_px0], SPEC.size_px0) for cell in smear.truth]
    for i, cell in enumerate(smear.truth):
        near = cv2.dilate(masks[i].astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
        others = [mask for k, mask in enumerate(masks) if k != i]
        assert any((near & mask).any() for mask in others) == cell.touching
        assert all((masks[i] & mask).sum() <= 0.04 * masks[i].sum() for mask in others)


def test_a_smear_without_leukocytes_has_red_cells_only():
    smear = draw_smear(SmearSpec(Size(300, 200), seed=2, leukocytes=0))
    pixels = smear.read(Rect(0, 0, 300, 200))
    assert smear.truth == ()
    assert pixels.std() > 8


@pytest.mark.parametrize("um_per_px0", [0.07, 0.1, 0.5])
def test_cells_keep_their_size_in_um_at_every_scale(um_per_px0):
    side = round(130 / um_per_px0)
    smear = draw_smear(SmearSpec(Size(side, side), seed=4, mpp=Mpp(um_per_px0), leukocytes=6, mix=EVEN))
    for cell in smear.truth:
        across_um = 2 * np.sqrt(cv2.contourArea(cell.outline_px0) / np.pi) * um_per_px0
        assert 8 < across_um < 20
    x, y = (int(value) for value in smear.truth[0].centre_px0)
    assert smear.read(Rect(x - 20, y - 20, 40, 40)).mean() < 215


def test_a_smear_that_is_too_small_for_its_leukocytes_is_refused():
    with pytest.raises(ValueError, match="too small"):
        draw_smear(SmearSpec(Size(200, 200), seed=1, leukocytes=40))
