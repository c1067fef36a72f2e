"""A drawn scan and models that read its colours: the pipeline's logic is tested apart from any training."""

from __future__ import annotations

from contextlib import nullcontext

import cv2
import numpy as np

from pipeline.model.domain import Level, SlideMeta
from pipeline.model.execution import Execution
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.model.taxonomy import LEAVES, CellClass
from pipeline.run import Models
from tests.support.serial_pool import SerialPool

NUCLEUS, CYTOPLASM, GLASS = (80, 40, 120), (200, 180, 230), (240, 235, 240)
RED_CELL = (205, 140, 140)


class DrawnSlide:
    """A `SlideReader` over an array."""

    def __init__(self, pixels, mpp=0.25):
        self.pixels = pixels
        size = Size(pixels.shape[1], pixels.shape[0])
        self.meta = SlideMeta(
            size_px0=size,
            mpp=None if mpp is None else Mpp(mpp),
            objective=None,
            scanner=None,
            file_format="drawn",
            levels=(Level(size, 1.0),),
        )

    def read(self, level, rect_lv):
        assert level == 0
        out = np.full((rect_lv.height, rect_lv.width, 3), 255, np.uint8)
        scan = Rect(0, 0, self.pixels.shape[1], self.pixels.shape[0])
        part = rect_lv.intersection(scan)
        if part.area:
            out[part.y - rect_lv.y : part.bottom - rect_lv.y, part.x - rect_lv.x : part.right - rect_lv.x] = (
                self.pixels[part.y : part.bottom, part.x : part.right]
            )
        return out


def drawn_cells(size, cells, radius=24):
    """A picture with a disc of cytoplasm and one of nucleus at each (x, y)."""
    picture = np.full((size.height, size.width, 3), GLASS, np.uint8)
    for x, y in cells:
        cv2.circle(picture, (int(x), int(y)), radius, CYTOPLASM, -1)
        cv2.circle(picture, (int(x), int(y)), radius * 3 // 5, NUCLEUS, -1)
    return picture


def with_red_cells(picture, places, radius=15):
    """The picture with a red cell at each (x, y)."""
    for x, y in places:
        cv2.circle(picture, (int(x), int(y)), radius, RED_CELL, -1)
    return picture


class ColourSegmenter:
    """A `Segmenter` that tells the drawn colours apart."""

    stride_px = 16

    def __init__(self):
        self.pixels_seen = 0

    def segment(self, batch):
        assert batch.shape[1] % self.stride_px == 0
        assert batch.shape[2] % self.stride_px == 0
        self.pixels_seen += batch.shape[0] * batch.shape[1] * batch.shape[2]
        green = batch[..., 1]
        nucleus = green < 110
        cytoplasm = ~nucleus & (green < 210)
        background = ~nucleus & ~cytoplasm
        return np.stack([background, cytoplasm, nucleus], axis=1).astype(np.float32)


class OneClassClassifier:
    """A `Classifier` whose three members all say the same."""

    crop_px = Size(64, 64)
    crop_mpp_um = 0.25

    def __init__(self, cell_class=CellClass.LYMPHOCYTE):
        self.answer = LEAVES.index(cell_class)

    def classify(self, batch):
        probabilities = np.full((3, len(batch), len(LEAVES)), 0.01, np.float32)
        probabilities[:, :, self.answer] = 1 - 0.01 * (len(LEAVES) - 1)
        return probabilities


class Silent:
    """An `Observer` that keeps the last count."""

    last = None

    def stage(self, _stage):
        return nullcontext()

    def advanced(self, *counts):
        self.last = counts


def models(cell_class=CellClass.LYMPHOCYTE):
    return Models(ColourSegmenter(), OneClassClassifier(cell_class))


def execution(tile_batch=4, small_tile_batch=16, crop_batch=32):
    return Execution(Silent(), SerialPool(), tile_batch, small_tile_batch, crop_batch)
