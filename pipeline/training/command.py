"""What the command line calls: train, export a bundle, evaluate one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.bundle.manifest import BundleManifest
from pipeline.model.errors import UsageError
from pipeline.networks.backbones import lay_in
from pipeline.networks.classifiers import LeukocyteClassifier
from pipeline.training.data.datasets import DataPart, Layout, read_parts, readable
from pipeline.training.data.label_tables import LabelRow, Split, read_table
from pipeline.training.data.samples import crop_samples, field_samples
from pipeline.training.evaluate.network_evaluation import BundleReport, evaluate_bundle
from pipeline.training.evaluate.temperature import fit_temperature, member_logits
from pipeline.training.export.bundle_export import (
    SHIPPED_OPTIONS,
    BundleName,
    ExportOptions,
    Runs,
    figures_of,
    write_bundle,
    write_manifest,
)
from pipeline.training.fit.classifying import ClassifierTask, plain_crop
from pipeline.training.fit.picture_training import train_pictures
from pipeline.training.fit.progress import TrainingProgress
from pipeline.training.fit.run_course import TrainedNetwork, fit_all
from pipeline.training.fit.run_folder import open_run, recipe_of, refuse_taken, trained_members, write_result
from pipeline.training.fit.segmenting import STORE_MPP_UM, SegmenterTask
from pipeline.training.fit.self_training import fit_teacher_and_student, refuse_absent_teacher, taught
from pipeline.training.fit.training_loop import Subject, Task, make_deterministic
from pipeline.training.recipe.overrides import NO_OVERRIDES, Overrides, Teacher
from pipeline.training.recipe.pretrained import imagenet_weights
from pipeline.training.recipe.recipes import ClassifierRecipe, PictureRecipe, SegmenterRecipe, read_recipe

THREADS = 2
_SEEDS_APART = 1000
"""more than a training has epochs: each epoch takes the next seed"""
_BATCH = 64


def train(
    recipe: str | Path,
    data_root: Path,
    run_dir: Path,
    progress: TrainingProgress,
    overrides: Overrides = NO_OVERRIDES,
) -> tuple[TrainedNetwork, ...]:
    """Return the networks that the recipe makes; weights, history and curves are in `run_dir/<network>/`.

    A run that was cut off goes on after its last whole epoch. Raises: UsageError, where the recipe, a data
    set or a column is missing, or `run_dir` holds a run of another recipe or of other data.
    """
    chosen = read_recipe(recipe, overrides)
    make_deterministic(THREADS)
    if isinstance(chosen, PictureRecipe):
        return train_pictures(chosen, data_root, run_dir, progress)
    refuse_taken(run_dir, chosen)
    if isinstance(chosen, SegmenterRecipe):
        refuse_absent_teacher(chosen, overrides.teacher)
    checked = readable(read_parts([DataPart(one.folder, Layout.TABLE) for one in chosen.sources], data_root))
    remark = open_run(run_dir, chosen, checked.rows, data_root)
    for sentence in (remark, checked.sentence):
        if sentence:
            progress.says(sentence)
    trained = _trained(chosen, checked.rows, _Places(data_root, run_dir, overrides.teacher), progress)
    unreadable = [row.image.name for row in checked.skipped]
    write_result(run_dir, {"networks": [one.facts() for one in trained], "unreadable": unreadable})
    return trained


@dataclass(frozen=True, slots=True)
class _Places:
    data_root: Path
    run_dir: Path
    teacher: Teacher | None


def _trained(
    recipe: SegmenterRecipe | ClassifierRecipe,
    rows: tuple[LabelRow, ...],
    places: _Places,
    progress: TrainingProgress,
) -> tuple[TrainedNetwork, ...]:
    train_rows = [row for row in rows if row.split is Split.TRAIN]
    val_rows = [row for row in rows if row.split is Split.VAL]
    subjects = _subjects(recipe, places.data_root)
    if isinstance(recipe, ClassifierRecipe):
        task: Task = _classifier_task(recipe, train_rows, val_rows, progress)
        return fit_all(subjects, task, recipe.schedule, places.run_dir, progress)
    fields = tuple(field_samples(train_rows, STORE_MPP_UM)), tuple(field_samples(val_rows, STORE_MPP_UM))
    progress.says(f"{len(fields[0])} pictures to learn from, {len(fields[1])} to validate on")
    if places.teacher is not None:
        fields = tuple(taught(fields[0], recipe, places.teacher.run_dir, progress)), fields[1]
    if recipe.student_epochs:
        return fit_teacher_and_student(recipe, subjects[0], fields, places.run_dir, progress)
    return fit_all(subjects, SegmenterTask(recipe, *fields), recipe.schedule, places.run_dir, progress)


def _classifier_task(
    recipe: ClassifierRecipe,
    train_rows: Sequence[LabelRow],
    val_rows: Sequence[LabelRow],
    progress: TrainingProgress,
) -> ClassifierTask:
    shape = recipe.input
    crops = [tuple(crop_samples(part, shape.side_px, shape.mpp_um)) for part in (train_rows, val_rows)]
    progress.says(f"{len(crops[0])} crops to learn from, {len(crops[1])} to validate on")
    return ClassifierTask(recipe, *crops)


def _subjects(recipe: SegmenterRecipe | ClassifierRecipe, data_root: Path) -> list[Subject]:
    torch.manual_seed(recipe.seed)
    if isinstance(recipe, SegmenterRecipe):
        begun = recipe.network.begin(data_root)
        return [Subject(recipe.name, recipe.seed, _channels_last(begun.network), begun.pretrained)]
    subjects: list[Subject] = []
    for place, member in enumerate(recipe.members):
        network = LeukocyteClassifier(member.backbone, recipe.dropout, member.colours)
        lay_in(network.features, imagenet_weights(member.backbone))
        # Each learns from other draws: members that err alike are of no use to their mean.
        seed = recipe.seed + place * _SEEDS_APART
        subjects.append(Subject(member.name, seed, _channels_last(network), network.features))
    return subjects


def _channels_last(network: nn.Module) -> nn.Module:
    moved: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def export_bundle(
    runs: Runs, data_root: Path, target: Path, called: BundleName, making: ExportOptions = SHIPPED_OPTIONS
) -> BundleManifest:
    """Return the manifest, with its figures on val, of the bundle that is now in `target`.

    Raises: UsageError, where a run or a data set is missing or may not be shipped, or the bundle is too
    large; DeploymentError, where an ONNX file is not equal to its network.
    """
    torch.set_num_threads(THREADS)
    manifest = write_bundle(runs, target, called, _temperature(runs.classifier, data_root), making)
    report = evaluate(target, data_root)
    told = replace(manifest, figures=figures_of(report.scores()))
    write_manifest(target, told)
    return told


def _temperature(run_dir: Path, data_root: Path) -> float:
    recipe = recipe_of(run_dir)
    if not isinstance(recipe, ClassifierRecipe):
        raise UsageError(f"'{run_dir.name}' is no run of classifiers.", code="wrong-run")
    rows = [
        row for source in recipe.sources for row in read_table(data_root, source) if row.split is Split.VAL
    ]
    crops = tuple(crop_samples(rows, recipe.input.side_px, recipe.input.mpp_um))
    if not crops:
        raise UsageError("There is no labelled cell in val to fit the temperature on.", code="empty-split")
    pixels = torch.from_numpy(np.stack([plain_crop(crop, recipe.input.side_px) for crop in crops]))
    logits = [member_logits(network, pixels, _BATCH) for network in trained_members(run_dir, recipe).values()]
    return fit_temperature(logits, np.stack([crop.leaves for crop in crops]))


def evaluate(bundle_dir: Path, data_root: Path) -> BundleReport:
    """Return a bundle's figures on the val splits; `to_json()` prints them.

    Raises: UsageError, where the bundle or a data set is missing; DeploymentError, where it is broken.
    """
    if not (bundle_dir / "manifest.json").is_file():
        raise UsageError(f"'{bundle_dir.name}' holds no model bundle.", code="no-bundle")
    return evaluate_bundle(bundle_dir, data_root)
