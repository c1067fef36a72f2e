"""Balances illumination and stain of a crop: white glass and dark chromatin, whatever the camera.

Its effect on laboratories excluded from training is in docs/adr/colour-balance.md.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional

GLASS = 235.0
"""brightness of the glass after balancing, for each channel"""
CHROMATIN = 70.0
"""brightness of the darkest part after balancing, mean of the channels"""
_COARSE_PX = 4
"""side of the squares whose means are used, so that single pixels have no effect"""
_BRIGHTEST, _DARKEST = 8, 32
"""the brightest 1/8 and the darkest 1/32 are averaged"""
CHROMATIN_RGB = (95.0, 50.0, 125.0)
"""colour of the darkest part after stain balance; measured on nuclei of pbc_barcelona"""
_LEAST_WHITE, _LEAST_CONTRAST, _LIGHTEST_DARK = 40.0, 40.0, 150.0
_CHROMATIN_RANGE = (4.0, 200.0)
_LEAST_DENSITY = 0.1
_STRENGTH_RANGE = (0.4, 2.5)
_HUE_RANGE = (0.75, 1.33)
"""Between channels; a larger difference comes from the optics, not the dye. Source:
docs/adr/colour-balance.md."""


class CropColours(StrEnum):
    """The reference of the colour balance."""

    LIGHT = "light"
    """glass and darkest part: `ColourBalance`"""
    STAIN = "stain"
    """glass and colour of the chromatin: `StainBalance`"""


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


class StainBalance(nn.Module):
    """uint8 (N, H, W, 3) RGB to float32 (N, H, W, 3) in [0, 235]; H and W are multiples of 4.

    Each channel's optical density against the crop's own glass is scaled so that its darkest part, chromatin,
    has the density of `CHROMATIN_RGB`, which evens out differences in dye strength and hue. Source: the
    anchors of Macenko et al. 2009 (ISBI, 1107), glass and nuclei, without a second stain.
    """

    density: Tensor

    def __init__(self) -> None:
        super().__init__()
        reference = -torch.log(torch.tensor(CHROMATIN_RGB) / GLASS)
        self.register_buffer("density", reference, persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the crops with their own glass at `GLASS` and their chromatin near `CHROMATIN_RGB`."""
        pixels = rgb.permute(0, 3, 1, 2).float()
        coarse = functional.avg_pool2d(pixels, _COARSE_PX).flatten(2)
        gain = GLASS / _brightest(coarse).clamp(min=_LEAST_WHITE)
        dark = _darkest_colour(coarse * gain).clamp(*_CHROMATIN_RANGE)
        factor = self.density / (-torch.log(dark / GLASS)).clamp(min=_LEAST_DENSITY)
        strength = torch.exp(torch.log(factor).mean(dim=1, keepdim=True))
        hue = (factor / strength).clamp(*_HUE_RANGE)
        scale = strength.clamp(*_STRENGTH_RANGE) * hue
        density = -torch.log((pixels * gain[..., None]).clamp(1.0, GLASS) / GLASS)
        balanced = GLASS * torch.exp(-density * scale[:, :, None, None])
        return balanced.permute(0, 2, 3, 1)


def balance_of(colours: CropColours) -> nn.Module:
    """Return the layer for a colour balance."""
    return StainBalance() if colours is CropColours.STAIN else ColourBalance()


def _brightest(coarse: Tensor) -> Tensor:
    """Return (N, 3, 1): the mean of the brightest eighth of each channel."""
    top = torch.topk(coarse, coarse.shape[2] // _BRIGHTEST, dim=2).values
    return top.mean(dim=2, keepdim=True)


def _darkest(brightness: Tensor) -> Tensor:
    """Return (N,): the mean of the darkest thirty-second part."""
    return torch.topk(brightness, brightness.shape[1] // _DARKEST, dim=1, largest=False).values.mean(dim=1)


def _darkest_colour(coarse: Tensor) -> Tensor:
    """Return (N, 3): the mean colour of the darkest thirty-second part of float32 (N, 3, M)."""
    brightness = coarse.mean(dim=1)
    index = torch.topk(brightness, brightness.shape[1] // _DARKEST, dim=1, largest=False).indices
    return torch.gather(coarse, 2, index[:, None].expand(-1, 3, -1)).mean(dim=2)
