"""Self-training: a teacher adds pseudo-labels where masks are missing; a student is trained on all of them.

Manual labels are kept; a teacher's are used only where it is confident. Source: Xie et al. 2020 (noisy
student, arXiv 1911.04252).
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
from pipeline.training.data.targets import LabelMap, Tissue
from pipeline.training.data.training_samples import FieldSample, MapKind
from pipeline.training.fit.progress import TrainingProgress
from pipeline.training.fit.run_folder import recipe_of, trained_segmenter
from pipeline.training.fit.segmenting import STORE_MPP_UM, SegmenterTask, padded
from pipeline.training.fit.trained_networks import TrainedNetwork, fit_all
from pipeline.training.fit.training_loop import TrainableNetwork, weights_digest
from pipeline.training.recipe.overrides import Teacher
from pipeline.training.recipe.recipes import SegmenterRecipe

CONFIDENT = 0.9
"""pseudo-labels need this probability"""
MIN_AGREEMENT = 0.5
"""share of the pixels labelled as cell that the teacher must segment as cell, for a picture to be changed"""


def fit_teacher_and_student(
    recipe: SegmenterRecipe,
    trainable: TrainableNetwork,
    fields: tuple[Sequence[FieldSample], Sequence[FieldSample]],
    run_dir: Path,
    progress: TrainingProgress,
) -> tuple[TrainedNetwork, ...]:
    """Return teacher and student; the student starts from the teacher's weights and has the recipe's name."""
    train, val = fields
    teacher = replace(trainable, name=f"{recipe.name}-teacher")
    first = fit_all([teacher], SegmenterTask(recipe, train, val), recipe.schedule, run_dir, progress)
    labelled = _labelled_by(train, trainable.network, recipe, progress)
    schedule = replace(
        recipe.schedule,
        epochs=recipe.student_epochs,
        learning_rate=recipe.schedule.learning_rate / 2,
        head_learning_rate=recipe.schedule.head_learning_rate / 2,
    )
    # Another seed, so that the student sees other augmentations than the teacher.
    student = replace(trainable, seed=trainable.seed + 1)
    return first + fit_all([student], SegmenterTask(recipe, labelled, val), schedule, run_dir, progress)


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


def require_teacher(recipe: SegmenterRecipe, teacher: Teacher | None) -> None:
    """Return where the recipe names no teacher, or it is given. Raises: UsageError, otherwise."""
    if recipe.teacher is not None and teacher is None:
        name = recipe.teacher.split(" ")[0]
        raise UsageError(
            f"The recipe learns from the teacher {name}; give the folder of its run with --teacher.",
            code="no_teacher",
        )


def pseudo_labelled(
    train: Sequence[FieldSample], recipe: SegmenterRecipe, teacher_run: Path, progress: TrainingProgress
) -> tuple[FieldSample, ...]:
    """Return the samples of `recipe`, in order, with pseudo-labels by the segmenter of another run.

    Raises: UsageError, where the folder holds no finished run of a segmenter, or one trained on a data set
    that the recipe does not use: the student would learn from it through its teacher.
    """
    teacher = _segmenter_recipe(teacher_run)
    unshared = [source.folder for source in teacher.sources if source not in recipe.sources]
    if unshared:
        raise UsageError(
            f"The teacher was trained on {', '.join(unshared)}, which the recipe does not use; name another.",
            code="teacher_data",
        )
    return _labelled_by(train, trained_segmenter(teacher_run, teacher), teacher, progress)


def _labelled_by(
    train: Sequence[FieldSample], teacher: nn.Module, recipe: SegmenterRecipe, progress: TrainingProgress
) -> tuple[FieldSample, ...]:
    labelled = tuple(with_pseudo_labels(train, teacher, recipe))
    changed = sum(after is not before for after, before in zip(labelled, train, strict=True))
    progress.says(f"pseudo-labels added to {changed} of {len(labelled)} pictures")
    return labelled


def with_pseudo_labels(
    samples: Sequence[FieldSample], network: nn.Module, recipe: SegmenterRecipe
) -> Iterator[FieldSample]:
    """Yield every sample, in order; those without an exact mask with the teacher's confident labels."""
    network.eval()
    for sample in samples:
        if sample.kind is MapKind.EXACT or not (sample.tissue == Tissue.CELL).any():
            yield sample
            continue
        tissue = completed(sample.tissue, _probabilities(sample.pixels, network, recipe))
        yield sample if tissue is None else replace(sample, tissue=tissue)


def completed(tissue: LabelMap, probabilities: Probabilities) -> LabelMap | None:
    """Return the map with ignored pixels, and cell of unknown part, as the teacher labels them if confident.

    `probabilities` float32 (3, H, W). Labelled background is kept. None, where the teacher misses the cell.
    """
    cell = tissue == Tissue.CELL
    if (probabilities[0][cell] < 0.5).mean() < MIN_AGREEMENT:
        return None
    guess = probabilities.argmax(axis=0).astype(np.uint8)
    confident = probabilities.max(axis=0) >= CONFIDENT
    out = tissue.copy()
    unknown = (tissue == Tissue.IGNORED) & confident
    out[unknown] = guess[unknown]
    resolved = cell & confident & (guess != Tissue.BACKGROUND)
    out[resolved] = guess[resolved]
    return out


def _probabilities(pixels: Rgb, network: nn.Module, recipe: SegmenterRecipe) -> Probabilities:
    """Return float32 (3, H, W) at `STORE_MPP_UM`: the mean over the picture and its mirror images."""
    small = resized(pixels, STORE_MPP_UM / recipe.input.mpp_um)
    rgb, _ = padded(small, np.zeros(small.shape[:2], np.uint8), recipe.network.stride_px)
    mirrorings: tuple[tuple[int, ...], ...] = ((), (0,), (1,))
    with torch.inference_mode():
        maps = [_mirrored_maps(network, rgb, axes) for axes in mirrorings]
    mean = np.mean(maps, axis=0)[:, : small.shape[0], : small.shape[1]]
    size = (pixels.shape[1], pixels.shape[0])
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in mean])


def _mirrored_maps(network: nn.Module, rgb: Rgb, axes: tuple[int, ...]) -> Probabilities:
    """Return float32 (3, H, W) of the picture mirrored along `axes`, mirrored back."""
    logits: torch.Tensor = network(torch.from_numpy(np.flip(rgb, axes).copy())[None])
    maps = np.asarray(logits.softmax(dim=1)[0].numpy(), np.float32)
    return np.flip(maps, tuple(axis + 1 for axis in axes))
