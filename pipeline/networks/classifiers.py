"""The members of the ensemble: colour balance, a pretrained backbone, global average pooling, one layer."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.model.taxonomy import LEAVES
from pipeline.networks.backbones import FEATURES, BackboneName, FeatureExtractor
from pipeline.networks.colour_balance import CropColours, balance_of


class LeukocyteClassifier(nn.Module):
    """uint8 (N, H, W, 3) RGB crops to logits float32 (N, 13), in the order of `taxonomy.LEAVES`.

    H and W are multiples of 32.
    """

    def __init__(
        self, backbone: BackboneName, dropout: float = 0.2, colours: CropColours = CropColours.LIGHT
    ) -> None:
        super().__init__()
        self.balance = balance_of(colours)
        self.features = FeatureExtractor(backbone)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(FEATURES, len(LEAVES))

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.dropout(self.features(self.balance(rgb)).mean(dim=(2, 3))))
        return logits
