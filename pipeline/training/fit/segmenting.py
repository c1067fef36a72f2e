"""The training task of segmenters, on masks, boxes and the centres of single-cell images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.errors import UsageError
from pipeline.training.data.augment import Warp, colour_jittered, draw_warp, warped, warped_labels
from pipeline.training.data.cell_metrics import Overlap, overlap
from pipeline.training.data.images import resized, resized_labels
from pipeline.training.data.palettes import Palettes
from pipeline.training.data.targets import LabelMap, Tissue
from pipeline.training.data.training_samples import FieldSample, MapKind
from pipeline.training.fit.batches import BalancedDraw, Batch, stacked
from pipeline.training.fit.losses import tissue_cross_entropy, tissue_dice
from pipeline.training.fit.training_loop import StepOutcome, Validation
from pipeline.training.recipe.recipes import SegmenterRecipe

STORE_MPP_UM = 0.18
"""scale at which pictures are kept: finer than the working scale, so that augmentation can enlarge them"""
KIND_WEIGHTS = {MapKind.EXACT: 5, MapKind.BOXES: 5, MapKind.CENTRE: 2}
_REFLECTED = 0.4
"""share of the patches that are mirrored beyond the edge of the picture, instead of padded with white"""
_CELL_THRESHOLD = 0.5


class SegmenterTask:
    """Balanced, augmented patches; the loss is marginal cross-entropy plus soft Dice."""

    def __init__(
        self, recipe: SegmenterRecipe, train: Sequence[FieldSample], val: Sequence[FieldSample]
    ) -> None:
        """Raises: UsageError, where a split has no picture with masks or boxes."""
        self._recipe = recipe
        self._train = train
        self._val = [at_scale(sample, recipe.input.mpp_um) for sample in val if sample.kind != MapKind.CENTRE]
        if not train or not self._val:
            side = "validate on" if train else "train on"
            raise UsageError(f"There is no picture with masks or boxes to {side}.", code="empty_split")
        keys = [
            ((sample.kind, part), sample.folder)
            for part in range(max(KIND_WEIGHTS.values()))
            for sample in train
            if part < KIND_WEIGHTS[sample.kind]
        ]
        self._owners = [
            index
            for part in range(max(KIND_WEIGHTS.values()))
            for index, sample in enumerate(train)
            if part < KIND_WEIGHTS[sample.kind]
        ]
        self._draw = BalancedDraw(keys, recipe.balance)
        self._palettes = Palettes(
            ((sample.folder, sample.pixels) for sample in train), recipe.augment.palette_probability
        )

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's batches, the same for the same seed."""
        rng = np.random.default_rng([seed, epoch])
        remaining = self._recipe.schedule.samples_per_epoch
        while remaining > 0:
            count = min(remaining, self._recipe.schedule.batch)
            drawn = [self._train[self._owners[index]] for index in self._draw.draw(rng, count)]
            patches = [self._augmented(rng, sample) for sample in drawn]
            yield Batch(stacked([rgb for rgb, _ in patches]), stacked([tissue for _, tissue in patches]))
            remaining -= count

    def _augmented(self, rng: np.random.Generator, sample: FieldSample) -> tuple[Rgb, LabelMap]:
        view = Warp(np.eye(2, 3) * STORE_MPP_UM / self._recipe.input.mpp_um, self._recipe.input.side_px)
        height, width = sample.pixels.shape[:2]
        warp = draw_warp(rng, self._recipe.augment, (height, width), view)
        if sample.boxes_px and rng.random() < 0.8:
            warp = _onto_cell(rng, sample, warp)
        border = cv2.BORDER_REFLECT_101 if rng.random() < _REFLECTED else cv2.BORDER_CONSTANT
        patch = self._palettes.transferred(rng, warped(sample.pixels, warp, border))
        rgb = colour_jittered(rng, self._recipe.augment, patch)
        return rgb, warped_labels(sample.tissue, warp, border)

    def assess(self, logits: Tensor, batch: Batch) -> StepOutcome:
        """Return the loss, and the soft Dice of the batch."""
        dice_loss = tissue_dice(logits, batch.target)
        loss = tissue_cross_entropy(logits, batch.target) + 0.5 * dice_loss
        return StepOutcome(loss, 1.0 - float(dice_loss.detach()))

    def validate(self, network: nn.Module) -> Validation:
        """Return the mean loss of the val pictures, and the mean Dice with equal weight for each data set."""
        losses: list[float] = []
        scores: dict[str, list[float]] = {}
        for sample in self._val:
            rgb, tissue = padded(sample.pixels, sample.tissue, self._recipe.network.stride_px)
            logits = network(torch.from_numpy(rgb)[None])
            losses.append(float(tissue_cross_entropy(logits, torch.from_numpy(tissue)[None])))
            agreement = tissue_overlaps(logits.softmax(dim=1)[0].numpy(), tissue)
            scores.setdefault(sample.folder, []).append(agreement.cell.dice)
            if agreement.nucleus is not None:
                scores.setdefault(sample.folder + " nucleus", []).append(agreement.nucleus.dice)
        return Validation(float(np.mean(losses)), float(np.mean([np.mean(part) for part in scores.values()])))


def _onto_cell(rng: np.random.Generator, sample: FieldSample, warp: Warp) -> Warp:
    """Return the same view, shifted so that one of the leukocytes lies in it."""
    box = sample.boxes_px[int(rng.integers(len(sample.boxes_px)))]
    middle = np.array([box.x + box.width / 2, box.y + box.height / 2])
    target = warp.side * rng.uniform(0.15, 0.85, size=2)
    linear = warp.matrix[:, :2]
    return Warp(np.column_stack((linear, target - linear @ middle)), warp.side)


@dataclass(frozen=True, slots=True)
class TissueAgreement:
    """Overlaps of one picture with its label map."""

    cell: Overlap
    nucleus: Overlap | None
    """None where the label map has no nucleus"""


def tissue_overlaps(probabilities: Probabilities, tissue: LabelMap) -> TissueAgreement:
    """Return the overlaps of float32 (3, H, W) with a label map, over its labelled pixels."""
    known = tissue != Tissue.IGNORED
    cell = overlap(1.0 - probabilities[0] >= _CELL_THRESHOLD, known & (tissue != Tissue.BACKGROUND), known)
    exact = known & (tissue != Tissue.CELL)
    nucleus: NDArray[np.bool_] = tissue == Tissue.NUCLEUS
    if not nucleus.any():
        return TissueAgreement(cell, None)
    return TissueAgreement(cell, overlap(probabilities[2] >= _CELL_THRESHOLD, nucleus, exact))


def at_scale(sample: FieldSample, mpp_um: float) -> FieldSample:
    """Return the sample, downscaled from `STORE_MPP_UM`."""
    factor = STORE_MPP_UM / mpp_um
    return FieldSample(
        sample.folder, sample.kind, resized(sample.pixels, factor), resized_labels(sample.tissue, factor)
    )


def padded(pixels: Rgb, tissue: LabelMap, multiple: int) -> tuple[Rgb, LabelMap]:
    """Return both padded to the right and below to multiples of `multiple`: white, with label `IGNORED`."""
    below, right = -pixels.shape[0] % multiple, -pixels.shape[1] % multiple
    rgb = np.pad(pixels, ((0, below), (0, right), (0, 0)), constant_values=255)
    return rgb, np.pad(tissue, ((0, below), (0, right)), constant_values=int(Tissue.IGNORED))
