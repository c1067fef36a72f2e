"""Entry points of the command line: train a recipe, export a bundle, evaluate its networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.bundle.manifest import BundleManifest
from pipeline.model.errors import UsageError
from pipeline.networks.backbones import load_pretrained
from pipeline.networks.classifiers import LeukocyteClassifier
from pipeline.training.data.datasets import DataPart, Layout, read_parts, readable
from pipeline.training.data.label_tables import LabelRow, Split, read_table
from pipeline.training.data.training_samples import crop_samples, field_samples
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
from pipeline.training.fit.run_folder import (
    open_run,
    recipe_of,
    require_free_or_same,
    trained_members,
    write_result,
)
from pipeline.training.fit.segmenting import STORE_MPP_UM, SegmenterTask
from pipeline.training.fit.self_training import fit_teacher_and_student, pseudo_labelled, require_teacher
from pipeline.training.fit.trained_networks import TrainedNetwork, fit_all
from pipeline.training.fit.training_loop import Task, TrainableNetwork, limit_threads, make_deterministic
from pipeline.training.recipe.overrides import NO_OVERRIDES, Overrides, Teacher
from pipeline.training.recipe.pretrained import imagenet_weights
from pipeline.training.recipe.recipes import ClassifierRecipe, PictureRecipe, SegmenterRecipe, read_recipe

THREADS = 2
_SEED_STEP = 1000
"""between members; larger than the number of epochs, each of which takes the next seed"""
_BATCH = 64


def train(
    recipe: str | Path,
    data_root: Path,
    run_dir: Path,
    progress: TrainingProgress,
    overrides: Overrides = NO_OVERRIDES,
) -> tuple[TrainedNetwork, ...]:
    """Return the trained networks; weights, history and curves are in `run_dir/<network>/`.

    An interrupted run is resumed after its last complete epoch. Raises: UsageError, where the recipe, a data
    set or a column is missing, or `run_dir` holds a run of another recipe or of other data.
    """
    chosen = read_recipe(recipe, overrides)
    make_deterministic(THREADS)
    if isinstance(chosen, PictureRecipe):
        return train_pictures(chosen, data_root, run_dir, progress)
    require_free_or_same(run_dir, chosen)
    if isinstance(chosen, SegmenterRecipe):
        require_teacher(chosen, overrides.teacher)
    checked = readable(read_parts([DataPart(one.folder, Layout.TABLE) for one in chosen.sources], data_root))
    warning = open_run(run_dir, chosen, checked.rows, data_root)
    for sentence in (warning, checked.sentence):
        if sentence:
            progress.says(sentence)
    trained = _trained(chosen, checked.rows, _Folders(data_root, run_dir, overrides.teacher), progress)
    unreadable = [row.image.name for row in checked.skipped]
    write_result(run_dir, {"networks": [one.facts() for one in trained], "unreadable": unreadable})
    return trained


@dataclass(frozen=True, slots=True)
class _Folders:
    data_root: Path
    run_dir: Path
    teacher: Teacher | None


def _trained(
    recipe: SegmenterRecipe | ClassifierRecipe,
    rows: tuple[LabelRow, ...],
    folders: _Folders,
    progress: TrainingProgress,
) -> tuple[TrainedNetwork, ...]:
    train_rows = [row for row in rows if row.split is Split.TRAIN]
    val_rows = [row for row in rows if row.split is Split.VAL]
    networks = _trainable_networks(recipe, folders.data_root)
    if isinstance(recipe, ClassifierRecipe):
        task: Task = _classifier_task(recipe, train_rows, val_rows, progress)
        return fit_all(networks, task, recipe.schedule, folders.run_dir, progress)
    fields = tuple(field_samples(train_rows, STORE_MPP_UM)), tuple(field_samples(val_rows, STORE_MPP_UM))
    progress.says(f"{len(fields[0])} pictures to learn from, {len(fields[1])} to validate on")
    if folders.teacher is not None:
        fields = tuple(pseudo_labelled(fields[0], recipe, folders.teacher.run_dir, progress)), fields[1]
    if recipe.student_epochs:
        return fit_teacher_and_student(recipe, networks[0], fields, folders.run_dir, progress)
    return fit_all(networks, SegmenterTask(recipe, *fields), recipe.schedule, folders.run_dir, progress)


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


def _trainable_networks(
    recipe: SegmenterRecipe | ClassifierRecipe, data_root: Path
) -> list[TrainableNetwork]:
    torch.manual_seed(recipe.seed)
    if isinstance(recipe, SegmenterRecipe):
        initial = recipe.network.initial_weights(data_root)
        return [
            TrainableNetwork(recipe.name, recipe.seed, _channels_last(initial.network), initial.pretrained)
        ]
    networks: list[TrainableNetwork] = []
    for index, member in enumerate(recipe.members):
        network = LeukocyteClassifier(member.backbone, recipe.dropout, member.colours)
        load_pretrained(network.features, imagenet_weights(member.backbone))
        # Different samples and augmentations for each: averaging members with the same errors gains nothing.
        seed = recipe.seed + index * _SEED_STEP
        networks.append(TrainableNetwork(member.name, seed, _channels_last(network), network.features))
    return networks


def _channels_last(network: nn.Module) -> nn.Module:
    converted: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return converted


def export_bundle(
    runs: Runs, data_root: Path, target: Path, name: BundleName, options: ExportOptions = SHIPPED_OPTIONS
) -> BundleManifest:
    """Return the manifest, with its figures on val, of the bundle that is now in `target`.

    Raises: UsageError, where a run or a data set is missing or may not be shipped, or the bundle is too
    large; DeploymentError, where an ONNX file is not equal to its network.
    """
    limit_threads(THREADS)
    manifest = write_bundle(runs, target, name, _temperature(runs.classifier, data_root), options)
    report = evaluate(target, data_root)
    evaluated = replace(manifest, figures=figures_of(report.scores()))
    write_manifest(target, evaluated)
    return evaluated


def _temperature(run_dir: Path, data_root: Path) -> float:
    recipe = recipe_of(run_dir)
    if not isinstance(recipe, ClassifierRecipe):
        raise UsageError(f"'{run_dir.name}' is no run of classifiers.", code="wrong_run")
    rows = [
        row for source in recipe.sources for row in read_table(data_root, source) if row.split is Split.VAL
    ]
    crops = tuple(crop_samples(rows, recipe.input.side_px, recipe.input.mpp_um))
    if not crops:
        raise UsageError("There is no labelled cell in val to fit the temperature on.", code="empty_split")
    pixels = torch.from_numpy(np.stack([plain_crop(crop, recipe.input.side_px) for crop in crops]))
    logits = [member_logits(network, pixels, _BATCH) for network in trained_members(run_dir, recipe).values()]
    return fit_temperature(logits, np.stack([crop.leaves for crop in crops]))


def evaluate(bundle_dir: Path, data_root: Path) -> BundleReport:
    """Return a bundle's figures on the val splits.

    Raises: UsageError, where the bundle or a data set is missing; DeploymentError, where it is broken.
    """
    if not (bundle_dir / "manifest.json").is_file():
        raise UsageError(f"'{bundle_dir.name}' holds no model bundle.", code="no_bundle")
    return evaluate_bundle(bundle_dir, data_root)
