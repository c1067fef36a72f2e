"""Segmenters by recipe: what is built, its step, where its weights begin, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from pipeline.model.errors import UsageError  # noqa: E402
from pipeline.model.spec import PipelineSpec  # noqa: E402
from pipeline.networks.backbones import BackboneName  # noqa: E402
from pipeline.networks.cenet import CENet, ResNet34Encoder  # noqa: E402
from pipeline.networks.unet import UNet  # noqa: E402
from pipeline.training.recipe.architectures import (  # noqa: E402
    CENetPlan,
    LightUNetPlan,
    UNetPlan,
)
from pipeline.training.recipe.recipes import SegmenterRecipe, parse_recipe, read_recipe  # noqa: E402


@pytest.mark.parametrize(
    ("name", "plan", "stride_px"),
    [
        ("light-unet", LightUNetPlan(BackboneName.EFFICIENTNET_LITE0), 16),
        ("unet", UNetPlan(16), 16),
        ("cenet", CENetPlan(32, None), 32),
    ],
)
def test_the_shipped_recipes_name_their_networks(name: str, plan: object, stride_px: int) -> None:
    recipe = read_recipe(name)
    assert isinstance(recipe, SegmenterRecipe)
    assert recipe.network == plan
    assert recipe.network.stride_px == stride_px
    assert recipe.input.mpp_um == PipelineSpec().working_mpp_um
    assert recipe.input.side_px % stride_px == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('architecture = "cenet"', 'architecture = "vnet"'),
        ("width = 32", ""),
        ("width = 32", "width = 30"),
        ("width = 32", "width = 0"),
        ("width = 32", 'width = 32\nencoder = "mobilenet-v2"'),
        ("width = 32", 'width = 32\nencoder_weights = "resnet34.pth"'),
        ('architecture = "cenet"', 'architecture = "unet"\nencoder_weights = "resnet34.pth"'),
    ],
)
def test_what_fits_no_architecture_is_a_sentence(old: str, new: str) -> None:
    text = read_recipe("cenet").text
    assert old in text
    with pytest.raises(UsageError):
        parse_recipe(text.replace(old, new, 1))


@pytest.mark.parametrize("plan", [UNetPlan(4), CENetPlan(4, None)])
def test_what_is_not_pretrained_is_built_as_it_begins(plan: UNetPlan | CENetPlan, tmp_path: Path) -> None:
    torch.manual_seed(5)
    built = plan.build()
    torch.manual_seed(5)
    begun = plan.initial_weights(tmp_path)
    assert isinstance(begun.network, UNet | CENet)
    assert list(begun.pretrained.parameters()) == []
    pairs = zip(built.state_dict().values(), begun.network.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("file", ["resnet34.pth", "resnet34.safetensors"])
def test_cenet_begins_from_a_resnet34_of_the_users(file: str, tmp_path: Path) -> None:
    published = {name: tensor + 1 for name, tensor in ResNet34Encoder().state_dict().items()}
    weights = {**published, "fc.weight": torch.zeros(1000, 512)}
    if file.endswith("pth"):
        torch.save(weights, tmp_path / file)
    else:
        save_file(weights, tmp_path / file)
    plan = CENetPlan(64, file)
    begun = plan.initial_weights(tmp_path)
    assert begun.pretrained.state_dict().keys() == published.keys()
    assert all(torch.equal(tensor, published[name]) for name, tensor in begun.pretrained.state_dict().items())
    owned = {id(parameter) for parameter in begun.network.parameters()}
    assert all(id(parameter) in owned for parameter in begun.pretrained.parameters())


def test_weights_that_are_missing_broken_or_of_another_network_are_a_sentence(tmp_path: Path) -> None:
    plan = CENetPlan(64, "resnet34.pth")
    with pytest.raises(UsageError, match="cannot be read"):
        plan.initial_weights(tmp_path)
    (tmp_path / "resnet34.pth").write_bytes(b"not weights")
    with pytest.raises(UsageError, match="no file of weights"):
        plan.initial_weights(tmp_path)
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "resnet34.pth")
    with pytest.raises(UsageError, match="resnet34"):
        plan.initial_weights(tmp_path)
