"""ONNX files that equal their networks, on networks small enough to export in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402

from pipeline.errors import DeploymentError  # noqa: E402
from pipeline.runtime.onnx_engine import OnnxGraph  # noqa: E402
from pipeline.training.bundle import TEMPERATURES, fit_temperature  # noqa: E402
from pipeline.training.export import (  # noqa: E402
    OPSET,
    ExportShape,
    Probabilities,
    check_parity,
    export_onnx,
)


class _TinyUNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = torch.nn.Conv2d(4, 3, 1)

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        maps = self.down(rgb.permute(0, 3, 1, 2).float() / 255)
        return torch.nn.functional.interpolate(self.head(maps), scale_factor=2.0, mode="bilinear")


SHAPE = ExportShape(side_px=16, multiple_px=2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[_TinyUNet, Path]:
    torch.manual_seed(0)
    network, file = _TinyUNet(), tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    assert export_onnx(network, SHAPE, 1.0, file) <= 1e-4
    return network, file


def test_the_file_takes_bytes_of_any_size_and_gives_probabilities(exported: tuple[_TinyUNet, Path]) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (5, 24, 40, 3), dtype=np.uint8)
    out = OnnxGraph(exported[1], 1).run(batch)
    assert out.shape == (5, 3, 24, 40)
    assert out.dtype == np.float32
    assert np.allclose(out.sum(axis=1), 1.0, atol=1e-5)


def test_the_file_stands_alone_and_tells_nothing_of_this_machine(exported: tuple[_TinyUNet, Path]) -> None:
    file = exported[1]
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert str(Path(__file__).resolve().parents[4]).encode() not in file.read_bytes()
    model = onnx.load(file)
    assert {entry.version for entry in model.opset_import if entry.domain == ""} == {OPSET}
    assert [value.name for value in model.graph.input] == ["rgb"]
    assert [value.name for value in model.graph.output] == ["probabilities"]


def test_a_file_of_other_weights_is_refused(exported: tuple[_TinyUNet, Path]) -> None:
    torch.manual_seed(1)
    with pytest.raises(DeploymentError, match="differs"):
        check_parity(Probabilities(_TinyUNet(), 1.0).eval(), SHAPE, exported[1])


def test_temperature_softens_what_is_too_sure_and_leaves_alone_what_is_not() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(4000, 3)).astype(np.float32)
    drawn = np.array([rng.choice(3, p=np.exp(row) / np.exp(row).sum()) for row in logits])
    allowed = np.eye(3, dtype=bool)[drawn]
    assert fit_temperature([logits], allowed) <= 1.06
    assert fit_temperature([2 * logits], allowed) == pytest.approx(2.0, abs=0.15)
    assert fit_temperature([logits / 3], allowed) == min(TEMPERATURES)
