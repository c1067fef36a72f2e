"""Whole pictures with their classes: split, decoded once and stretched to one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb
from pipeline.model.errors import UsageError
from pipeline.training.data.folds import Fold, val_groups
from pipeline.training.data.images import read_rgb
from pipeline.training.data.label_tables import LabelRow, Split
from pipeline.training.data.picture_sets import PictureClass, class_index


@dataclass(frozen=True, slots=True)
class ClassedRow:
    """A row with the split where it is used, and the index of its class in the recipe."""

    row: LabelRow
    class_index: int


@dataclass(frozen=True, slots=True)
class PictureSamples:
    """The pictures of one split."""

    pixels: Rgb
    """uint8 (N, side, side, 3)"""
    class_indices: NDArray[np.int64]
    """(N,)"""


def classed_rows(
    rows: Sequence[LabelRow], classes: tuple[PictureClass, ...], fold: Fold | None, seed: int
) -> tuple[ClassedRow, ...]:
    """Return the rows that have a class, split as their data set says or by the fold, in whole groups.

    Raises: UsageError, where a class has no picture to train on, or no picture is left to validate on.
    """
    found = [(row, class_index(row, classes)) for row in rows]
    known = [(row, index) for row, index in found if index is not None]
    splits = [row.split for row, _ in known] if fold is None else _folded(known, fold, seed)
    classed = tuple(
        ClassedRow(replace(row, split=split), index)
        for (row, index), split in zip(known, splits, strict=True)
    )
    trained = {one.class_index for one in classed if one.row.split is Split.TRAIN}
    empty = [one.name for index, one in enumerate(classes) if index not in trained]
    if empty:
        raise UsageError(f"The class {empty[0]} has no picture to train on.", code="empty_class")
    if all(one.row.split is not Split.VAL for one in classed):
        raise UsageError("There is no picture to validate on.", code="empty_split")
    return classed


def _folded(known: Sequence[tuple[LabelRow, int]], fold: Fold, seed: int) -> list[Split]:
    """Return the splits by fold; published test pictures stay test."""
    kinds: dict[tuple[str, str], int] = {}
    for row, index in known:
        kinds.setdefault(_group(row), index)
    folded = [row for row, _ in known if row.split is not Split.TEST]
    chosen = val_groups([(kinds[_group(row)], *_group(row)) for row in folded], fold, seed)
    side = {True: Split.VAL, False: Split.TRAIN}
    return [
        row.split if row.split is Split.TEST else side[(kinds[_group(row)], *_group(row)) in chosen]
        for row, _ in known
    ]


def _group(row: LabelRow) -> tuple[str, str]:
    return row.source.scope, row.group or row.subject or row.image.name


def load_pictures(rows: Sequence[ClassedRow], side_px: int) -> PictureSamples:
    """Return the rows' pictures, all in memory. Raises: UsageError, where one cannot be read."""
    pixels = np.empty((len(rows), side_px, side_px, 3), np.uint8)
    for index, one in enumerate(rows):
        pixels[index] = stretched(read_rgb(one.row.image), side_px)
    return PictureSamples(pixels, np.array([one.class_index for one in rows], np.int64))


def stretched(picture: Rgb, side_px: int) -> Rgb:
    """Return uint8 (side, side, 3), the whole picture; its aspect is not kept."""
    height, width = picture.shape[:2]
    smooth = cv2.INTER_AREA if min(height, width) > side_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (side_px, side_px), interpolation=smooth), np.uint8)
