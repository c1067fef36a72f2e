"""The training task of classifiers of whole pictures: cross-entropy on class indices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.training.data.picture_augment import augmented
from pipeline.training.data.picture_samples import PictureSamples
from pipeline.training.fit.batches import Batch, stacked
from pipeline.training.fit.training_loop import StepOutcome, Validation
from pipeline.training.recipe.recipes import PictureRecipe

_VAL_BATCH = 32


class PictureTask:
    """Every picture once an epoch, shuffled and augmented; the loss is Keras' sparse categorical
    cross-entropy from logits."""

    def __init__(self, recipe: PictureRecipe, train: PictureSamples, val: PictureSamples) -> None:
        self._recipe = recipe
        self._train = train
        self._val_pixels = torch.from_numpy(val.pixels)
        self._val_classes = torch.from_numpy(val.class_indices)

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's batches, the same for the same seed."""
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(self._train.class_indices))
        count = self._recipe.schedule.samples_per_epoch or len(order)
        order = np.resize(order, count)
        for start in range(0, count, self._recipe.schedule.batch):
            chosen = order[start : start + self._recipe.schedule.batch]
            pictures = [augmented(rng, self._recipe.augment, self._train.pixels[index]) for index in chosen]
            yield Batch(stacked(pictures), torch.from_numpy(self._train.class_indices[chosen]))

    def assess(self, logits: Tensor, batch: Batch) -> StepOutcome:
        """Return the loss, and the share of pictures whose likeliest class is correct."""
        loss = functional.cross_entropy(logits, batch.target, label_smoothing=self._recipe.label_smoothing)
        return StepOutcome(loss, _accuracy(logits.detach(), batch.target))

    def validate(self, network: nn.Module) -> Validation:
        """Return loss and accuracy on the val pictures, without augmentation."""
        logits = torch.cat([network(part) for part in torch.split(self._val_pixels, _VAL_BATCH)])
        loss = float(functional.cross_entropy(logits, self._val_classes))
        return Validation(loss, _accuracy(logits, self._val_classes))


def _accuracy(logits: Tensor, classes: Tensor) -> float:
    return float((logits.argmax(dim=1) == classes).float().mean())
