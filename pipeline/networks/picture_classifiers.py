"""Networks for whole pictures: those of the paper, and pretrained backbones, for any number of classes."""

from __future__ import annotations

from enum import StrEnum

from torch import Tensor, nn

from pipeline.networks.backbones import FEATURES, BackboneName, FeatureExtractor
from pipeline.networks.paper import network_1, network_2


class PictureNetwork(StrEnum):
    """The networks that recipes for whole pictures name."""

    NETWORK_1 = "network-1"
    NETWORK_2 = "network-2"
    EFFICIENTNET_LITE0 = "efficientnet-lite0"
    EFFICIENTNET_LITE1 = "efficientnet-lite1"
    MOBILENET_V2 = "mobilenet-v2"

    @property
    def backbone(self) -> BackboneName | None:
        """The pretrained backbone; None if the network is trained from scratch."""
        return BackboneName(self.value) if self.value in set(BackboneName) else None


class TransferClassifier(nn.Module):
    """uint8 (N, H, W, 3) RGB pictures, H and W multiples of 32, to logits float32 (N, num_classes).

    There is no colour balance: cells may be cut out on black.
    """

    def __init__(self, backbone: BackboneName, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.features = FeatureExtractor(backbone)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(FEATURES, num_classes)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.dropout(self.features(rgb).mean(dim=(2, 3))))
        return logits


def picture_network(name: PictureNetwork, num_classes: int, side_px: int, dropout: float) -> nn.Module:
    """Return the network with fresh weights: uint8 (N, side_px, side_px, 3) RGB to logits (N, num_classes).

    Only transfer-learned networks have dropout. Raises: ValueError, where the side is too small.
    """
    if name is PictureNetwork.NETWORK_1:
        return network_1(num_classes, side_px)
    if name is PictureNetwork.NETWORK_2:
        return network_2(num_classes, side_px)
    return TransferClassifier(BackboneName(name.value), num_classes, dropout)
