"""Balances light and stain of a crop before a network sees it: white glass, dark chromatin, whatever camera.

Measured, not assumed: docs/adr/colour-balance.md has what it brought on laboratories left out of training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

GLASS = 235.0
"""what the brightest part of a crop becomes, channel by channel"""
CHROMATIN = 70.0
"""what the darkest part of a crop becomes, in the mean of its channels"""
_COARSE_PX = 4
"""light is measured on means of 4 × 4 px, so that single pixels decide nothing"""
_BRIGHTEST, _DARKEST = 8, 32
"""one part in so many is averaged"""
_LEAST_WHITE, _LEAST_CONTRAST, _LIGHTEST_DARK = 40.0, 40.0, 150.0


class ColourBalance(nn.Module):
    """uint8 (N, H, W, 3) RGB to float32 (N, H, W, 3) in [0, 255]; H and W are multiples of 4."""

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the crops with their own glass at `GLASS` and their own darkest part at `CHROMATIN`."""
        pixels = rgb.permute(0, 3, 1, 2).float()
        coarse = functional.avg_pool2d(pixels, _COARSE_PX).flatten(2)
        gain = GLASS / _brightest(coarse).clamp(min=_LEAST_WHITE)
        dark = _darkest((coarse * gain).mean(dim=1)).clamp(max=_LIGHTEST_DARK)
        contrast = (GLASS - CHROMATIN) / (GLASS - dark).clamp(min=_LEAST_CONTRAST)
        balanced = GLASS - (GLASS - pixels * gain[..., None]) * contrast[:, None, None, None]
        return balanced.clamp(0.0, 255.0).permute(0, 2, 3, 1)


def _brightest(coarse: Tensor) -> Tensor:
    """Return (N, 3, 1): the mean of the brightest eighth of each channel."""
    top = torch.topk(coarse, coarse.shape[2] // _BRIGHTEST, dim=2).values
    return top.mean(dim=2, keepdim=True)


def _darkest(brightness: Tensor) -> Tensor:
    """Return (N,): the mean of the darkest thirty-second part."""
    return torch.topk(brightness, brightness.shape[1] // _DARKEST, dim=1, largest=False).values.mean(dim=1)
