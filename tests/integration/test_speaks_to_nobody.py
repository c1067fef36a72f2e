"""No library of ours speaks to anybody who was not configured, nor keeps an identifier of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.runtime.engines.engine_port import EngineName
from pipeline.synth.plan import field_specs
from pipeline.synth.smear import draw_smear
from tests.support.connection_watch import ConnectionWatch, connection_watch
from worker.cli.synth import write_field

EXPORT = """
import sys
from pathlib import Path
from torch import Tensor, nn
from pipeline.training.export.onnx_export import ExportShape, export_onnx
class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    def forward(self, rgb: Tensor) -> Tensor:
        return self.layers(rgb.permute(0, 3, 1, 2).float() / 255)
export_onnx(Network(), ExportShape(16, None), 1.0, Path(sys.argv[1]))
"""


@pytest.fixture
def watch(tmp_path: Path) -> ConnectionWatch:
    return connection_watch(tmp_path)


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "field.jpg"
    write_field(path, draw_smear(next(iter(field_specs(seed=3, count=1)))))
    return path


@pytest.mark.parametrize("engine", [EngineName.ONNXRUNTIME, EngineName.OPENVINO])
def test_an_analysis_speaks_to_nobody(watch: ConnectionWatch, field: Path, engine: EngineName) -> None:
    answer = watch.run("-m", "worker", "analyse", str(field), LEUKOFLOW_ENGINE=engine.value)
    assert answer.returncode == 0, answer.stderr
    assert watch.called() == []
    assert watch.kept() == []


def test_what_quantises_networks_is_imported_silently(watch: ConnectionWatch) -> None:
    answer = watch.run("-c", "import pipeline.training.export.static_quantisation")
    assert answer.returncode == 0, answer.stderr
    assert watch.called() == []
    assert watch.kept() == []


def test_exporting_a_network_speaks_to_nobody(watch: ConnectionWatch, tmp_path: Path) -> None:
    answer = watch.run("-c", EXPORT, str(tmp_path / "network.onnx"))
    assert answer.returncode == 0, answer.stderr
    assert watch.called() == []
    assert watch.kept() == []


@pytest.mark.parametrize(
    ("program", "seen"),
    [
        ("socket.getaddrinfo('telemetry.example', 443)", "getaddrinfo telemetry.example"),
        ("socket.create_connection(('192.0.2.1', 443))", "getaddrinfo 192.0.2.1"),
        ("socket.socket().connect(('192.0.2.1', 443))", "connect 192.0.2.1"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))", "sendto 192.0.2.1"),
    ],
)
def test_the_watch_sees_who_is_called(watch: ConnectionWatch, program: str, seen: str) -> None:
    assert watch.run("-c", f"import socket; {program}").returncode == 1
    assert watch.called() == [seen]
