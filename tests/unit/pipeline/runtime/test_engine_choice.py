"""Which engine is taken, that it says why, and that none is taken in the place of another."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.bundle.int8_figures import Precision
from pipeline.model.errors import DeploymentError
from pipeline.model.geometry import Size
from pipeline.runtime import engine_choice
from pipeline.runtime.bundle_loader import load_bundle
from pipeline.runtime.concurrency.machine import Parallelism
from pipeline.runtime.engine_choice import (
    EngineChoice,
    EngineResources,
    choose_engine,
    engine_text,
    precision_in_use,
    shapes_of,
)
from pipeline.runtime.engines.engine_port import EngineIdentity, EngineName, GraphFile
from pipeline.runtime.graph_networks import GraphClassifier, GraphSegmenter
from pipeline.runtime.tensorrt.libraries import what_is_missing
from tests.support import tiny_bundle
from worker.cli import main
from worker.processing.analyser import open_analyser
from worker.settings import LocalSettings, load, variable_of

MISSING = what_is_missing()
without_gpu = pytest.mark.skipif(MISSING is None, reason="a GPU and TensorRT are here")


@pytest.fixture
def resources(tmp_path: Path) -> EngineResources:
    return EngineResources(Parallelism(threads=1, streams=1, read_ahead=4), tmp_path / "plans")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_bundle.write_bundle(tmp_path)
    return tmp_path


@without_gpu
def test_auto_takes_openvino_without_a_gpu_and_says_what_is_missing(resources: EngineResources) -> None:
    choice = choose_engine(EngineName.AUTO, resources)
    assert choice.name is EngineName.OPENVINO
    assert MISSING is not None
    assert MISSING.rstrip(".") in choice.why


def test_auto_takes_tensorrt_where_nothing_is_missing(
    resources: EngineResources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "what_is_missing", lambda: None)
    monkeypatch.setattr(engine_choice, "find_tensorrt", lambda: sys)
    monkeypatch.setattr(engine_choice, "find_gpu", lambda: sys)
    choice = choose_engine(EngineName.AUTO, resources)
    assert (choice.name, choice.precision) == (EngineName.TENSORRT, Precision.FP32)


@without_gpu
def test_tensorrt_is_never_replaced(
    resources: EngineResources,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(DeploymentError) as caught:
        choose_engine(EngineName.TENSORRT, resources)
    assert caught.value.sentence == MISSING
    scan = folder / "scan.png"
    scan.touch()
    arguments = ["leukoflow", "analyse", str(scan), "--bundle", str(folder), "--engine", "tensorrt"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 78
    assert capsys.readouterr().err == f"leukoflow: {MISSING}\n"


def test_openvino_that_cannot_be_loaded_is_named(
    resources: EngineResources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.runtime.engines.openvino_engine", None)
    with pytest.raises(DeploymentError, match="OpenVINO cannot be loaded") as caught:
        choose_engine(EngineName.OPENVINO, resources)
    assert caught.value.code == "openvino_missing"


@pytest.mark.parametrize("name", [EngineName.OPENVINO, EngineName.ONNXRUNTIME])
def test_what_ran_and_why_is_told(name: EngineName, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable_of("engine"), name)
    with open_analyser(load(LocalSettings, bundle=folder)) as analyser:
        assert analyser.engine.startswith(f"{name} ")
        assert " CPU fp32 (requested" in analyser.engine


def test_each_precision_that_ran_is_told_once() -> None:
    choice = EngineChoice(EngineName.OPENVINO, "requested", Precision.INT8, lambda graph: _never(graph))
    ran = [EngineIdentity("openvino", "1", "CPU", precision) for precision in ("int8", "fp32", "int8")]
    assert engine_text(choice, ran) == "openvino 1 CPU int8 + openvino 1 CPU fp32 (requested)"


def _never(graph: GraphFile) -> None:
    raise AssertionError(graph)


def test_bytes_run_where_the_gate_let_them_and_the_runs_key_tells(
    folder: Path, resources: EngineResources
) -> None:
    """The light segmenter has an int8 file, the first classifier was refused one."""
    manifest = tiny_bundle.write_bundle(folder)
    light = tiny_bundle.write_int8(folder).segmenter.members[0]
    whole = load_bundle(folder)
    choice = choose_engine(EngineName.OPENVINO, replace(resources, supports_int8=True))
    quick = replace(whole, precision=choice.precision)
    with (
        GraphSegmenter(quick, choice.opener) as segmenter,
        GraphClassifier(quick, choice.opener) as classifier,
    ):
        assert [one.precision for one in segmenter.identities] == ["int8"]
        assert {one.precision for one in classifier.identities} == {"fp32"}
    assert [graph.path.name for graph in whole.segmenter_graphs] == [light.file]
    assert whole.digest == manifest.digest_of(whole.profile)
    assert quick.digest != whole.digest
    assert precision_in_use(EngineName.OPENVINO, supports_int8=True) is quick.precision
    (folder / "light.int8.onnx").write_bytes(b"another")
    with pytest.raises(DeploymentError) as caught:
        load_bundle(folder)
    assert caught.value.code == "bundle_digest"


def test_a_processor_that_would_overflow_computes_in_floats(resources: EngineResources) -> None:
    exact = choose_engine(EngineName.OPENVINO, replace(resources, supports_int8=True))
    assert (exact.precision, exact.why) == (Precision.INT8, "requested")
    clipped = choose_engine(EngineName.OPENVINO, replace(resources, supports_int8=False))
    assert clipped.precision is Precision.FP32
    assert "FP32" in clipped.why


def test_a_plan_takes_what_the_batcher_gives(tmp_path: Path) -> None:
    crops = shapes_of(GraphFile(tmp_path, Precision.FP32, Size(128, 128), 1))
    assert crops.accepts((1, 128, 128, 3))
    assert crops.accepts((64, 128, 128, 3))
    tiles = shapes_of(GraphFile(tmp_path, Precision.FP32, None, 16))
    assert all(tiles.accepts((count, side, 1024, 3)) for count in (1, 8) for side in (16, 1024))
