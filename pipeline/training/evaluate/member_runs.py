"""Runs the members of ensembles, from run folders or bundles, on labelled crops and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.bundle.manifest import FILE_NAME
from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.errors import UsageError
from pipeline.model.taxonomy import GROUPS, LEAVES, group_of
from pipeline.runtime.bundle_loader import load_bundle
from pipeline.runtime.concurrency.machine import available_cores
from pipeline.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from pipeline.training.data.intervals import ImageGroup
from pipeline.training.data.label_tables import LabelRow, Split, read_table
from pipeline.training.data.sources import known_source, trained_patients
from pipeline.training.data.training_samples import (
    CropSample,
    FieldSample,
    MapKind,
    crop_samples,
    field_samples,
)
from pipeline.training.evaluate.members import MEAN, MemberValues
from pipeline.training.fit.classifying import plain_crop
from pipeline.training.fit.run_folder import recipe_of, trained_members, trained_segmenter
from pipeline.training.fit.segmenting import STORE_MPP_UM, at_scale, padded, tissue_overlaps
from pipeline.training.recipe.recipes import ClassifierRecipe, InputSpec, SegmenterRecipe

Network = Callable[[Rgb], Probabilities]
"""uint8 (N, H, W, 3) to float32 (N, C, …), summing to 1 over axis 1"""
PICTURE_STRIDE_PX = 32
"""a multiple of every segmenter's stride"""
_BATCH = 32
_MIN_PROBABILITY = 1e-7
_GROUP_OF_LEAF = np.eye(len(GROUPS))[[GROUPS.index(group_of(leaf)) for leaf in LEAVES]]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Networks with the same input."""

    input: InputSpec
    members: Mapping[str, Network]
    folders: tuple[str, ...]
    """the data sets that it was trained on"""


@dataclass(frozen=True, slots=True)
class Ensembles:
    """The ensembles in the given folders, one for each seed."""

    classifiers: tuple[Ensemble, ...]
    segmenters: tuple[Ensemble, ...]


def load_ensembles(places: Sequence[Path]) -> Ensembles:
    """Return the ensembles in run folders and bundles.

    Each run of classifiers, and each bundle, is an ensemble. Runs of segmenters form one ensemble together,
    or several where each recipe was run equally often; they are combined in the given order.
    Raises: UsageError, where a folder is neither; DeploymentError, where a bundle is broken.
    """
    bundles = [place for place in places if (place / FILE_NAME).is_file()]
    recipes = {place: recipe_of(place) for place in places if place not in bundles}
    segmenters = {place: r for place, r in recipes.items() if isinstance(r, SegmenterRecipe)}
    classifiers = [
        _classifier_run(place, recipe)
        for place, recipe in recipes.items()
        if isinstance(recipe, ClassifierRecipe)
    ]
    classifiers += [_bundle_classifiers(place) for place in bundles]
    segmenter_ensembles = [_segmenter_runs(runs) for runs in _one_of_each_recipe(segmenters)] + [
        _bundle_segmenters(place) for place in bundles
    ]
    return Ensembles(tuple(classifiers), tuple(segmenter_ensembles))


def _one_of_each_recipe(runs: Mapping[Path, SegmenterRecipe]) -> list[dict[Path, SegmenterRecipe]]:
    by_name: dict[str, list[Path]] = {}
    for place, recipe in runs.items():
        by_name.setdefault(recipe.name, []).append(place)
    if len({len(same) for same in by_name.values()}) > 1:
        raise UsageError("Each segmenter's recipe has to be given equally often.", code="other_members")
    return [{place: runs[place] for place in chosen} for chosen in zip(*by_name.values(), strict=True)]


def _classifier_run(place: Path, recipe: ClassifierRecipe) -> Ensemble:
    networks = trained_members(place, recipe)
    members = {name: _torch(network) for name, network in networks.items()}
    return Ensemble(recipe.input, members, tuple(source.folder for source in recipe.sources))


def _segmenter_runs(runs: Mapping[Path, SegmenterRecipe]) -> Ensemble:
    scales = {recipe.input.mpp_um for recipe in runs.values()}
    if len(scales) > 1:
        raise UsageError("The segmenters work at different scales.", code="other_members")
    members = {recipe.name: _torch(trained_segmenter(place, recipe)) for place, recipe in runs.items()}
    folders = dict.fromkeys(source.folder for recipe in runs.values() for source in recipe.sources)
    return Ensemble(next(iter(runs.values())).input, members, tuple(folders))


def _bundle_classifiers(place: Path) -> Ensemble:
    bundle = load_bundle(place)
    entry = bundle.manifest.classifier
    graphs = {member.name: _onnx(bundle.file_of(member)) for member in entry.members}
    return Ensemble(InputSpec(entry.crop_px, entry.crop_mpp_um), graphs, _folders(place))


def _bundle_segmenters(place: Path) -> Ensemble:
    bundle = load_bundle(place)
    entry = bundle.manifest.segmenter
    graphs = {member.name: _onnx(bundle.file_of(member)) for member in entry.members}
    return Ensemble(InputSpec(PICTURE_STRIDE_PX, entry.working_mpp_um), graphs, _folders(place))


def _folders(place: Path) -> tuple[str, ...]:
    return tuple(entry.folder for entry in load_bundle(place).manifest.data_sets)


def _torch(network: nn.Module) -> Network:
    def predict(batch: Rgb) -> Probabilities:
        with torch.inference_mode():
            logits = network(torch.from_numpy(batch))
        return np.asarray(logits.softmax(dim=1).numpy(), np.float32)

    return predict


def _onnx(file: Path) -> Network:
    return OnnxRuntimeEngine(file, available_cores()).run


def rows_of(ensembles: Iterable[Ensemble], data_root: Path, folders: Sequence[str]) -> list[LabelRow]:
    """Return the val rows of the sets that the ensembles were trained on, or every row of the given sets.

    Raises: UsageError, where a set is missing, or an ensemble was trained on the patients of a given one.
    """
    trained_on = list(dict.fromkeys(folder for ensemble in ensembles for folder in ensemble.folders))
    seen = trained_patients(folders, trained_on)
    if seen:
        raise UsageError(
            f"The networks were trained on the patients of {', '.join(seen)}.", code="leaking_evaluation"
        )
    sides = (Split.TRAIN, Split.VAL) if folders else (Split.VAL,)
    tables = (read_table(data_root, known_source(folder)) for folder in dict.fromkeys(folders or trained_on))
    return [row for table in tables for row in table if row.split in sides]


def classifier_values(ensemble: Ensemble, rows: Iterable[LabelRow]) -> tuple[MemberValues, ...]:
    """Return, crop by crop (nominal scale, labelled centre), whether the group is correct, and the log of
    the probability of the classes that the label allows."""
    crops, groups = _crops(ensemble.input, rows)
    pixels = np.stack([plain_crop(crop, ensemble.input.side_px) for crop in crops])
    probabilities = {
        name: np.concatenate([network(pixels[at : at + _BATCH]) for at in range(0, len(pixels), _BATCH)])
        for name, network in ensemble.members.items()
    }
    probabilities[MEAN] = np.mean(list(probabilities.values()), axis=0)
    truth = np.array([GROUPS.index(group_of(crop.cell_class)) for crop in crops])
    allowed = np.stack([crop.leaves for crop in crops])
    correct = {
        name: ((part @ _GROUP_OF_LEAF).argmax(axis=1) == truth).astype(np.float64)
        for name, part in probabilities.items()
    }
    log_probability = {
        name: np.log(np.maximum((part * allowed).sum(axis=1, dtype=np.float64), _MIN_PROBABILITY))
        for name, part in probabilities.items()
    }
    folders = tuple(crop.folder for crop in crops)
    return (
        MemberValues("group_accuracy", folders, groups, correct),
        MemberValues("log_probability", folders, groups, log_probability),
    )


def _crops(shape: InputSpec, rows: Iterable[LabelRow]) -> tuple[list[CropSample], tuple[ImageGroup, ...]]:
    pairs = [
        (sample, _image_group(row))
        for row in rows
        for sample in crop_samples([row], shape.side_px, shape.mpp_um)
    ]
    if not pairs:
        raise UsageError("There is no labelled cell to compare on.", code="no_pictures")
    return [sample for sample, _ in pairs], tuple(group for _, group in pairs)


def _image_group(row: LabelRow) -> ImageGroup:
    return ImageGroup(row.source.scope, row.group or row.subject or row.image.name)


def segmenter_values(ensemble: Ensemble, rows: Iterable[LabelRow]) -> tuple[MemberValues, ...]:
    """Return, picture by picture with a mask, the Dice of cells and of nuclei, at the working scale.

    Pictures whose mask shows no nucleus are left out of the latter. Raises: UsageError, where no picture
    has a mask.
    """
    samples = [
        (at_scale(sample, ensemble.input.mpp_um), _image_group(row))
        for row in rows
        if row.mask is not None
        for sample in field_samples([row], STORE_MPP_UM)
        if sample.kind is MapKind.EXACT
    ]
    if not samples:
        raise UsageError("There is no masked picture to compare on.", code="no_pictures")
    cells, nuclei = zip(*(_dice(ensemble, sample) for sample, _ in samples), strict=True)
    folders, groups = [sample.folder for sample, _ in samples], [group for _, group in samples]
    return _defined("cell_dice", folders, groups, cells), _defined("nucleus_dice", folders, groups, nuclei)


def _defined(
    measure: str, folders: Sequence[str], groups: Sequence[ImageGroup], dice: Sequence[Mapping[str, float]]
) -> MemberValues:
    """Return the values of the pictures for which the measure is defined."""
    chosen = [index for index, by_member in enumerate(dice) if by_member]
    names = dice[chosen[0]] if chosen else ()
    return MemberValues(
        measure,
        tuple(folders[index] for index in chosen),
        tuple(groups[index] for index in chosen),
        {name: np.array([dice[index][name] for index in chosen]) for name in names},
    )


def _dice(ensemble: Ensemble, sample: FieldSample) -> tuple[dict[str, float], dict[str, float]]:
    """Return the Dice of cells and of nuclei by member and for the mean; none without a nucleus."""
    rgb, tissue = padded(sample.pixels, sample.tissue, PICTURE_STRIDE_PX)
    maps = {name: network(rgb[None])[0] for name, network in ensemble.members.items()}
    maps[MEAN] = np.mean(list(maps.values()), axis=0)
    overlaps = {name: tissue_overlaps(part, tissue) for name, part in maps.items()}
    return (
        {name: part.cell.dice for name, part in overlaps.items()},
        {name: part.nucleus.dice for name, part in overlaps.items() if part.nucleus is not None},
    )
