"""The members of the ensemble: a pretrained backbone, mean over the place, one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.networks.backbones import FEATURES, BackboneName, FeatureExtractor
from pipeline.taxonomy import LEAVES


class LeukocyteClassifier(nn.Module):
    """uint8 (N, H, W, 3) RGB crops to logits float32 (N, 13), in the order of `taxonomy.LEAVES`.

    H and W are multiples of 32. Recipes with classes of their own ask for another number of logits.
    """

    def __init__(self, backbone: BackboneName, dropout: float = 0.2, logits: int = len(LEAVES)) -> None:
        super().__init__()
        self.features = FeatureExtractor(backbone)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(FEATURES, logits)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.dropout(self.features(rgb).mean(dim=(2, 3))))
        return logits
