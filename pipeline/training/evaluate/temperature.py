"""Fits the temperature of the classifiers' logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.model.domain import Probabilities

TEMPERATURES = tuple(float(value) for value in np.round(np.geomspace(0.5, 3.0, 37), 3))
"""Below 1 too: label smoothing and averaging over members leave an ensemble underconfident. On the first
bundle's val the mean −log p was 0.282 at 0.8 and 0.303 at 1; the smallest sets (aml_lmu, bm_mll_munich) were
best at 1.0 to 1.25."""


def fit_temperature(logits: Sequence[NDArray[np.float32]], allowed: NDArray[np.bool_]) -> float:
    """Return the temperature that maximises the likelihood of the allowed classes under the members' mean.

    `logits` float32 (N, L) by member; `allowed` bool (N, L). Source: Guo et al. 2017, arXiv 1706.04599.
    """
    return min(TEMPERATURES, key=lambda temperature: _mean_nll(logits, allowed, temperature))


def _mean_nll(logits: Sequence[NDArray[np.float32]], allowed: NDArray[np.bool_], temperature: float) -> float:
    mean: Probabilities = np.mean([_softmax(part / np.float32(temperature)) for part in logits], axis=0)
    return float(-np.log(np.maximum((mean * allowed).sum(axis=1), 1e-7)).mean())


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def member_logits(network: nn.Module, pixels: torch.Tensor, batch: int) -> NDArray[np.float32]:
    """Return float32 (N, L) of uint8 (N, H, W, 3) crops."""
    with torch.inference_mode():
        parts = [network(part).numpy() for part in torch.split(pixels, batch)]
    return np.asarray(np.concatenate(parts), np.float32)
