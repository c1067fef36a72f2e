"""The paper's networks: shapes, gradients, sizes that are refused, ONNX parity, and what each is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from pipeline.networks.cenet import (  # noqa: E402
    POOLS,
    CENet,
    DenseAtrousConvolution,
    ResidualMultiKernelPooling,
    ResNet34Encoder,
    load_pretrained_resnet34,
)
from pipeline.networks.paper import network_1, network_2  # noqa: E402
from pipeline.networks.unet import UNet  # noqa: E402
from pipeline.training.export.onnx_export import PARITY, ExportShape, export_onnx  # noqa: E402


@dataclass(frozen=True)
class Case:
    build: Callable[[], torch.nn.Module]
    pixels: tuple[int, int]
    logits: tuple[int, ...]
    export: ExportShape
    temperature: float
    """spreads the untrained network's probabilities, which near 1 / n or 0 and 1 would hide a difference"""


CASES = {
    "unet": Case(lambda: UNet(width=4), (48, 32), (2, 3, 48, 32), ExportShape(32, 16), 1.0),
    "cenet-narrow": Case(lambda: CENet(width=8), (96, 64), (2, 3, 96, 64), ExportShape(64, 32), 0.05),
    "cenet": Case(CENet, (96, 64), (2, 3, 96, 64), ExportShape(64, 32), 0.05),
    "network-1": Case(lambda: network_1(15, 64), (64, 64), (2, 15), ExportShape(64, None), 0.05),
    "network-2": Case(lambda: network_2(2, 20), (20, 20), (2, 2), ExportShape(20, None), 100.0),
}
every_network = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.fixture(autouse=True)
def _torch_settings() -> Iterator[None]:
    """One seed, and one thread: on maps this small, threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.manual_seed(11)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _rgb(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)


def _parameters(build: Callable[[], torch.nn.Module]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


@every_network
def test_it_gives_logits_and_every_parameter_learns(case: Case) -> None:
    network = case.build()
    logits = network(_rgb(2, *case.pixels))
    assert logits.shape == case.logits
    assert logits.dtype == torch.float32
    logits.square().mean().backward()
    still = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    assert still == []


def _settle(network: torch.nn.Module) -> torch.nn.Module:
    """Let the next batch be the batch norms' statistics: with those they start with, deep maps fade."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    return network


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[pytest.mark.long] * name.startswith("cenet"))
        for name, case in CASES.items()
    ],
)
def test_its_onnx_file_gives_the_same_probabilities(case: Case, tmp_path: Path) -> None:
    network = _settle(case.build())
    with torch.inference_mode():
        network(_rgb(2, *case.pixels))
        probabilities = (network.eval()(_rgb(2, *case.pixels)) / case.temperature).softmax(dim=1)
    assert float(probabilities.std(dim=0).mean()) > 10 * PARITY
    assert export_onnx(network, case.export, case.temperature, tmp_path / "network.onnx") <= PARITY


@every_network
@pytest.mark.parametrize("shape", [(1, 40, 24, 3), (1, 3, 64, 64), (64, 64, 3)], ids=str)
def test_another_shape_is_refused(case: Case, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = case.build()
        pixels = torch.zeros(shape, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"multiples of|expected"):
        network(pixels)


def test_unet_is_the_published_one_at_width_64() -> None:
    """Figure 1 of the paper, one channel in and two classes out, adds up to 31,030,658."""
    colour, third_class = 2 * 64 * 9, 65
    assert _parameters(UNet) == 31_030_658 + colour + third_class


@pytest.mark.parametrize(("build", "parameters"), [(UNet, 7_760_163), (CENet, 7_259_557)])
def test_at_half_the_width_a_quarter_of_the_parameters_is_left(
    build: Callable[[int], torch.nn.Module], parameters: int
) -> None:
    assert _parameters(lambda: build(32)) == parameters
    assert _parameters(lambda: build(64)) == pytest.approx(4 * parameters, rel=0.01)


@pytest.mark.parametrize("cut", [slice(0, 4), slice(4, 8)], ids=["without skip", "without depth"])
def test_unet_joins_what_is_skipped_with_what_comes_from_below(cut: slice) -> None:
    network = UNet(width=4).eval()
    rgb = _rgb(1, 32, 32)
    with torch.inference_mode():
        whole = network(rgb)
        network.up[-1].mix[0].weight[:, cut] = 0.0
        left = network(rgb)
    assert not torch.allclose(whole, left)
    assert float(left.std(dim=(2, 3)).max()) > 0.0


def test_network_1_has_the_papers_number_of_parameters() -> None:
    assert _parameters(lambda: network_1(15)) == 2_164_655


def test_network_2_has_the_papers_number_of_parameters() -> None:
    """448 + 4,640 + 18,496 in the blocks, 64 · 25 · 25 · 128 + 128 and 128 · 2 + 2 behind."""
    assert _parameters(lambda: network_2(2)) == 5_143_970


def test_only_network_1_rescales() -> None:
    seen: list[float] = []
    for network in (network_1(15, 64), network_2(2, 64)):
        network.blocks[0].register_forward_pre_hook(lambda _, maps: seen.append(float(maps[0].max())))
        network(torch.full((1, 64, 64, 3), 255, dtype=torch.uint8))
    assert seen == pytest.approx([1.0, 255.0])


@pytest.mark.parametrize(
    ("build", "classes", "side_px"), [(network_1, 15, 63), (network_2, 2, 7), (network_2, 1, 64)]
)
def test_a_network_that_cannot_be_built_is_refused(
    build: Callable[[int, int], torch.nn.Module], classes: int, side_px: int
) -> None:
    with pytest.raises(ValueError, match=r"to nothing|two classes"):
        build(classes, side_px)


def test_cenet_encoder_has_torchvisions_names_and_shapes() -> None:
    """A few of the 216 tensors of torchvision's resnet34 without fc, by hand."""
    expected = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_mean": (64,),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer1.2.bn2.bias": (64,),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.running_var": (128,),
        "layer2.3.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn1.num_batches_tracked": (),
        "layer4.0.conv1.weight": (512, 256, 3, 3),
        "layer4.2.conv2.weight": (512, 512, 3, 3),
    }
    with torch.device("meta"):
        encoder = ResNet34Encoder()
    tensors = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    assert {name: tensors.get(name) for name in expected} == expected
    assert not [name for name in tensors if name.startswith("layer1.0.downsample")]
    assert len(tensors) == 216
    # torchvision states 21,797,672 for resnet34, of which 1000 · 513 are fc.
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 21_797_672 - 513_000


def test_published_weights_fill_the_encoder_and_others_are_refused() -> None:
    published = {
        name: torch.rand_like(tensor.float()) for name, tensor in ResNet34Encoder().state_dict().items()
    }
    encoder = ResNet34Encoder()
    assert load_pretrained_resnet34(encoder, {**published, "fc.weight": torch.zeros(1000, 512)}) == 216
    assert torch.equal(encoder.layer4[2].conv2.weight, published["layer4.2.conv2.weight"])
    published["layer3.9.conv1.weight"] = published.pop("layer3.1.conv1.weight")
    with pytest.raises(ValueError, match=r"layer3\.1\.conv1"):
        load_pretrained_resnet34(encoder, published)


def test_cenet_encoder_gives_maps_at_strides_4_8_16_32() -> None:
    shapes = [tuple(maps.shape) for maps in ResNet34Encoder()(_rgb(1, 64, 96))]
    assert shapes == [(1, 64, 16, 24), (1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)]


def test_the_four_cascades_look_3_7_9_and_19_cells_far() -> None:
    """The receptive fields that the paper states for DAC."""
    block = DenseAtrousConvolution(2)
    for parameter in block.parameters():
        torch.nn.init.constant_(parameter, 1.0 if parameter.ndim == 4 else 0.0)
    impulse = torch.zeros(1, 2, 31, 31)
    impulse[:, :, 15, 15] = 1.0
    reach = []
    for branch in block.branches(impulse):
        touched = branch[0, 0].any(dim=0).nonzero().flatten()
        reach.append(int(touched[-1] - touched[0]) + 1)
    assert reach == [3, 7, 9, 19]
    assert torch.equal(block(impulse), impulse + torch.stack(block.branches(impulse)).sum(dim=0))


def test_pooling_puts_a_channel_of_each_window_before_the_input() -> None:
    block = ResidualMultiKernelPooling(2)
    torch.nn.init.ones_(block.point.weight)
    torch.nn.init.zeros_(block.point.bias)
    maps = torch.zeros(1, 2, 30, 30)
    maps[:, :, 0, 0] = 1.0
    with torch.inference_mode():
        out = block(maps)
    assert out.shape == (1, 2 + len(POOLS), 30, 30)
    assert torch.equal(out[:, len(POOLS) :], maps)
    for channel, side in enumerate(POOLS):
        # Before the bilinear step the first window alone is 2: its corner stays so, the far end stays 0.
        assert float(out[0, channel, 0, 0]) == 2.0
        illumination_corrected = out[0, channel].any(dim=0).nonzero().flatten()
        assert int(illumination_corrected[-1]) + 1 == pytest.approx(1.5 * side, abs=0.5)
