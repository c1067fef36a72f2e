"""Networks as ONNX files that take bytes and give probabilities, checked against torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from pipeline.domain import Rgb
from pipeline.errors import DeploymentError
from pipeline.manifest import INPUT_NAME, OUTPUT_NAME
from pipeline.runtime.onnx_engine import OnnxGraph, available_threads

OPSET = 20
PARITY = 1e-4
"""the largest difference in probability between torch and ONNX Runtime that is let pass"""
_EXAMPLE = 2
_SEED = 7

Dimensions: TypeAlias = "Mapping[int, object]"


class Probabilities(nn.Module):
    """A network with the softmax at its end, sharpened or softened by a temperature."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, rgb: Tensor) -> Tensor:
        """Return float32 probabilities over axis 1."""
        return torch.softmax(self.network(rgb) / self.temperature, dim=1)


@dataclass(frozen=True, slots=True)
class ExportShape:
    """What the graph takes: squares of `side_px` as an example; `multiple_px` where any size will do."""

    side_px: int
    multiple_px: int | None


def export_onnx(network: nn.Module, shape: ExportShape, temperature: float, target: Path) -> float:
    """Write one self-contained ONNX file; return its largest difference from torch, at most `PARITY`.

    Raises: DeploymentError, where the file does not give what the network gives.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    whole = Probabilities(network, temperature).eval()
    example = torch.zeros((_EXAMPLE, shape.side_px, shape.side_px, 3), dtype=torch.uint8)
    torch.onnx.export(
        whole,
        (example,),
        target,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        dynamic_shapes=({**_dimensions(shape)},),
        verbose=False,
    )
    _strip(target)
    return check_parity(whole, shape, target)


def _strip(file: Path) -> None:
    """Forget where the exporter ran: its notes hold paths of this machine."""
    model = onnx.load(file)
    for noted in (model, model.graph, *model.graph.node, *model.graph.initializer):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.ClearField("metadata_props")
    onnx.save(model, file)


def _dimensions(shape: ExportShape) -> Dimensions:
    dynamic: dict[int, object] = {0: torch.export.Dim("batch", min=1, max=4096)}
    if shape.multiple_px is not None:
        dynamic[1] = shape.multiple_px * torch.export.Dim("rows", min=1, max=1024)
        dynamic[2] = shape.multiple_px * torch.export.Dim("columns", min=1, max=1024)
    return dynamic


def check_parity(whole: nn.Module, shape: ExportShape, file: Path) -> float:
    """Return the largest difference between torch and ONNX Runtime over batches of other sizes.

    Raises: DeploymentError, where it is above `PARITY`.
    """
    graph = OnnxGraph(file, available_threads())
    rng = np.random.default_rng(_SEED)
    worst = 0.0
    for count, extra in ((1, 0), (3, 1)):
        height = shape.side_px + extra * (shape.multiple_px or 0)
        batch: Rgb = rng.integers(0, 256, (count, height, shape.side_px, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = whole(torch.from_numpy(batch)).numpy()
        worst = max(worst, float(np.abs(expected - graph.run(batch)).max()))
    if worst > PARITY:
        raise DeploymentError(f"{file.name} differs from its network by {worst:.2g}.", code="export-parity")
    return worst
