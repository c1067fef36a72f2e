"""Learning to tell whole pictures apart: cross-entropy from logits on class indices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.training.data.picture_augment import varied
from pipeline.training.data.picture_samples import PictureSamples
from pipeline.training.fit.batches import Batch, stacked
from pipeline.training.fit.training_loop import StepOutcome, Validation
from pipeline.training.recipe.recipes import PictureRecipe

_VAL_BATCH = 32


class PictureTask:
    """Every picture once an epoch in a new order, varied; the loss is what Keras calls sparse categorical
    cross-entropy from logits."""

    def __init__(self, recipe: PictureRecipe, train: PictureSamples, val: PictureSamples) -> None:
        self._recipe = recipe
        self._train = train
        self._val_pixels = torch.from_numpy(val.pixels)
        self._val_places = torch.from_numpy(val.places)

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's batches, the same for the same seed."""
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(self._train.places))
        asked = self._recipe.schedule.samples_per_epoch or len(order)
        order = np.resize(order, asked)
        for start in range(0, asked, self._recipe.schedule.batch):
            chosen = order[start : start + self._recipe.schedule.batch]
            pictures = [varied(rng, self._recipe.augment, self._train.pixels[index]) for index in chosen]
            yield Batch(stacked(pictures), torch.from_numpy(self._train.places[chosen]))

    def assess(self, logits: Tensor, batch: Batch) -> StepOutcome:
        """Return the loss, and the part of the pictures whose likeliest class is right."""
        loss = functional.cross_entropy(logits, batch.target, label_smoothing=self._recipe.label_smoothing)
        return StepOutcome(loss, _accuracy(logits.detach(), batch.target))

    def validate(self, network: nn.Module) -> Validation:
        """Return loss and accuracy on the val pictures as they are."""
        logits = torch.cat([network(part) for part in torch.split(self._val_pixels, _VAL_BATCH)])
        loss = float(functional.cross_entropy(logits, self._val_places))
        return Validation(loss, _accuracy(logits, self._val_places))


def _accuracy(logits: Tensor, places: Tensor) -> float:
    return float((logits.argmax(dim=1) == places).float().mean())
