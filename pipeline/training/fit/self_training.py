"""Self-training: a teacher learns from the masks there are and draws those missing; a student learns all.

What a person labelled stays as it is; the teacher is believed only where it is sure. Source: Xie et al. 2020
(noisy student, arXiv 1911.04252).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.errors import UsageError
from pipeline.training.data.images import resized
from pipeline.training.data.samples import FieldSample, MapKind
from pipeline.training.data.targets import LabelMap, Tissue
from pipeline.training.fit.progress import TrainingProgress
from pipeline.training.fit.run_course import TrainedNetwork, fit_all
from pipeline.training.fit.run_folder import recipe_of, trained_segmenter
from pipeline.training.fit.segmenting import STORE_MPP_UM, SegmenterTask, padded
from pipeline.training.fit.training_loop import Subject, weights_digest
from pipeline.training.recipe.overrides import Teacher
from pipeline.training.recipe.recipes import SegmenterRecipe

SURE = 0.9
"""a teacher's probability from which on its word is taken"""
SEEN_SHARE = 0.5
"""the teacher must call this part of what is surely cell a cell, or its picture stays as it was"""


def fit_teacher_and_student(
    recipe: SegmenterRecipe,
    subject: Subject,
    fields: tuple[Sequence[FieldSample], Sequence[FieldSample]],
    run_dir: Path,
    progress: TrainingProgress,
) -> tuple[TrainedNetwork, ...]:
    """Return teacher and student; the student goes on from the teacher and has the recipe's name."""
    train, val = fields
    teacher = replace(subject, name=f"{recipe.name}-teacher")
    first = fit_all([teacher], SegmenterTask(recipe, train, val), recipe.schedule, run_dir, progress)
    drawn = _drawn(train, subject.network, recipe, progress)
    schedule = replace(
        recipe.schedule,
        epochs=recipe.student_epochs,
        learning_rate=recipe.schedule.learning_rate / 2,
        head_learning_rate=recipe.schedule.head_learning_rate / 2,
    )
    # Other pictures than the teacher saw: the seed decides how each is turned, scaled and stained.
    student = replace(subject, seed=subject.seed + 1)
    return first + fit_all([student], SegmenterTask(recipe, drawn, val), schedule, run_dir, progress)


def teacher_in(run_dir: Path) -> Teacher:
    """Return the segmenter of a run as a teacher.

    Raises: UsageError, where the folder holds no finished run of a segmenter.
    """
    recipe = _segmenter_recipe(run_dir)
    weights = trained_segmenter(run_dir, recipe).state_dict()
    return Teacher(recipe.name, weights_digest(weights), run_dir)


def _segmenter_recipe(run_dir: Path) -> SegmenterRecipe:
    recipe = recipe_of(run_dir)
    if not isinstance(recipe, SegmenterRecipe):
        raise UsageError(f"'{run_dir.name}' is no run of a segmenter.", code="wrong_run")
    return recipe


def refuse_absent_teacher(recipe: SegmenterRecipe, teacher: Teacher | None) -> None:
    """Return where the teacher that the recipe's text tells is there, or it tells none; else raise
    UsageError."""
    if recipe.teacher is not None and teacher is None:
        name = recipe.teacher.split(" ")[0]
        raise UsageError(
            f"The recipe learns from the teacher {name}; give the folder of its run with --teacher.",
            code="no_teacher",
        )


def taught(
    train: Sequence[FieldSample], recipe: SegmenterRecipe, teacher_run: Path, progress: TrainingProgress
) -> tuple[FieldSample, ...]:
    """Return the samples of `recipe`, in order, completed by the segmenter of another run.

    Raises: UsageError, where the folder holds no finished run of a segmenter, or one that learnt from a data
    set that the recipe does not: what is left out, or may not be shipped, must not come back by the teacher.
    """
    teacher = _segmenter_recipe(teacher_run)
    strange = [source.folder for source in teacher.sources if source not in recipe.sources]
    if strange:
        raise UsageError(
            f"The teacher learnt from {', '.join(strange)}, which this training leaves out; name another.",
            code="teacher_data",
        )
    return _drawn(train, trained_segmenter(teacher_run, teacher), teacher, progress)


def _drawn(
    train: Sequence[FieldSample], teacher: nn.Module, recipe: SegmenterRecipe, progress: TrainingProgress
) -> tuple[FieldSample, ...]:
    drawn = tuple(self_labelled(train, teacher, recipe))
    changed = sum(after is not before for after, before in zip(drawn, train, strict=True))
    progress.says(f"the teacher drew cells in {changed} of {len(drawn)} pictures")
    return drawn


def self_labelled(
    samples: Sequence[FieldSample], network: nn.Module, recipe: SegmenterRecipe
) -> Iterator[FieldSample]:
    """Yield every sample, in order; those without an exact mask with what the teacher is sure of."""
    network.eval()
    for sample in samples:
        if sample.kind is MapKind.EXACT or not (sample.tissue == Tissue.CELL).any():
            yield sample
            continue
        tissue = completed(sample.tissue, _probabilities(sample.pixels, network, recipe))
        yield sample if tissue is None else replace(sample, tissue=tissue)


def completed(tissue: LabelMap, probabilities: Probabilities) -> LabelMap | None:
    """Return the map with unknown pixels, and cell of unknown part, as the teacher sees them if it is sure.

    `probabilities` float32 (3, H, W). Background that a person vouched for stays. None, where the teacher
    does not see the cell.
    """
    cell = tissue == Tissue.CELL
    if (probabilities[0][cell] < 0.5).mean() < SEEN_SHARE:
        return None
    guess = probabilities.argmax(axis=0).astype(np.uint8)
    sure = probabilities.max(axis=0) >= SURE
    out = tissue.copy()
    unknown = (tissue == Tissue.IGNORED) & sure
    out[unknown] = guess[unknown]
    parted = cell & sure & (guess != Tissue.BACKGROUND)
    out[parted] = guess[parted]
    return out


def _probabilities(pixels: Rgb, network: nn.Module, recipe: SegmenterRecipe) -> Probabilities:
    """Return float32 (3, H, W) at the store's scale: the mean over the picture and its mirror images."""
    small = resized(pixels, STORE_MPP_UM / recipe.input.mpp_um)
    rgb, _ = padded(small, np.zeros(small.shape[:2], np.uint8), recipe.network.stride_px)
    mirrorings: tuple[tuple[int, ...], ...] = ((), (0,), (1,))
    with torch.inference_mode():
        maps = [_mirrored_maps(network, rgb, axes) for axes in mirrorings]
    mean = np.mean(maps, axis=0)[:, : small.shape[0], : small.shape[1]]
    size = (pixels.shape[1], pixels.shape[0])
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in mean])


def _mirrored_maps(network: nn.Module, rgb: Rgb, axes: tuple[int, ...]) -> Probabilities:
    """Return float32 (3, H, W): what the network sees in the picture mirrored along `axes`, mirrored back."""
    logits: torch.Tensor = network(torch.from_numpy(np.flip(rgb, axes).copy())[None])
    maps = np.asarray(logits.softmax(dim=1)[0].numpy(), np.float32)
    return np.flip(maps, tuple(axis + 1 for axis in axes))
