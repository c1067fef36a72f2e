"""Networks for whole pictures: the paper's two, and transfer-learned backbones, for any number of classes."""

from __future__ import annotations

from enum import StrEnum

from torch import nn

from pipeline.networks.backbones import BackboneName
from pipeline.networks.classifiers import LeukocyteClassifier
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
        """The pretrained backbone inside; None where all starts from nothing."""
        return BackboneName(self.value) if self.value in set(BackboneName) else None


def picture_network(name: PictureNetwork, num_classes: int, side_px: int, dropout: float) -> nn.Module:
    """Return the network with fresh weights: uint8 (N, side_px, side_px, 3) RGB to logits (N, num_classes).

    Only transfer-learned networks have dropout. Raises: ValueError, where the side is too small.
    """
    if name is PictureNetwork.NETWORK_1:
        return network_1(num_classes, side_px)
    if name is PictureNetwork.NETWORK_2:
        return network_2(num_classes, side_px)
    return LeukocyteClassifier(BackboneName(name.value), dropout, num_classes)
