"""ONNX files that equal their networks, on networks small enough to export in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402

from pipeline.model.errors import DeploymentError  # noqa: E402
from pipeline.networks.cenet import CENet  # noqa: E402
from pipeline.networks.unet import UNet  # noqa: E402
from pipeline.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine  # noqa: E402
from pipeline.runtime.engines.openvino_engine import OpenVinoEngine, StreamCounts  # noqa: E402
from pipeline.training.evaluate.temperature import TEMPERATURES, fit_temperature  # noqa: E402
from pipeline.training.export.onnx_export import (  # noqa: E402
    OPSET,
    PARITY,
    PARITY_HALF,
    ExportForm,
    ExportShape,
    Probabilities,
    check_parity,
    export_onnx,
)
from pipeline.training.export.weight_storage import Storage  # noqa: E402


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
    out = OnnxRuntimeEngine(exported[1], 1).run(batch)
    assert out.shape == (5, 3, 24, 40)
    assert out.dtype == np.float32
    assert np.allclose(out.sum(axis=1), 1.0, atol=1e-5)


def test_the_file_stands_alone_and_tells_nothing_of_this_machine(exported: tuple[_TinyUNet, Path]) -> None:
    file = exported[1]
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert str(Path(__file__).resolve().parents[5]).encode() not in file.read_bytes()
    model = onnx.load(file)
    assert {entry.version for entry in model.opset_import if entry.domain == ""} == {OPSET}
    assert [value.name for value in model.graph.input] == ["rgb"]
    assert [value.name for value in model.graph.output] == ["probabilities"]


class _TinyClassifier(torch.nn.Module):
    """Gives another answer to a mirrored or turned picture."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(8 * 8 * 3, 5)

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return self.head(rgb.flatten(1).float() / 32)


@pytest.mark.parametrize("views", [2, 4])
def test_views_are_averaged_inside_the_file(views: int, tmp_path: Path) -> None:
    torch.manual_seed(2)
    network, temperature = _TinyClassifier().eval(), 1.5
    file = tmp_path / "views.onnx"
    assert export_onnx(network, ExportShape(8, None), temperature, file, ExportForm(views=views)) <= PARITY
    rgb = torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8)
    seen = [rgb, rgb.flip(2), torch.rot90(rgb, 2, (1, 2)), torch.rot90(rgb.flip(2), 2, (1, 2))][:views]
    with torch.inference_mode():
        shares = [(network(view) / temperature).softmax(dim=1) for view in seen]
    expected = torch.stack(shares).mean(dim=0).numpy()
    given = OnnxRuntimeEngine(file, 1).run(rgb.numpy())
    assert np.abs(given - shares[0].numpy()).max() > 0.01
    assert np.allclose(given, expected, atol=PARITY)


@dataclass(frozen=True)
class Learnt:
    """A network that tells discs from ground, and its file with weights in float32."""

    network: torch.nn.Module
    shape: ExportShape
    file: Path


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((UNet, 16), id="unet"),
        pytest.param((CENet, 32), id="cenet", marks=pytest.mark.long),
    ],
)
def learnt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    build, step_px = request.param
    torch.manual_seed(3)
    made = Learnt(
        _learnt(build(8)), ExportShape(128, step_px), tmp_path_factory.mktemp("onnx") / "whole.onnx"
    )
    export_onnx(made.network, made.shape, 1.0, made.file)
    return made


def test_weights_stored_as_float16_give_the_same_tissues(learnt: Learnt, tmp_path: Path) -> None:
    whole, halved = learnt.file, tmp_path / "halved.onnx"
    form = ExportForm(Storage.FLOAT16)
    assert 0 < export_onnx(learnt.network, learnt.shape, 1.0, halved, form) <= PARITY_HALF
    assert halved.stat().st_size < 0.6 * whole.stat().st_size
    assert {value.type.tensor_type.elem_type for value in onnx.load(halved).graph.output} == {
        onnx.TensorProto.FLOAT
    }
    pictures = _two_tone(8)
    expected, given = (OnnxRuntimeEngine(file, 1).run(pictures) for file in (whole, halved))
    assert np.unique(expected.argmax(axis=1)).size > 1
    agreement = _dice(given.argmax(axis=1) == 2, expected.argmax(axis=1) == 2)
    assert (given.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.998
    assert agreement > 0.998


def test_small_pictures_have_the_same_tissues_on_every_engine(learnt: Learnt) -> None:
    network, file = learnt.network, learnt.file
    with OnnxRuntimeEngine(file, 1) as reference, OpenVinoEngine(file, StreamCounts(1, 1)) as engine:
        for height, width in ((32, 32), (64, 96), (160, 32), (192, 224)):
            pictures = np.random.default_rng(6).integers(0, 256, (1, height, width, 3), np.uint8)
            with torch.inference_mode():
                expected = network(torch.from_numpy(pictures)).softmax(dim=1).numpy()
            assert np.allclose(reference.run(pictures), expected, atol=PARITY)
            assert np.allclose(engine.run(pictures), expected, atol=PARITY)


def _two_tone(count: int) -> np.ndarray:
    """Discs on a light ground, with some noise."""
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[:64, :64]
    pictures = np.full((count, 64, 64, 3), 220, np.int64)
    for picture in pictures:
        y, x = rng.integers(20, 44, 2)
        picture[(rows - y) ** 2 + (columns - x) ** 2 < 200] = (110, 60, 150)
    return np.clip(pictures + rng.integers(-15, 16, pictures.shape), 0, 255).astype(np.uint8)


def _learnt(network: torch.nn.Module) -> torch.nn.Module:
    """Return the network after some steps of telling discs from ground."""
    pixels = torch.from_numpy(_two_tone(4))
    target = (pixels[..., 0] < 165).long() * 2
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    rare = torch.tensor([1.0, 1.0, 8.0])
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network.train()(pixels), target, rare).backward()
        optimizer.step()
    return network.eval()


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Dice coefficient."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_small_tensors_norms_and_what_float16_cannot_hold_stay_as_they_are(tmp_path: Path) -> None:
    network = _TinyClassifier()
    with torch.no_grad():
        network.head.weight[0, 0] = 1e6
    file = tmp_path / "large.onnx"
    export_onnx(network, ExportShape(8, None), 1.0, file, ExportForm(Storage.FLOAT16))
    kinds = {tensor.data_type for tensor in onnx.load(file).graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in kinds


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
