"""Inverted-residual backbones: MobileNetV2 and EfficientNet-Lite, from one plan each.

Modules are in the order of the published state dicts, so that pretrained weights can be loaded one by one.
Sources: Sandler et al. 2018 (MobileNetV2, arXiv 1801.04381), table 2; EfficientNet-Lite, Google 2020
(Tan and Le 2019, arXiv 1905.11946, without squeeze-and-excitation, ReLU6, stem and head not scaled).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

FEATURES = 1280
"""Channels of every backbone's head."""


class BackboneName(StrEnum):
    """The backbones that recipes and bundles name."""

    EFFICIENTNET_LITE0 = "efficientnet-lite0"
    EFFICIENTNET_LITE1 = "efficientnet-lite1"
    MOBILENET_V2 = "mobilenet-v2"


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """A group of `repeats` inverted residuals, the first of which has the stride."""

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int


@dataclass(frozen=True, slots=True)
class BackbonePlan:
    """The blocks of a backbone, and the normalisation of its pretraining: (rgb / 255 - mean) / std."""

    groups: tuple[BlockGroup, ...]
    norm_epsilon: float
    pads_after: bool
    """strided convolutions pad only right and below, as TensorFlow does for even sizes"""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_HALF = (0.5, 0.5, 0.5)


def _lite(repeats: tuple[int, ...]) -> BackbonePlan:
    shapes = (
        (1, 16, 1, 3),
        (6, 24, 2, 3),
        (6, 40, 2, 5),
        (6, 80, 2, 3),
        (6, 112, 1, 5),
        (6, 192, 2, 5),
        (6, 320, 1, 3),
    )
    groups = tuple(
        BlockGroup(expansion, channels, count, stride, kernel)
        for (expansion, channels, stride, kernel), count in zip(shapes, repeats, strict=True)
    )
    return BackbonePlan(groups, norm_epsilon=1e-3, pads_after=True, mean=_HALF, std=_HALF)


PLANS: dict[BackboneName, BackbonePlan] = {
    BackboneName.EFFICIENTNET_LITE0: _lite((1, 2, 2, 3, 3, 4, 1)),
    BackboneName.EFFICIENTNET_LITE1: _lite((1, 3, 3, 4, 4, 5, 1)),
    BackboneName.MOBILENET_V2: BackbonePlan(
        groups=(
            BlockGroup(1, 16, 1, 1, 3),
            BlockGroup(6, 24, 2, 2, 3),
            BlockGroup(6, 32, 3, 2, 3),
            BlockGroup(6, 64, 4, 2, 3),
            BlockGroup(6, 96, 3, 1, 3),
            BlockGroup(6, 160, 3, 2, 3),
            BlockGroup(6, 320, 1, 1, 3),
        ),
        norm_epsilon=1e-5,
        pads_after=False,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
}


class RgbInput(nn.Module):
    """uint8 (N, H, W, 3) RGB to normalised float32 (N, 3, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, plan: BackbonePlan) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(plan.mean).view(1, 3, 1, 1) * 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(plan.std).view(1, 3, 1, 1) * 255.0, persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the normalised batch."""
        pixels: Tensor = (rgb.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return pixels


@dataclass(frozen=True, slots=True)
class ConvolutionShape:
    """A convolution without bias, padded so that a stride s divides even sizes by s."""

    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1


def _convolution(shape: ConvolutionShape, plan: BackbonePlan) -> list[nn.Module]:
    half = shape.kernel // 2
    after = plan.pads_after and shape.stride > 1
    conv = nn.Conv2d(
        shape.inputs,
        shape.outputs,
        shape.kernel,
        stride=shape.stride,
        padding=0 if after else half,
        groups=shape.groups,
        bias=False,
    )
    norm = nn.BatchNorm2d(shape.outputs, eps=plan.norm_epsilon)
    return [nn.ZeroPad2d((half - 1, half, half - 1, half)), conv, norm] if after else [conv, norm]


def convolution_block(shape: ConvolutionShape, plan: BackbonePlan) -> nn.Sequential:
    """Return convolution, batch norm, ReLU6."""
    return nn.Sequential(*_convolution(shape, plan), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a residual connection if the shape stays the same."""

    def __init__(self, inputs: int, group: BlockGroup, stride: int, plan: BackbonePlan) -> None:
        super().__init__()
        hidden = inputs * group.expansion
        layers: list[nn.Module] = []
        if group.expansion != 1:
            layers += [*_convolution(ConvolutionShape(inputs, hidden), plan), nn.ReLU6(inplace=True)]
        depthwise = ConvolutionShape(hidden, hidden, group.kernel, stride, groups=hidden)
        layers += [*_convolution(depthwise, plan), nn.ReLU6(inplace=True)]
        layers += _convolution(ConvolutionShape(hidden, group.channels), plan)
        self.layers = nn.Sequential(*layers)
        self.stride = stride
        self.adds_input = stride == 1 and inputs == group.channels

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, channels, H / stride, W / stride)."""
        out: Tensor = self.layers(maps)
        return maps + out if self.adds_input else out


def _blocks(groups: tuple[BlockGroup, ...], plan: BackbonePlan) -> nn.ModuleList:
    blocks: list[nn.Module] = []
    inputs = STEM_CHANNELS
    for group in groups:
        for position in range(group.repeats):
            blocks.append(InvertedResidual(inputs, group, group.stride if position == 0 else 1, plan))
            inputs = group.channels
    return nn.ModuleList(blocks)


STEM_CHANNELS = 32


class FeatureExtractor(nn.Module):
    """The whole backbone: uint8 (N, H, W, 3) to (N, 1280, H / 32, W / 32). H and W are multiples of 32."""

    def __init__(self, name: BackboneName) -> None:
        super().__init__()
        plan = PLANS[name]
        self.input = RgbInput(plan)
        self.stem = convolution_block(ConvolutionShape(3, STEM_CHANNELS, 3, 2), plan)
        self.blocks = _blocks(plan.groups, plan)
        self.head = convolution_block(ConvolutionShape(plan.groups[-1].channels, FEATURES), plan)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the maps of the head."""
        maps: Tensor = self.stem(self.input(rgb))
        for block in self.blocks:
            maps = block(maps)
        features: Tensor = self.head(maps)
        return features


class Encoder(nn.Module):
    """The backbone down to stride 16: uint8 (N, H, W, 3) to maps at strides 2, 4, 8, 16."""

    def __init__(self, name: BackboneName) -> None:
        super().__init__()
        plan = PLANS[name]
        groups = plan.groups[:5]
        self.input = RgbInput(plan)
        self.stem = convolution_block(ConvolutionShape(3, STEM_CHANNELS, 3, 2), plan)
        self.blocks = _blocks(groups, plan)
        self.channels = tuple(groups[index].channels for index in (0, 1, 2, 4))
        """of the maps, from stride 2 to stride 16"""

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """Return four maps, the finest first."""
        maps: Tensor = self.stem(self.input(rgb))
        taps: list[Tensor] = []
        for block in self.blocks:
            if block.stride == 2:
                taps.append(maps)
            maps = block(maps)
        return (*taps, maps)


def load_pretrained(network: FeatureExtractor | Encoder, published: Mapping[str, Tensor]) -> int:
    """Copy a published state dict into the network, in order; return the number of tensors used.

    A truncated network uses the first tensors. Raises: ValueError, where a shape differs.
    """
    target = network.state_dict()
    source = [tensor for name, tensor in published.items() if not name.startswith(("_fc", "classifier"))]
    if len(source) < len(target):
        raise ValueError(f"the weights have {len(source)} tensors, the network {len(target)}")
    loaded: dict[str, Tensor] = {}
    for (name, tensor), weights in zip(target.items(), source, strict=False):
        if tensor.shape != weights.shape:
            raise ValueError(
                f"{name} has the shape {tuple(tensor.shape)}, the weights {tuple(weights.shape)}"
            )
        loaded[name] = weights
    network.load_state_dict(loaded)
    return len(loaded)
