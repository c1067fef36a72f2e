"""The training task of cell classifiers, on crops whose labels allow sets of leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pipeline.model.domain import Rgb
from pipeline.model.errors import UsageError
from pipeline.training.data.augment import Warp, colour_jittered, draw_warp, warped
from pipeline.training.data.palettes import Palettes
from pipeline.training.data.training_samples import CropSample
from pipeline.training.fit.batches import BalancedDraw, Batch, stacked
from pipeline.training.fit.losses import leaf_set_loss
from pipeline.training.fit.training_loop import StepOutcome, Validation
from pipeline.training.recipe.recipes import ClassifierRecipe

_VAL_BATCH = 64


def plain_crop(sample: CropSample, side_px: int) -> Rgb:
    """Return uint8 (side, side, 3): the middle of the sample, cropped as in inference."""
    top = (sample.pixels.shape[0] - side_px) // 2
    return np.ascontiguousarray(sample.pixels[top : top + side_px, top : top + side_px])


class ClassifierTask:
    """Balanced, augmented crops; the loss is −log of the probability of the allowed leaves."""

    def __init__(
        self, recipe: ClassifierRecipe, train: Sequence[CropSample], val: Sequence[CropSample]
    ) -> None:
        """Raises: UsageError, where a split has no labelled cell."""
        if not train or not val:
            side = "validate on" if train else "train on"
            raise UsageError(f"There is no labelled cell to {side}.", code="empty_split")
        self._recipe = recipe
        self._train = train
        self._val = val
        self._draw = BalancedDraw([(sample.cell_class, sample.folder) for sample in train], recipe.balance)
        self._palettes = Palettes(
            ((sample.folder, plain_crop(sample, recipe.input.side_px)) for sample in train),
            recipe.augment.palette_probability,
        )
        self._val_pixels = stacked([plain_crop(sample, recipe.input.side_px) for sample in val])
        self._val_allowed = _allowed(val)

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's batches, the same for the same seed."""
        rng = np.random.default_rng([seed, epoch])
        side_px = self._side_px(epoch)
        remaining = self._recipe.schedule.samples_per_epoch
        while remaining > 0:
            count = min(remaining, self._recipe.schedule.batch)
            samples = [self._train[index] for index in self._draw.draw(rng, count)]
            crops = [self._augmented(rng, sample, side_px) for sample in samples]
            yield Batch(stacked(crops), _allowed(samples))
            remaining -= count

    def _side_px(self, epoch: int) -> int:
        early = epoch < self._recipe.early_epochs
        return self._recipe.early_side_px if early else self._recipe.input.side_px

    def _augmented(self, rng: np.random.Generator, sample: CropSample, side_px: int) -> Rgb:
        view = Warp(np.eye(2, 3) * side_px / self._recipe.input.side_px, side_px)
        height, width = sample.pixels.shape[:2]
        warp = draw_warp(rng, self._recipe.augment, (height, width), view)
        crop = warped(sample.pixels, warp, cv2.BORDER_REPLICATE)
        return colour_jittered(rng, self._recipe.augment, self._palettes.transferred(rng, crop))

    def assess(self, logits: Tensor, batch: Batch) -> StepOutcome:
        """Return the loss, and the share of crops whose likeliest leaf is allowed."""
        loss = leaf_set_loss(logits, batch.target, self._recipe.label_smoothing)
        return StepOutcome(loss, float(_correct(logits.detach(), batch.target).float().mean()))

    def validate(self, network: nn.Module) -> Validation:
        """Return the loss on the val crops, cropped as in inference, and the mean recall over the classes."""
        logits = torch.cat([network(part) for part in torch.split(self._val_pixels, _VAL_BATCH)])
        correct = _correct(logits, self._val_allowed).numpy()
        classes = np.array([sample.cell_class for sample in self._val])
        recalls = [correct[classes == name].mean() for name in np.unique(classes)]
        return Validation(float(leaf_set_loss(logits, self._val_allowed, 0.0)), float(np.mean(recalls)))


def _allowed(samples: Sequence[CropSample]) -> Tensor:
    return torch.from_numpy(np.stack([sample.leaves for sample in samples]))


def _correct(logits: Tensor, allowed: Tensor) -> Tensor:
    return allowed.gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1)
