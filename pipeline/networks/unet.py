"""The classic U-Net: five levels of paired 3 × 3 convolutions, skip connections, up-convolutions.

Source: Ronneberger et al. 2015 (arXiv 1505.04597), figure 1 and section 3. Two things differ: convolutions
are padded, so that a map keeps its size, and the input is RGB.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.networks.backbones import PLANS, BackboneName, RgbInput
from pipeline.networks.light_unet import CLASSES

STRIDE_PX = 16
LEVELS = 5
WIDTH = 64
"""channels of the first level; every level below has twice as many"""


def require_multiple(rgb: Tensor, multiple_px: int) -> None:
    """Check that `rgb` is (N, H, W, 3) with H and W multiples of `multiple_px`.

    Raises: ValueError
    """
    if rgb.ndim != 4 or rgb.shape[3] != 3:
        raise ValueError(f"expected pixels as (N, H, W, 3), not {tuple(rgb.shape)}")
    for side in rgb.shape[1:3]:
        if side == 0 or side % multiple_px != 0:
            raise ValueError(f"H and W must be multiples of {multiple_px} px, not {tuple(rgb.shape[1:3])}")


def _pair(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
    )


class _UpStep(nn.Module):
    """Upsample to half the channels, concatenate with the maps of the level, convolve."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.grow = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
        self.mix = _pair(inputs, inputs // 2)

    def forward(self, maps: Tensor, skipped: Tensor) -> Tensor:
        """Return (N, inputs / 2, 2 H, 2 W)."""
        mixed: Tensor = self.mix(torch.cat((skipped, self.grow(maps)), dim=1))
        return mixed


class UNet(nn.Module):
    """uint8 (N, H, W, 3) RGB to logits float32 (N, 3, H, W). H and W are multiples of 16.

    `width` is the number of channels of the first level, 64 in the paper. Dropout stands at the end of the
    contracting path, on its two lowest levels. Raises: ValueError, from `forward`, for another size.
    """

    def __init__(self, width: int = WIDTH, dropout: float = 0.5) -> None:
        super().__init__()
        channels = [width << level for level in range(LEVELS)]
        # Pixels in [-1, 1], as for the lite backbones.
        self.input = RgbInput(PLANS[BackboneName.EFFICIENTNET_LITE0])
        self.down = nn.ModuleList(
            _pair(inputs, outputs) for inputs, outputs in zip([3, *channels], channels, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(_UpStep(inputs) for inputs in reversed(channels[1:]))
        self.head = nn.Conv2d(width, CLASSES, 1)
        self.apply(_start)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the logits of background, cytoplasm, nucleus."""
        require_multiple(rgb, STRIDE_PX)
        maps: Tensor = self.down[0](self.input(rgb))
        levels = [maps]
        for level, pair in enumerate(self.down[1:], start=1):
            maps = pair(self.pool(maps))
            levels.append(maps if level < LEVELS - 2 else self.dropout(maps))
            maps = levels[-1]
        for step, skipped in zip(self.up, reversed(levels[:-1]), strict=True):
            maps = step(maps, skipped)
        logits: Tensor = self.head(maps)
        return logits


def _start(module: nn.Module) -> None:
    """Initialise with a normal deviation of sqrt(2 / inputs of a neuron), as in section 3 of the paper."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
