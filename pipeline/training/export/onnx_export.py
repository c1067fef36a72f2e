"""Networks as ONNX files that take bytes and give probabilities, checked against torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from pipeline.bundle.manifest import INPUT_NAME, OUTPUT_NAME
from pipeline.model.domain import Rgb
from pipeline.model.errors import DeploymentError
from pipeline.runtime.concurrency.machine import available_cores
from pipeline.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from pipeline.training.export.weight_storage import Storage, clean, halve

OPSET = 20
PARITY = 1e-4
"""the largest difference in probability between torch and ONNX Runtime that is let pass"""
PARITY_HALF = 0.02
"""the same where weights are stored as float16: what rounding each to 11 bits may change"""
VIEWS = (1, 2, 4)
_EXAMPLE = 2
_SEED = 7

Dimensions: TypeAlias = "Mapping[int, object]"


@dataclass(frozen=True, slots=True)
class ExportForm:
    """How a graph is made of a network.

    `views` are of a picture whose classes are averaged: 1 is the picture; 2, its mirror image too; 4, both
    turned by 180° as well.
    """

    storage: Storage = Storage.FLOAT32
    views: int = 1


PLAIN = ExportForm()


class Probabilities(nn.Module):
    """A network with the softmax at its end, sharpened or softened by a temperature, averaged over views.

    With more than one view the network gives one vector a picture.
    """

    def __init__(self, network: nn.Module, temperature: float, views: int = 1) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature
        self.views = views

    def forward(self, rgb: Tensor) -> Tensor:
        """Return float32 probabilities over axis 1."""
        if self.views == 1:
            return self._shares(rgb)
        # Rows are axis 1, columns axis 2: turned by 180° is mirrored in both.
        seen = (rgb, rgb.flip(2), rgb.flip(1, 2), rgb.flip(1))[: self.views]
        shares = self._shares(torch.cat(seen))
        return shares.reshape(self.views, rgb.shape[0], shares.shape[1]).mean(dim=0)

    def _shares(self, rgb: Tensor) -> Tensor:
        return torch.softmax(self.network(rgb) / self.temperature, dim=1)


@dataclass(frozen=True, slots=True)
class ExportShape:
    """What the graph takes: squares of `side_px` as an example; `multiple_px` where any size will do."""

    side_px: int
    multiple_px: int | None


def export_onnx(
    network: nn.Module, shape: ExportShape, temperature: float, target: Path, form: ExportForm = PLAIN
) -> float:
    """Write one self-contained ONNX file; return its largest difference from torch.

    It is at most `PARITY`, and at most `PARITY_HALF` where weights are stored as float16. Raises:
    DeploymentError, where the file does not give what the network gives.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    whole = Probabilities(network, temperature, form.views).eval()
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
    _rewrite(target, clean)
    worst = check_parity(whole, shape, target)
    if form.storage is Storage.FLOAT32:
        return worst
    _rewrite(target, halve)
    return check_parity(whole, shape, target, PARITY_HALF)


def _rewrite(file: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(file)
    change(model)
    onnx.save(model, file)


def _dimensions(shape: ExportShape) -> Dimensions:
    dynamic: dict[int, object] = {0: torch.export.Dim("batch", min=1, max=4096)}
    if shape.multiple_px is not None:
        dynamic[1] = shape.multiple_px * torch.export.Dim("rows", min=1, max=1024)
        dynamic[2] = shape.multiple_px * torch.export.Dim("columns", min=1, max=1024)
    return dynamic


def check_parity(whole: nn.Module, shape: ExportShape, file: Path, allowed: float = PARITY) -> float:
    """Return the largest difference between torch and ONNX Runtime over batches of other sizes.

    Raises: DeploymentError, where it is more than `allowed`.
    """
    graph = OnnxRuntimeEngine(file, available_cores())
    rng = np.random.default_rng(_SEED)
    worst = 0.0
    for count, extra in ((1, 0), (3, 1)):
        height = shape.side_px + extra * (shape.multiple_px or 0)
        batch: Rgb = rng.integers(0, 256, (count, height, shape.side_px, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = whole(torch.from_numpy(batch)).numpy()
        worst = max(worst, float(np.abs(expected - graph.run(batch)).max()))
    if not worst <= allowed:
        raise DeploymentError(f"{file.name} differs from its network by {worst:.2g}.", code="export_parity")
    return worst
