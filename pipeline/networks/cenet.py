"""CE-Net: a ResNet-34 encoder, a context extractor (DAC and RMP), a decoder of transposed convolutions.

Sources: Gu et al. 2019, IEEE TMI 38(10):2281, figures 2 to 4 (arXiv 1903.02740); He et al. 2016 (ResNet,
arXiv 1512.03385), table 1. As in the implementation of the authors, the branches of DAC share their kernels
by rate, and the pools of RMP share theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.networks.backbones import PLANS, BackboneName, RgbInput
from pipeline.networks.light_unet import CLASSES
from pipeline.networks.unet import require_multiple

STRIDE_PX = 32
WIDTH = 64
"""channels of the encoder's first stage; every further stage has twice as many"""
POOLS = (2, 3, 5, 6)
"""sides of RMP's pooling windows, in cells of the deepest map"""
_BLOCKS = (3, 4, 6, 3)
"""of ResNet-34's four stages"""


class _BasicBlock(nn.Module):
    """Two 3 × 3 convolutions added to their input. Members are named as torchvision names them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride == 2:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride); the stride is 2 where the channels change."""
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(maps)))))
        return functional.relu(out + self.downsample(maps))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        _BasicBlock(inputs, outputs), *(_BasicBlock(outputs, outputs) for _ in range(blocks - 1))
    )


class ResNet34Encoder(nn.Module):
    """uint8 (N, H, W, 3) RGB to maps of 64, 128, 256, 512 channels at strides 4, 8, 16, 32.

    The names of its tensors are those of torchvision's `resnet34`, without `fc`. `width` is the number of
    channels of the first stage, 64 as published.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        at4, at8, at16, at32 = (width << stage for stage in range(len(_BLOCKS)))
        # All torchvision networks use the mean and deviation of ImageNet.
        self.input = RgbInput(PLANS[BackboneName.MOBILENET_V2])
        self.conv1 = nn.Conv2d(3, at4, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(at4)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(at4, at4, _BLOCKS[0])
        self.layer2 = _stage(at4, at8, _BLOCKS[1])
        self.layer3 = _stage(at8, at16, _BLOCKS[2])
        self.layer4 = _stage(at16, at32, _BLOCKS[3])

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return four maps, the finest first."""
        at4 = self.layer1(self.maxpool(functional.relu(self.bn1(self.conv1(self.input(rgb))))))
        at8 = self.layer2(at4)
        at16 = self.layer3(at8)
        return at4, at8, at16, self.layer4(at16)


def load_pretrained_resnet34(encoder: ResNet34Encoder, published: Mapping[str, Tensor]) -> int:
    """Copy torchvision's `resnet34` state dict into the encoder; return the number of tensors used.

    The classifying layer (`fc`) is left out. Raises: ValueError, where a name or shape differs.
    """
    weights = {name: tensor for name, tensor in published.items() if not name.startswith("fc.")}
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights are not those of a ResNet-34: {error}") from error
    return len(weights)


class DenseAtrousConvolution(nn.Module):
    """DAC: (N, C, H, W) to the same shape. Four cascades with receptive fields of 3, 7, 9 and 19, added to
    the input.

    Their rates are 1; 3; 1, 3; and 1, 3, 5; all but the first end in a 1 × 1 convolution, all in a ReLU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rate1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.rate3 = nn.Conv2d(channels, channels, 3, padding=3, dilation=3)
        self.rate5 = nn.Conv2d(channels, channels, 3, padding=5, dilation=5)
        self.point = nn.Conv2d(channels, channels, 1)

    def branches(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four cascades, the nearest first, each (N, C, H, W)."""
        near = self.rate1(maps)
        far = self.rate3(near)
        ends = (near, self.point(self.rate3(maps)), self.point(far), self.point(self.rate5(far)))
        first, second, third, fourth = (functional.relu(end) for end in ends)
        return first, second, third, fourth

    def forward(self, maps: Tensor) -> Tensor:
        """Return the input with its context added."""
        return maps + torch.stack(self.branches(maps)).sum(dim=0)


class _PaddedMaxPool(nn.Module):
    """Max-pooling with windows of `side`; maps are zero-padded to the right and below, so that no window is
    cut.

    For non-negative maps this equals pooling with cut windows, which OpenVINO does not support for windows
    larger than the map.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self._side = side

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, C, ⌈H / side⌉, ⌈W / side⌉)."""
        filled = functional.pad(maps, (0, self._side - 1, 0, self._side - 1))
        return functional.max_pool2d(filled, self._side, self._side)


class ResidualMultiKernelPooling(nn.Module):
    """RMP: (N, C, H, W) to (N, 4 + C, H, W): a channel from each pool, then the input itself.

    Windows at the right and lower edge may be cut, so that maps smaller than a window are pooled too.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList(_PaddedMaxPool(side) for side in POOLS)
        self.point = nn.Conv2d(channels, 1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the pooled channels, grown bilinearly to H × W, before the input's."""
        size = maps.shape[2:]
        pooled = [
            functional.interpolate(self.point(pool(maps)), size=size, mode="bilinear", align_corners=False)
            for pool in self.pools
        ]
        return torch.cat((*pooled, maps), dim=1)


class _DecoderBlock(nn.Module):
    """1 × 1 to a quarter of the channels, transposed 3 × 3 to twice the size, 1 × 1 to the outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = inputs // 4
        grow = nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1, bias=False)
        layers: list[nn.Module] = []
        for layer, channels in (
            (nn.Conv2d(inputs, inner, 1, bias=False), inner),
            (grow, inner),
            (nn.Conv2d(inner, outputs, 1, bias=False), outputs),
        ):
            layers += [layer, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, outputs, 2 H, 2 W)."""
        grown: Tensor = self.layers(maps)
        return grown


class CENet(nn.Module):
    """uint8 (N, H, W, 3) RGB to logits float32 (N, 3, H, W). H and W are multiples of 32.

    `width` is that of the encoder, 64 in the paper; every map follows it. Raises: ValueError, from `forward`,
    for another size.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        at4, at8, at16, at32 = (width << stage for stage in range(len(_BLOCKS)))
        fine = width // 2
        self.encoder = ResNet34Encoder(width)
        self.atrous = DenseAtrousConvolution(at32)
        self.pooling = ResidualMultiKernelPooling(at32)
        self.up16 = _DecoderBlock(at32 + len(POOLS), at16)
        self.up8 = _DecoderBlock(at16, at8)
        self.up4 = _DecoderBlock(at8, at4)
        self.up2 = _DecoderBlock(at4, at4)
        self.head = nn.Sequential(
            nn.ConvTranspose2d(at4, fine, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(fine, fine, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(fine, CLASSES, 3, padding=1),
        )

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the logits of background, cytoplasm, nucleus."""
        require_multiple(rgb, STRIDE_PX)
        at4, at8, at16, at32 = self.encoder(rgb)
        maps = self.up16(self.pooling(self.atrous(at32))) + at16
        maps = self.up8(maps) + at8
        maps = self.up4(maps) + at4
        logits: Tensor = self.head(self.up2(maps))
        return logits


CONTEXT_SCALE = 256.0
"""a power of two, so that dividing by it loses no precision"""


@torch.no_grad()
def fit_float16(network: CENet) -> None:
    """Divide the deepest maps by `CONTEXT_SCALE`, without changing the output of the network.

    The sums of the cascades are not normalised: in a trained network they reach 10⁶, while float16 ends at
    65,504. The norms of the last stage divide its maps, biases follow, and the next norm reverts it.
    """
    for number, block in enumerate(network.encoder.layer4.children()):
        assert isinstance(block, _BasicBlock)
        _divide(block.bn2.weight, block.bn2.bias)
        if number == 0:
            _divide(*block.downsample.get_submodule("1").parameters())
        else:
            block.conv1.weight.mul_(CONTEXT_SCALE)
    for module in (network.atrous, network.pooling):
        _divide(*(tensor for name, tensor in module.named_parameters() if name.endswith("bias")))
    norm = network.up16.layers[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    _divide(norm.running_mean, norm.running_var, norm.running_var)


def _divide(*tensors: Tensor) -> None:
    for tensor in tensors:
        tensor.div_(CONTEXT_SCALE)
