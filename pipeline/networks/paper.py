"""The two classifiers that the paper describes layer by layer.

Source: Panin, Mamedov, Tarakanov 2023, Proceedings in Cybernetics 22(3):43–51, doi
10.35266/1999-7604-2023-3-43-51. Weights are initialised as in Keras, whose terms the paper uses: uniform
after Glorot and Bengio 2010 (AISTATS 9:249), biases zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

SIDE_PX = 200
_HIDDEN = 128


@dataclass(frozen=True, slots=True)
class PaperPlan:
    """The channels of the convolutional blocks, and the factor on the pixels."""

    channels: tuple[int, ...]
    pixel_scale: float


NETWORK_1 = PaperPlan(channels=(16, 32, 64, 128, 256, 512), pixel_scale=1.0 / 255.0)
"""types of leukocytes: pixels in [0, 1]"""
NETWORK_2 = PaperPlan(channels=(16, 32, 64), pixel_scale=1.0)
"""lymphoblasts against normal cells: pixels as they are, in [0, 255]"""


class PaperNetwork(nn.Module):
    """uint8 (N, side_px, side_px, 3) RGB crops to logits float32 (N, num_classes).

    A block is a 3 × 3 convolution that keeps the size, ReLU, and 2 × 2 max-pooling that rounds down.
    Raises: ValueError, where `side_px` is too small or there are fewer than two classes; from
    `forward`, for another size.
    """

    def __init__(self, plan: PaperPlan, num_classes: int, side_px: int = SIDE_PX) -> None:
        super().__init__()
        left_px = side_px >> len(plan.channels)
        if left_px < 1:
            raise ValueError(f"{len(plan.channels)} blocks reduce {side_px} px to nothing")
        if num_classes < 2:
            raise ValueError(f"a classifier needs two classes or more, not {num_classes}")
        self.side_px = side_px
        self.pixel_scale = plan.pixel_scale
        blocks: list[nn.Module] = []
        for inputs, outputs in zip((3, *plan.channels), plan.channels, strict=False):
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(plan.channels[-1] * left_px * left_px, _HIDDEN)
        self.head = nn.Linear(_HIDDEN, num_classes)
        self.apply(_start)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the logits."""
        if rgb.shape[1:] != (self.side_px, self.side_px, 3):
            raise ValueError(f"expected (N, {self.side_px}, {self.side_px}, 3), not {tuple(rgb.shape)}")
        pixels = rgb.permute(0, 3, 1, 2).float() * self.pixel_scale
        logits: Tensor = self.head(self.dense(self.blocks(pixels).flatten(1)).relu())
        return logits


def network_1(num_classes: int, side_px: int = SIDE_PX) -> PaperNetwork:
    """Return network 1: six blocks, pixels rescaled inside; `side_px` is at least 64."""
    return PaperNetwork(NETWORK_1, num_classes, side_px)


def network_2(num_classes: int, side_px: int = SIDE_PX) -> PaperNetwork:
    """Return network 2: three blocks, pixels as they are; `side_px` is at least 8."""
    return PaperNetwork(NETWORK_2, num_classes, side_px)


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
