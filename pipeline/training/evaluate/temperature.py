"""Fits the temperature of the classifiers' logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.model.domain import Probabilities

TEMPERATURES = tuple(float(value) for value in np.round(np.geomspace(0.5, 3.0, 37), 3))
"""Below 1 too: label smoothing and the mean over members leave an ensemble less sure than it is right.
Measured on the first bundle's val: −log 0.282 at 0.8, 0.303 at 1; the sets that it knew least (aml_lmu,
bm_mll_munich) ask for 1.0 to 1.25, which is for the threshold to guard."""


def fit_temperature(logits: Sequence[NDArray[np.float32]], allowed: NDArray[np.bool_]) -> float:
    """Return the temperature under which the members' mean probability of what is allowed is likeliest.

    `logits` float32 (N, L) by member; `allowed` bool (N, L). Source: Guo et al. 2017, arXiv 1706.04599.
    """
    return min(TEMPERATURES, key=lambda temperature: _surprise(logits, allowed, temperature))


def _surprise(logits: Sequence[NDArray[np.float32]], allowed: NDArray[np.bool_], temperature: float) -> float:
    mean: Probabilities = np.mean([_softmax(part / np.float32(temperature)) for part in logits], axis=0)
    return float(-np.log(np.maximum((mean * allowed).sum(axis=1), 1e-7)).mean())


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = grown / grown.sum(axis=1, keepdims=True)
    return shares


def member_logits(network: nn.Module, pixels: torch.Tensor, batch: int) -> NDArray[np.float32]:
    """Return float32 (N, L) of uint8 (N, H, W, 3) crops."""
    with torch.inference_mode():
        parts = [network(part).numpy() for part in torch.split(pixels, batch)]
    return np.asarray(np.concatenate(parts), np.float32)
