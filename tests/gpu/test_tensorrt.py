"""TensorRT on a real GPU: right, and how fast. One command: `pytest -s -m gpu tests/gpu`."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from pipeline.runtime.bundle_loader import load_bundle
from pipeline.runtime.engine_choice import shapes_of
from pipeline.runtime.engines.onnxruntime_without_telemetry import ort
from pipeline.runtime.tensorrt.batch_shapes import PlanPrecision
from pipeline.runtime.tensorrt.libraries import what_is_missing
from pipeline.runtime.tensorrt.tensorrt_engine import PlanRequest, open_tensorrt

pytestmark = pytest.mark.gpu

MISSING = what_is_missing()
BUNDLE = load_bundle()
GRAPHS = [*BUNDLE.segmenter_graphs, *BUNDLE.classifier_graphs]
PARITY = {PlanPrecision.FP32: 2e-3, PlanPrecision.FP16: 0.03, PlanPrecision.INT8: 0.25}
"""the largest difference in probability from ONNX Runtime. fp32 computes in TF32 where a GPU has it."""
MEASURED_S = 3.0
BATCHES_AT_ONCE = 4
TILE_PX = 512


@pytest.fixture(scope="module", autouse=True)
def _gpu():
    if MISSING is not None:
        pytest.skip(MISSING)


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    return tmp_path_factory.mktemp("plans")


def pictures(graph, count):
    """Blots of stain on light ground: smooth, as pictures are."""
    side = graph.fixed_px.width if graph.fixed_px else TILE_PX
    coarse = np.random.default_rng(0).integers(60, 240, (count, side // 16, side // 16, 3))
    return np.kron(coarse, np.ones((1, 16, 16, 1))).astype(np.uint8)


def opened(graph, precision, plans):
    calibration = [pictures(graph, 4)] if precision is PlanPrecision.INT8 else ()
    return open_tensorrt(graph.path, PlanRequest(shapes_of(graph), plans, precision, calibration))


@pytest.mark.parametrize("precision", PlanPrecision)
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.path.stem)
def test_a_plan_answers_as_onnx_runtime_does(graph, precision, plans):
    batch = pictures(graph, 5)
    session = ort.InferenceSession(str(graph.path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"rgb": batch})
    with opened(graph, precision, plans) as engine:
        answers = [engine.run(batch) for _ in range(6)]  # as it is, captured, launched: on both lanes
    worst = max(float(np.abs(answer - expected).max()) for answer in answers)
    agree = np.mean([(answer.argmax(1) == expected.argmax(1)).mean() for answer in answers])
    print(f"\n{graph.path.stem} {precision}: differs by {worst:.5f} at most, classes agree {agree:.2%}")
    assert worst <= PARITY[precision]
    assert agree >= 0.98


@pytest.mark.parametrize("precision", PlanPrecision)
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.path.stem)
def test_how_fast_a_plan_is(graph, precision, plans):
    optimum = shapes_of(graph).optimum.count
    batch = pictures(graph, optimum * BATCHES_AT_ONCE)
    with opened(graph, precision, plans) as engine:
        for _ in range(4):
            engine.run(batch)
        with utilisation() as shares:
            rate = images_per_s(engine, batch)
    busy = f"{statistics.median(shares):.0f} %" if shares else "unknown"
    print(f"\n{graph.path.stem} {precision}: {rate:,.0f} images/s of {batch.shape[1:3]}, GPU busy {busy}")
    assert rate > 0


def images_per_s(engine, batch):
    """Two threads ask, as two scans in flight do."""
    done = []

    def ask():
        end = time.monotonic() + MEASURED_S
        while time.monotonic() < end:
            engine.run(batch)
            done.append(len(batch))

    started = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - started)


@contextmanager
def utilisation() -> Iterator[list[int]]:
    """Yield a list that is filled, at the end, with what nvidia-smi saw, in per cent."""
    shares: list[int] = []
    if shutil.which("nvidia-smi") is None:
        yield shares
        return
    watching = subprocess.Popen(
        ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield shares
    finally:
        watching.terminate()
        shares.extend(int(line) for line in watching.communicate()[0].split() if line.isdigit())
