"""Trains the classifiers of a recipe for whole pictures, and evaluates each and their mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.networks.backbones import load_pretrained
from pipeline.networks.picture_classifiers import TransferClassifier, picture_network
from pipeline.training.data.cell_metrics import Confusion, confusion
from pipeline.training.data.datasets import ReadableRows, joined, readable
from pipeline.training.data.label_tables import LabelRow, Split, require_no_leaks
from pipeline.training.data.picture_samples import ClassedRow, PictureSamples, classed_rows, load_pictures
from pipeline.training.data.picture_sets import picture_rows
from pipeline.training.fit.picture_task import PictureTask
from pipeline.training.fit.progress import TrainingProgress
from pipeline.training.fit.run_folder import open_run, require_free_or_same, write_result
from pipeline.training.fit.trained_networks import TrainedNetwork, fit_all
from pipeline.training.fit.training_loop import TrainableNetwork
from pipeline.training.recipe.pretrained import imagenet_weights
from pipeline.training.recipe.recipes import PictureRecipe

MEAN = "mean"
_BATCH = 32


@dataclass(frozen=True, slots=True)
class MemberConfusion:
    """The confusion matrix of a member, or of the mean of all, on one split."""

    member: str
    split: Split
    table: Confusion

    def facts(self) -> dict[str, object]:
        """Return its entry in the run folder's results."""
        return {
            "member": self.member,
            "split": str(self.split),
            "n": sum(map(sum, self.table.counts)),
            "accuracy": round(self.table.accuracy, 4),
            "weighted_f1": round(weighted_f1(self.table), 4),
            "macro_f1": round(self.table.macro_f1, 4),
            "classes": list(self.table.names),
            "confusion": [list(row) for row in self.table.counts],
        }

    def sentence(self) -> str:
        """Return it as one line of text."""
        facts = self.facts()
        return (
            f"{self.member}: {self.split} accuracy {facts['accuracy']:.4f}, "
            f"weighted F1 {facts['weighted_f1']:.4f}, n = {facts['n']}"
        )


def weighted_f1(table: Confusion) -> float:
    """Return the mean F1 over the classes, weighted by their support; 0 for no case.

    Source: the measure of the ISBI 2019 challenge on C-NMC (Gupta and Gupta 2019, doi
    10.7937/tcia.2019.dc64i46r).
    """
    counts = np.array(table.counts)
    support, predicted, correct = counts.sum(axis=1), counts.sum(axis=0), np.diag(counts)
    scores = 2 * correct / np.maximum(1, support + predicted)
    return float((scores * support).sum() / max(1, support.sum()))


def train_pictures(
    recipe: PictureRecipe, data_root: Path, run_dir: Path, progress: TrainingProgress
) -> tuple[TrainedNetwork, ...]:
    """Return the trained members; `result.json` has the figures of each and of their mean.

    Raises: UsageError, as `command.train`, and where a class is empty.
    """
    require_free_or_same(run_dir, recipe)
    rows = joined([row for folder in recipe.folders for row in picture_rows(data_root, folder)])
    checked = readable([one.row for one in classed_rows(rows, recipe.classes, recipe.fold, recipe.seed)])
    require_no_leaks(checked.rows)
    classed = classed_rows(checked.rows, recipe.classes, None, recipe.seed)
    warning = open_run(run_dir, recipe, checked.rows, data_root)
    for sentence in (warning, checked.sentence, _counted(checked, rows)):
        if sentence:
            progress.says(sentence)
    samples = _loaded(classed, recipe.input.side_px)
    task = PictureTask(recipe, samples[Split.TRAIN], samples[Split.VAL])
    count = recipe.schedule.samples_per_epoch or len(samples[Split.TRAIN].class_indices)
    networks = trainable_networks(recipe)
    trained = fit_all(networks, task, replace(recipe.schedule, samples_per_epoch=count), run_dir, progress)
    scores = evaluated(networks, samples, recipe)
    for score in scores:
        progress.says(score.sentence())
    write_result(
        run_dir,
        {
            "networks": [one.facts() for one in trained],
            "unreadable": [row.image.name for row in checked.skipped],
            "figures": [score.facts() for score in scores],
        },
    )
    return trained


def trainable_networks(recipe: PictureRecipe) -> list[TrainableNetwork]:
    """Return the members before training: the paper's with random weights, backbones with ImageNet's."""
    torch.manual_seed(recipe.seed)
    networks: list[TrainableNetwork] = []
    for member in recipe.members:
        network = picture_network(member, len(recipe.classes), recipe.input.side_px, recipe.dropout)
        pretrained: nn.Module = nn.Identity()
        if isinstance(network, TransferClassifier) and member.backbone is not None:
            load_pretrained(network.features, imagenet_weights(member.backbone))
            pretrained = network.features
        moved: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        networks.append(TrainableNetwork(str(member), recipe.seed, moved, pretrained))
    return networks


def evaluated(
    networks: Sequence[TrainableNetwork], samples: Mapping[Split, PictureSamples], recipe: PictureRecipe
) -> tuple[MemberConfusion, ...]:
    """Return the scores of each member and of the mean of their probabilities, on val and test."""
    names = tuple(one.name for one in recipe.classes)
    scores: list[MemberConfusion] = []
    for split, part in samples.items():
        if split is Split.TRAIN:
            continue
        by_member = {member.name: probabilities(member.network, part) for member in networks}
        if len(by_member) > 1:
            by_member[MEAN] = np.mean(list(by_member.values()), axis=0)
        truth = [names[index] for index in part.class_indices]
        for member, predicted in by_member.items():
            classes = [names[index] for index in predicted.argmax(axis=1)]
            scores.append(MemberConfusion(member, split, confusion(truth, classes, names)))
    return tuple(scores)


def probabilities(network: nn.Module, samples: PictureSamples) -> NDArray[np.float64]:
    """Return float64 (N, classes), rows sum to 1."""
    network.eval()
    with torch.inference_mode():
        parts = [network(part) for part in torch.split(torch.from_numpy(samples.pixels), _BATCH)]
        return np.asarray(torch.cat(parts).double().softmax(dim=1).numpy(), np.float64)


def _loaded(classed: Sequence[ClassedRow], side_px: int) -> dict[Split, PictureSamples]:
    by_split = {split: [one for one in classed if one.row.split is split] for split in Split}
    return {split: load_pictures(part, side_px) for split, part in by_split.items() if part}


def _counted(checked: ReadableRows, rows: Sequence[LabelRow]) -> str:
    """Return a sentence that accounts for every row of the data sets."""
    count = Counter(row.split for row in checked.rows)
    other = len(rows) - len(checked.rows) - len(checked.skipped)
    return (
        f"{count[Split.TRAIN]} pictures to learn from, {count[Split.VAL]} to validate on, "
        f"{count[Split.TEST]} to test on, {len(checked.skipped)} unreadable, {other} of other classes"
    )
