"""Trains the classifiers of a recipe for whole pictures, and measures each and their mean."""

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
from pipeline.training.data.label_tables import LabelRow, Split, refuse_leaks
from pipeline.training.data.picture_samples import ClassedRow, PictureSamples, classed_rows, load_pictures
from pipeline.training.data.picture_sets import picture_rows
from pipeline.training.fit.picture_task import PictureTask
from pipeline.training.fit.progress import TrainingProgress
from pipeline.training.fit.run_course import TrainedNetwork, fit_all
from pipeline.training.fit.run_folder import open_run, refuse_taken, write_result
from pipeline.training.fit.training_loop import Subject
from pipeline.training.recipe.pretrained import imagenet_weights
from pipeline.training.recipe.recipes import PictureRecipe

MEAN = "mean"
_BATCH = 32


@dataclass(frozen=True, slots=True)
class PictureScore:
    """What a member, or the mean of all, makes of one side of the split."""

    member: str
    split: Split
    table: Confusion

    def facts(self) -> dict[str, object]:
        """Return what a run folder says of it."""
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
        """Return it for a person."""
        facts = self.facts()
        return (
            f"{self.member}: {self.split} accuracy {facts['accuracy']:.4f}, "
            f"weighted F1 {facts['weighted_f1']:.4f}, n = {facts['n']}"
        )


def weighted_f1(table: Confusion) -> float:
    """Return the mean F1 over the classes, each weighing as many as its cases; 0 for no case.

    Source: the measure of the ISBI 2019 challenge on C-NMC (Gupta and Gupta 2019, doi
    10.7937/tcia.2019.dc64i46r).
    """
    counts = np.array(table.counts)
    support, predicted, right = counts.sum(axis=1), counts.sum(axis=0), np.diag(counts)
    scores = 2 * right / np.maximum(1, support + predicted)
    return float((scores * support).sum() / max(1, support.sum()))


def train_pictures(
    recipe: PictureRecipe, data_root: Path, run_dir: Path, progress: TrainingProgress
) -> tuple[TrainedNetwork, ...]:
    """Return the trained members; `result.json` has the figures of each and of their mean.

    Raises: UsageError, as `command.train`, and where a class is empty.
    """
    refuse_taken(run_dir, recipe)
    rows = joined([row for folder in recipe.folders for row in picture_rows(data_root, folder)])
    checked = readable([one.row for one in classed_rows(rows, recipe.classes, recipe.fold, recipe.seed)])
    refuse_leaks(checked.rows)
    classed = classed_rows(checked.rows, recipe.classes, None, recipe.seed)
    remark = open_run(run_dir, recipe, checked.rows, data_root)
    for sentence in (remark, checked.sentence, _counted(checked, rows)):
        if sentence:
            progress.says(sentence)
    samples = _loaded(classed, recipe.input.side_px)
    task = PictureTask(recipe, samples[Split.TRAIN], samples[Split.VAL])
    asked = recipe.schedule.samples_per_epoch or len(samples[Split.TRAIN].places)
    subjects = picture_subjects(recipe)
    trained = fit_all(subjects, task, replace(recipe.schedule, samples_per_epoch=asked), run_dir, progress)
    scores = measured(subjects, samples, recipe)
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


def picture_subjects(recipe: PictureRecipe) -> list[Subject]:
    """Return the members before training: paper networks with fresh weights, backbones from ImageNet."""
    torch.manual_seed(recipe.seed)
    subjects: list[Subject] = []
    for member in recipe.members:
        network = picture_network(member, len(recipe.classes), recipe.input.side_px, recipe.dropout)
        pretrained: nn.Module = nn.Identity()
        if isinstance(network, TransferClassifier) and member.backbone is not None:
            load_pretrained(network.features, imagenet_weights(member.backbone))
            pretrained = network.features
        moved: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        subjects.append(Subject(str(member), recipe.seed, moved, pretrained))
    return subjects


def measured(
    subjects: Sequence[Subject], samples: Mapping[Split, PictureSamples], recipe: PictureRecipe
) -> tuple[PictureScore, ...]:
    """Return the scores of each member and of the mean of their probabilities, on val and test."""
    names = tuple(one.name for one in recipe.classes)
    scores: list[PictureScore] = []
    for split, part in samples.items():
        if split is Split.TRAIN:
            continue
        voices = {subject.name: probabilities(subject.network, part) for subject in subjects}
        if len(voices) > 1:
            voices[MEAN] = np.mean(list(voices.values()), axis=0)
        truth = [names[place] for place in part.places]
        for member, said in voices.items():
            guessed = [names[place] for place in said.argmax(axis=1)]
            scores.append(PictureScore(member, split, confusion(truth, guessed, names)))
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
    """Accounts for every row of the data sets."""
    count = Counter(row.split for row in checked.rows)
    other = len(rows) - len(checked.rows) - len(checked.skipped)
    return (
        f"{count[Split.TRAIN]} pictures to learn from, {count[Split.VAL]} to validate on, "
        f"{count[Split.TEST]} to test on, {len(checked.skipped)} unreadable, {other} of other classes"
    )
