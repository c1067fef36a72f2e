"""Losses for partial labels: −log of the total probability of the classes that a label allows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.training.data.targets import Tissue


def leaf_set_loss(logits: Tensor, allowed: Tensor, smoothing: float) -> Tensor:
    """Return the mean of −log Σ p(allowed leaves), with a share `smoothing` of cross-entropy to uniform.

    `logits` float32 (N, L); `allowed` bool (N, L), at least one true in a row.
    """
    log_p = functional.log_softmax(logits, dim=1)
    marginal = -torch.logsumexp(log_p.masked_fill(~allowed, -torch.inf), dim=1)
    uniform = -log_p.mean(dim=1)
    return ((1.0 - smoothing) * marginal + smoothing * uniform).mean()


def tissue_cross_entropy(logits: Tensor, tissue: Tensor) -> Tensor:
    """Return the mean marginal −log p over the pixels that are not ignored; 0 where all are.

    `logits` float32 (N, 3, H, W); `tissue` uint8 (N, H, W) of `Tissue`.
    """
    log_p = functional.log_softmax(logits, dim=1)
    cell = torch.logaddexp(log_p[:, 1], log_p[:, 2])
    by_label = torch.stack((log_p[:, 0], log_p[:, 1], log_p[:, 2], cell), dim=1)
    known = tissue != Tissue.IGNORED
    index = torch.where(known, tissue, 0).long().unsqueeze(1)
    labelled = by_label.gather(1, index).squeeze(1)
    return -(labelled * known).sum() / known.sum().clamp(min=1)


def tissue_dice(logits: Tensor, tissue: Tensor) -> Tensor:
    """Return 1 − soft Dice, averaged over cell (all known pixels) and nucleus (pixels of known part)."""
    p = logits.softmax(dim=1)
    known = tissue != Tissue.IGNORED
    exact = known & (tissue != Tissue.CELL)
    cell = _soft_dice((1.0 - p[:, 0]) * known, (known & (tissue != Tissue.BACKGROUND)).float())
    nucleus = _soft_dice(p[:, 2] * exact, (tissue == Tissue.NUCLEUS).float())
    return 1.0 - (cell + nucleus) / 2


def _soft_dice(predicted: Tensor, truth: Tensor) -> Tensor:
    intersection = (predicted * truth).sum()
    return (2 * intersection + 1.0) / (predicted.sum() + truth.sum() + 1.0)
