"""One contract for what runs a graph: ONNX Runtime, OpenVINO with floats and with bytes, TensorRT's loop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bundle.int8_figures import Precision
from pipeline.model.domain import Rgb
from pipeline.model.errors import DeploymentError
from pipeline.model.geometry import Size
from pipeline.runtime.engines.engine_port import BatchRefused, Engine, GraphFile, Opener, TensorSpec
from pipeline.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine, onnx_runtime
from pipeline.runtime.engines.openvino_engine import StreamCounts, openvino
from pipeline.runtime.tensorrt.batch_shapes import BatchShape, ShapeProfile, squares
from tests.support import tiny_bundle, tiny_networks
from tests.support.fake_engine import open_on_fake_device

quantising = pytest.importorskip("pipeline.training.export.static_quantisation")

CROP_PX, CLASSES, WIDEST_PX = 24, 13, 64
SAME = 1e-5
"""the largest difference between floats on two engines, or beside other neighbours"""
BYTES_OFF = 0.06
"""the largest difference between bytes and floats on these networks of drawn weights"""


@dataclass(frozen=True)
class Case:
    """An engine, and what of a graph it is given."""

    name: str
    opener: Opener
    precision: Precision = Precision.FP32

    @property
    def tolerance(self) -> float:
        return BYTES_OFF if self.precision is Precision.INT8 else SAME


def _on_fake_device(graph: GraphFile) -> Engine:
    tile = Size(WIDEST_PX, WIDEST_PX)
    least = Size(tiny_networks.STRIDE_PX, tiny_networks.STRIDE_PX)
    tiles = ShapeProfile(BatchShape(1, least), BatchShape(2, tile), BatchShape(4, tile))
    return open_on_fake_device(graph.path, squares(CROP_PX, 4, 4) if graph.fixed_px else tiles)


READERS = (
    Case("onnxruntime", onnx_runtime(threads=1)),
    Case("openvino", openvino(StreamCounts(threads=2, streams=2))),
    Case("openvino", openvino(StreamCounts(threads=1, streams=1)), Precision.INT8),
)
"""engines that read ONNX files themselves"""
CASES = (*READERS, Case("tensorrt", _on_fake_device))


def _named(case: Case) -> str:
    return f"{case.name}-{case.precision}"


@dataclass(frozen=True)
class Graphs:
    """The same networks for every engine, with floats and with bytes."""

    folder: Path

    def segmenter(self, precision: Precision) -> GraphFile:
        return GraphFile(self.folder / f"segmenter.{precision}", precision, None, tiny_networks.STRIDE_PX)

    def classifier(self, precision: Precision) -> GraphFile:
        return GraphFile(self.folder / f"classifier.{precision}", precision, Size(CROP_PX, CROP_PX), 1)


def _pictures(seed: int, count: int, height: int, width: int) -> Rgb:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    made = Graphs(tmp_path_factory.mktemp("graphs"))
    tiny_networks.write_segmenter(made.segmenter(Precision.FP32).path)
    tiny_networks.write_classifier(made.classifier(Precision.FP32).path, CROP_PX, CLASSES)
    for graph in (made.segmenter, made.classifier):
        batches = [_pictures(seed, 4, CROP_PX, CROP_PX) for seed in range(6)]
        whole, bytes_ = (graph(precision).path for precision in Precision)
        quantising.quantise(whole, bytes_, batches, quantising.Calibration.MINMAX)
    return made


@pytest.fixture(scope="module", params=CASES, ids=_named)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def segmenter(case: Case, graphs: Graphs) -> Iterator[Engine]:
    with case.opener(graphs.segmenter(case.precision)) as engine:
        yield engine


@pytest.fixture(scope="module")
def classifier(case: Case, graphs: Graphs) -> Iterator[Engine]:
    with case.opener(graphs.classifier(case.precision)) as engine:
        yield engine


@pytest.fixture(scope="module")
def reference(graphs: Graphs) -> Iterator[Callable[[Rgb], np.ndarray]]:
    """The segmenter with floats, picture by picture."""
    with OnnxRuntimeEngine(graphs.segmenter(Precision.FP32).path, threads=1) as engine:
        yield lambda batch: np.concatenate([engine.run(batch[at : at + 1]) for at in range(len(batch))])


def test_input_and_output_have_names_types_and_sizes(segmenter: Engine, classifier: Engine) -> None:
    assert segmenter.input == TensorSpec("rgb", "uint8", (None, None, None, 3))
    assert segmenter.output == TensorSpec("probabilities", "float32", (None, 3, None, None))
    assert classifier.input == TensorSpec("rgb", "uint8", (None, CROP_PX, CROP_PX, 3))
    assert classifier.output == TensorSpec("probabilities", "float32", (None, CLASSES))


def test_an_engine_says_what_it_is(case: Case, segmenter: Engine) -> None:
    identity = segmenter.identity
    assert (identity.name, identity.precision) == (case.name, case.precision)
    assert identity.version
    assert identity.device
    assert str(identity).split()[0] == case.name


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(1, 9), rows=st.integers(1, 16), columns=st.integers(1, 32))
def test_any_number_of_pictures_of_any_size(
    case: Case,
    segmenter: Engine,
    reference: Callable[[Rgb], np.ndarray],
    seed: int,
    count: int,
    rows: int,
    columns: int,
) -> None:
    batch = _pictures(seed, count, rows * tiny_networks.STRIDE_PX, columns * tiny_networks.STRIDE_PX)
    before = batch.copy()
    answer = segmenter.run(batch)
    assert answer.dtype == np.float32
    assert answer.shape == (count, 3, *batch.shape[1:3])
    assert np.abs(answer - reference(batch)).max() <= case.tolerance
    assert np.array_equal(batch, before)


def test_the_same_batch_has_the_same_answer(segmenter: Engine) -> None:
    batch = _pictures(3, 5, 32, 48)
    first = segmenter.run(batch)
    segmenter.run(_pictures(4, 2, 64, 16))
    assert np.array_equal(segmenter.run(batch), first)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(2, 11))
def test_a_picture_is_answered_alone_as_among_others(classifier: Engine, seed: int, count: int) -> None:
    batch = _pictures(seed, count, CROP_PX, CROP_PX)
    together = classifier.run(batch)
    alone = np.concatenate([classifier.run(batch[at : at + 1]) for at in range(count)])
    assert np.abs(together - alone).max() <= SAME
    assert np.allclose(together.sum(axis=1), 1, atol=1e-4)


def test_a_view_is_as_good_as_a_copy(segmenter: Engine) -> None:
    view = _pictures(0, 3, 32, 32)[:, ::2, ::2, ::-1]
    assert np.array_equal(segmenter.run(view), segmenter.run(view.copy()))


def test_threads_get_their_own_answers(
    case: Case, segmenter: Engine, reference: Callable[[Rgb], np.ndarray]
) -> None:
    batches = [_pictures(seed, 1 + seed % 5, 16, 16 * (1 + seed % 3)) for seed in range(24)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(segmenter.run, batches))
    for batch, answer in zip(batches, answers, strict=True):
        assert answer.shape == (len(batch), 3, *batch.shape[1:3])
        assert np.abs(answer - reference(batch)).max() <= case.tolerance


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(np.zeros((1, CROP_PX, CROP_PX, 3), np.float32), id="floats"),
        pytest.param(np.zeros((CROP_PX, CROP_PX, 3), np.uint8), id="no batch"),
        pytest.param(np.zeros((1, CROP_PX, CROP_PX, 4), np.uint8), id="four channels"),
        pytest.param(np.zeros((1, CROP_PX, CROP_PX + 1, 3), np.uint8), id="another size"),
        pytest.param(np.zeros((0, CROP_PX, CROP_PX, 3), np.uint8), id="nothing"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_and_the_next_is_answered(
    classifier: Engine, batch: np.ndarray
) -> None:
    with pytest.raises(BatchRefused):
        classifier.run(batch)
    assert classifier.run(_pictures(0, 2, CROP_PX, CROP_PX)).shape == (2, CLASSES)


def test_a_closed_engine_answers_nothing(case: Case, graphs: Graphs) -> None:
    engine = case.opener(graphs.classifier(case.precision))
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.run(_pictures(0, 1, CROP_PX, CROP_PX))


@pytest.fixture(params=READERS, ids=_named)
def reader(request: pytest.FixtureRequest) -> Case:
    """TensorRT reads no ONNX at this point: its plans are made beforehand, see test_tensorrt_build.py."""
    return request.param


@pytest.mark.parametrize("cut", ["empty", "half", "no graph"])
def test_a_damaged_file_is_the_deployments_fault(
    reader: Case, graphs: Graphs, tmp_path: Path, cut: str
) -> None:
    whole = graphs.classifier(Precision.FP32).path.read_bytes()
    file = tmp_path / "damaged.onnx"
    file.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "no graph": b"not a graph"}[cut])
    with pytest.raises(DeploymentError) as caught:
        reader.opener(GraphFile(file, reader.precision, None, 1))
    assert caught.value.code == "bundle_graph"
    assert "damaged.onnx" in caught.value.sentence
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize("location", ["../outside", "{folder}/outside", "link", "missing"])
@pytest.mark.parametrize("reader", READERS, ids=_named)
def test_weights_outside_the_bundles_folder_are_not_read(
    reader: Case, location: str, graphs: Graphs, tmp_path: Path
) -> None:
    inside = tmp_path / "bundle"
    inside.mkdir()
    (tmp_path / "outside").write_bytes(graphs.segmenter(Precision.FP32).path.read_bytes())
    (inside / "link").symlink_to(tmp_path / "outside")
    model = onnx.load(graphs.segmenter(Precision.INT8).path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location.format(folder=tmp_path)
    graph = GraphFile(inside / "graph.onnx", reader.precision, None, tiny_networks.STRIDE_PX)
    graph.path.write_bytes(model.SerializeToString())
    with pytest.raises(DeploymentError) as caught:
        reader.opener(graph)
    assert caught.value.code == "bundle_graph"


def test_a_size_that_the_graph_cannot_join_is_refused(reader: Case, graphs: Graphs) -> None:
    with reader.opener(graphs.segmenter(reader.precision)) as engine:
        with pytest.raises(BatchRefused):
            engine.run(_pictures(0, 1, 15, 15))
        assert engine.run(_pictures(0, 1, 16, 16)).shape == (1, 3, 16, 16)


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from pipeline.model.errors import CapacityError
from pipeline.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from pipeline.runtime.engines.openvino_engine import StreamCounts, OpenVinoEngine

file = Path(sys.argv[2])
is_onnxruntime = sys.argv[1] == "onnxruntime"
engine = OnnxRuntimeEngine(file, 1) if is_onnxruntime else OpenVinoEngine(file, StreamCounts(1, 1))
large, small = np.zeros((1, 4096, 4096, 3), np.uint8), np.zeros((1, 64, 64, 3), np.uint8)
engine.run(small)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit_bytes = pages * resource.getpagesize() + 100 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
try:
    engine.run(large)
except CapacityError as error:
    print(error.code, engine.run(small).shape)
"""


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_batch_without_memory_is_a_capacity_error(name: str, graphs: Graphs) -> None:
    """In a process of its own, with 100 MB left for a batch that takes ten times that."""
    ended = _run_apart(SHORT_OF_MEMORY, name, str(graphs.segmenter(Precision.FP32).path))
    assert ended.stdout.strip() == "batch_too_large (1, 3, 64, 64)", ended.stderr[-800:]


SILENT = """
import os, sys

def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("talked:", event, arguments, flush=True)
        os._exit(3)

sys.addaudithook(hook)
from pathlib import Path
import numpy as np
from pipeline.runtime.engines.openvino_engine import StreamCounts, OpenVinoEngine

with OpenVinoEngine(Path(sys.argv[1]), StreamCounts(1, 1)) as engine:
    print(engine.run(np.zeros((1, 64, 64, 3), np.uint8)).shape)
"""


def test_openvino_tells_nobody_and_leaves_nothing_behind(graphs: Graphs, tmp_path: Path) -> None:
    """Its package depends on one for telemetry, which only its converters use."""
    environment = os.environ | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    ended = _run_apart(SILENT, str(graphs.segmenter(Precision.FP32).path), environment=environment)
    assert ended.stdout.strip() == "(1, 3, 64, 64)", ended.stdout + ended.stderr[-800:]
    assert list(tmp_path.iterdir()) == []


def _run_apart(
    program: str, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize("precision", list(Precision))
def test_answers_follow_the_picture(graphs: Graphs, precision: Precision) -> None:
    """The suite's networks are no constants: pictures' answers differ by more than bytes are off."""
    with OnnxRuntimeEngine(graphs.classifier(precision).path, threads=1) as engine:
        answers = engine.run(
            np.stack([np.full((CROP_PX, CROP_PX, 3), shade, np.uint8) for shade in (0, 90, 255)])
        )
    assert np.abs(answers[0] - answers[2]).max() > BYTES_OFF


def test_every_engine_of_the_port_is_here() -> None:
    assert {case.name for case in CASES} == {"onnxruntime", "openvino", "tensorrt"}
    assert tiny_bundle.CROP_PX < CROP_PX
