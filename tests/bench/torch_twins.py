"""The shipped networks as eager torch, channels last: what most people would run them with.

The weights are those of the ONNX files, where each batch norm is already part of its convolution: torch is
spared them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.geometry import Size
from pipeline.networks.classifiers import LeukocyteClassifier
from pipeline.runtime.bundle_loader import Bundle
from pipeline.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from pipeline.training.recipe.recipes import ClassifierRecipe, SegmenterRecipe, read_recipe

PRODUCTS = ("Conv", "ConvTranspose", "Gemm")
_PREFIX, _SUFFIX = "network.", ".weight"
SAME = 1e-3
"""in probability, between torch and ONNX Runtime"""

Net = Callable[[Tensor], Tensor]


class TorchSegmenter:
    """A `ports.Segmenter` that asks torch, one picture at a time, as a loop over tiles does."""

    def __init__(self, network: Net, stride_px: int) -> None:
        self._network = network
        self.stride_px = stride_px

    def segment(self, batch: Rgb) -> Probabilities:
        """Return float32 (N, 3, H, W)."""
        with torch.inference_mode():
            answers = [self._network(torch.from_numpy(tile[None])).numpy() for tile in batch]
        return np.concatenate(answers)


class TorchClassifier:
    """A `ports.Classifier` that asks torch, one network after the other."""

    def __init__(self, networks: Sequence[Net], crop_px: Size, crop_mpp_um: float) -> None:
        self._networks = networks
        self.crop_px = crop_px
        self.crop_mpp_um = crop_mpp_um

    def classify(self, batch: Rgb) -> Probabilities:
        """Return float32 (M, N, L)."""
        crops = torch.from_numpy(np.ascontiguousarray(batch))
        with torch.inference_mode():
            return np.stack([network(crops).numpy() for network in self._networks])


class Softened(nn.Module):
    """Logits divided by the temperature that the graph holds, as probabilities."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, rgb: Tensor) -> Tensor:
        """Return probabilities over axis 1."""
        return torch.softmax(self.network(rgb) / self.temperature, dim=1)


def torch_segmenter(bundle: Bundle) -> tuple[TorchSegmenter, nn.Module]:
    """Return the one segmenter of a bundle on torch, and its module; checked against its file."""
    (member,) = bundle.manifest.segmenters(bundle.profile)
    recipe = read_recipe(member.name)
    assert isinstance(recipe, SegmenterRecipe)
    side_px = 8 * member.stride_px
    network = twin(recipe.network.build(), bundle.file_of(member), side_px)
    return TorchSegmenter(network, member.stride_px), network


def torch_classifier(bundle: Bundle) -> tuple[TorchClassifier, list[nn.Module]]:
    """Return the ensemble of a bundle on torch, and its modules; checked against their files."""
    entry = bundle.manifest.classifier
    recipe = read_recipe("ensemble-leukocytes")
    assert isinstance(recipe, ClassifierRecipe)
    plans = {plan.name: plan for plan in recipe.members}
    networks: list[nn.Module] = []
    for member in entry.members:
        plan = plans[member.name]
        bare = LeukocyteClassifier(plan.backbone, recipe.dropout, plan.colours)
        networks.append(twin(bare, bundle.file_of(member), entry.crop_px))
    return TorchClassifier(networks, Size(entry.crop_px, entry.crop_px), entry.crop_mpp_um), networks


def twin(network: nn.Module, file: Path, side_px: int) -> nn.Module:
    """Return the network with the weights of an ONNX file, checked to answer as the file does."""
    graph = onnx.load(file).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in PRODUCTS:
            _take(network, node, held)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, nn.Identity())
    whole = Softened(network, _temperature(graph, held)).eval()
    laid_out: nn.Module = whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _require_same(laid_out, file, side_px)
    return laid_out


def _take(network: nn.Module, node: onnx.NodeProto, held: dict[str, np.ndarray]) -> None:
    module = network.get_submodule(node.input[1].removeprefix(_PREFIX).removesuffix(_SUFFIX))
    module.weight = nn.Parameter(torch.from_numpy(held[node.input[1]].copy()))
    if len(node.input) > 2:
        module.bias = nn.Parameter(torch.from_numpy(held[node.input[2]].copy()))


def _temperature(graph: onnx.GraphProto, held: dict[str, np.ndarray]) -> float:
    makers = {name: node for node in graph.node for name in node.output}
    last = makers[graph.output[0].name]
    before = makers[last.input[0]]
    return float(held[before.input[1]]) if before.op_type == "Div" else 1.0


def _require_same(network: nn.Module, file: Path, side_px: int) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (2, side_px, side_px, 3), np.uint8)
    with torch.inference_mode():
        ours = network(torch.from_numpy(pictures)).numpy()
    with OnnxRuntimeEngine(file, 1) as engine:
        worst = float(np.abs(ours - engine.run(pictures)).max())
    assert worst <= SAME, f"{file.name} on torch differs by {worst}"
