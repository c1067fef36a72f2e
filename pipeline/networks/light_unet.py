"""A light U-Net: a pretrained encoder down to stride 16, and a decoder of dense 3 × 3 convolutions.

Source: Ronneberger et al. 2015 (U-Net, arXiv 1505.04597); the encoder replaced by an inverted-residual
backbone, the last step up bilinear, since a working pixel (0.25 µm) is finer than what outlines need.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.networks.backbones import BackboneName, Encoder

STRIDE_PX = 16
CLASSES = 3
"""background, cytoplasm, nucleus"""
_DECODER = (96, 64, 32)
"""channels at strides 8, 4, 2"""


class _UpBlock(nn.Module):
    """Upsample, concatenate with the map of the encoder, convolve."""

    def __init__(self, inputs: int, skipped: int, outputs: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(inputs + skipped, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, maps: Tensor, skipped: Tensor) -> Tensor:
        """Return (N, outputs, 2 H, 2 W)."""
        grown = functional.interpolate(maps, scale_factor=2.0, mode="nearest")
        mixed: Tensor = self.mix(torch.cat((grown, skipped), dim=1))
        return mixed


class LightUNet(nn.Module):
    """uint8 (N, H, W, 3) RGB to logits float32 (N, 3, H, W). H and W are multiples of 16."""

    def __init__(self, encoder: BackboneName = BackboneName.EFFICIENTNET_LITE0) -> None:
        super().__init__()
        self.encoder = Encoder(encoder)
        at2, at4, at8, at16 = self.encoder.channels
        self.up8 = _UpBlock(at16, at8, _DECODER[0])
        self.up4 = _UpBlock(_DECODER[0], at4, _DECODER[1])
        self.up2 = _UpBlock(_DECODER[1], at2, _DECODER[2])
        self.head = nn.Conv2d(_DECODER[2], CLASSES, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the logits of background, cytoplasm, nucleus."""
        at2, at4, at8, at16 = self.encoder(rgb)
        maps = self.up2(self.up4(self.up8(at16, at8), at4), at2)
        logits: Tensor = self.head(maps)
        return functional.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
