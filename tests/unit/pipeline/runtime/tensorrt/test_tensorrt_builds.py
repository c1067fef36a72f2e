"""Plans that TensorRT-RTX really parses and builds, on the CPU, for a GPU that is not here."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
from onnx import TensorProto, helper

from pipeline.model.errors import DeploymentError
from pipeline.model.geometry import Size
from pipeline.runtime.bundle_loader import SHIPPED, load_bundle
from pipeline.runtime.tensorrt import bindings
from pipeline.runtime.tensorrt.batch_shapes import BatchShape, PlanPrecision, ShapeProfile, squares
from pipeline.runtime.tensorrt.builder import Graph, Target, build, network_flags
from pipeline.runtime.tensorrt.log_capture import log_listener_of
from pipeline.runtime.tensorrt.plans import PlanRequest, plan_of
from pipeline.runtime.tensorrt.precision_graphs import prepared

RTX = "tensorrt_rtx_bindings"
needs_rtx = pytest.mark.skipif(find_spec(RTX) is None, reason=f"{RTX} is not installed")
GPU = "8.9"
PARAMETERS = {member.file: member.parameters for member in load_bundle().manifest.members}
GRAPHS = sorted(PARAMETERS)
"""in FP32: what TensorRT is given. int8 files are OpenVINO's, with zero points that it refuses"""
CROPS = squares(128, 64, 128)
TILES = ShapeProfile(
    BatchShape(1, Size(16, 16)), BatchShape(4, Size(640, 640)), BatchShape(8, Size(1024, 1024))
)
SMALLEST_PART, LARGEST_PART = 0.2, 2.0
"""of a plan's bytes over the weights' in FP32: weights shrink, kernels come in addition"""


@pytest.fixture(scope="module")
def rtx():
    return import_module(RTX)


def shapes_of(name):
    return TILES if name.startswith("segmenter") else CROPS


def calibration_of(name):
    side = 64 if name.startswith("segmenter") else 128
    return [np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)]


@needs_rtx
@pytest.mark.parametrize("precision", PlanPrecision)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_shipped_graph_is_built_with_its_profile(rtx, name, precision):
    shipped = (SHIPPED / name).read_bytes()
    onnx_bytes = prepared(shipped, precision, calibration_of(name))
    built = build(rtx, Graph(name, onnx_bytes), Target(shapes_of(name), GPU))
    assert SMALLEST_PART < len(built.plan) / (4 * PARAMETERS[name]) < LARGEST_PART
    takes, gives = inputs_and_outputs(rtx, onnx_bytes)
    sides = (-1, -1, -1, 3) if name.startswith("segmenter") else (-1, 128, 128, 3)
    assert takes == [("rgb", "UINT8", sides)]
    ((gives_name, gives_type, gives_shape),) = gives
    assert (gives_name, gives_type, gives_shape[0]) == ("probabilities", "FLOAT", -1)


def inputs_and_outputs(rtx, onnx_bytes):
    """As the parsed network has them: a plan can only be opened where there is a driver."""
    listener = log_listener_of(rtx).logger
    network = rtx.Builder(listener).create_network(network_flags(rtx))
    parser = rtx.OnnxParser(network, listener)
    assert parser.parse(onnx_bytes)
    taken = [network.get_input(index) for index in range(network.num_inputs)]
    given = [network.get_output(index) for index in range(network.num_outputs)]
    return tuple(
        [(tensor.name, tensor.dtype.name, tuple(tensor.shape)) for tensor in side] for side in (taken, given)
    )


def graph_of(operator, **attributes):
    """rgb → float → `operator` → probabilities"""
    nodes = [
        helper.make_node("Cast", ["rgb"], ["float"], to=TensorProto.FLOAT, name="to_float"),
        helper.make_node(operator, ["float"], ["probabilities"], name="the_node", **attributes),
    ]
    taken = helper.make_tensor_value_info("rgb", TensorProto.UINT8, ["n", 16, 16, 3])
    given = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 16, 16, 3])
    model = helper.make_model(
        helper.make_graph(nodes, "small", [taken], [given]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    return model.SerializeToString()


@needs_rtx
def test_a_node_that_is_not_taken_is_named_with_its_file(rtx):
    with pytest.raises(DeploymentError, match=r"odd\.onnx: node the_node \(Det\)") as raised:
        build(rtx, Graph("odd.onnx", graph_of("Det")), Target(squares(16, 2, 4), GPU))
    assert "\n" not in raised.value.sentence


@needs_rtx
def test_what_is_no_onnx_is_refused_by_name(rtx):
    with pytest.raises(DeploymentError, match=r"odd\.onnx"):
        build(rtx, Graph("odd.onnx", b"no graph"), Target(squares(16, 2, 4), GPU))


@needs_rtx
def test_a_profile_that_the_graph_does_not_take_is_refused(rtx):
    graph = Graph("small.onnx", graph_of("Relu"))
    with pytest.raises(DeploymentError, match=r"small\.onnx does not accept batches"):
        build(rtx, graph, Target(squares(32, 2, 4), GPU))


@needs_rtx
def test_an_unknown_compute_capability_is_refused(rtx):
    with pytest.raises(DeploymentError, match=r"does not support compute capability 3\.5"):
        build(rtx, Graph("small.onnx", graph_of("Relu")), Target(squares(16, 2, 4), "3.5"))


@needs_rtx
def test_a_plan_is_built_once_and_then_read(rtx, tmp_path):
    file = tmp_path / "small.onnx"
    file.write_bytes(graph_of("Relu"))
    request = PlanRequest(squares(16, 2, 4), tmp_path / "plans", PlanPrecision.FP32)
    plan = plan_of(rtx, file, request, GPU, is_here=False)
    kept = next((tmp_path / "plans").glob("*.plan"))
    written_at = kept.stat().st_mtime_ns
    assert plan_of(rtx, file, request, GPU, is_here=False) == plan
    assert kept.stat().st_mtime_ns == written_at
    plan_of(rtx, file, request, "8.6", is_here=False)
    assert len(list((tmp_path / "plans").glob("*.plan"))) == 2


# What we call must be there.

STAND_FOR = {
    "Named": "DataType",
    "HostMemory": "IHostMemory",
    "Logger": "ILogger",
    "ParserError": "ParserError",
    "Parser": "OnnxParser",
    "Tensor": "ITensor",
    "Network": "INetworkDefinition",
    "OptimizationProfile": "IOptimizationProfile",
    "TimingCache": "ITimingCache",
    "BuilderConfig": "IBuilderConfig",
    "AheadConfig": "IBuilderConfig",
    "Builder": "Builder",
    "ExecutionContext": "IExecutionContext",
    "CudaEngine": "ICudaEngine",
    "Runtime": "Runtime",
    "AllocationStrategies": "ExecutionContextAllocationStrategy",
}
"""class of bindings.py: the class of TensorRT that it describes"""


def described(kind):
    """Return the names of what a Protocol describes."""
    own = {**vars(kind), **getattr(kind, "__annotations__", {})}
    return {
        name for name in own if not name.startswith("_") or name in ("__int__", "__version__", "__name__")
    }


def resolved(module, dotted):
    for part in dotted.split("."):
        module = getattr(module, part)
    return module


def protocols():
    return {
        name: kind
        for name, kind in vars(bindings).items()
        if isinstance(kind, type) and kind.__module__ == bindings.__name__
    }


def test_every_protocol_says_what_it_stands_for():
    assert set(protocols()) == {*STAND_FOR, "TensorRt"}


def installed_modules():
    return [name for name in ("tensorrt", RTX) if find_spec(name) is not None] or [
        pytest.param("none", marks=pytest.mark.skip(reason="neither tensorrt nor tensorrt_rtx is installed"))
    ]


@pytest.mark.parametrize("module_name", installed_modules())
def test_every_attribute_that_is_used_is_in_the_installed_bindings(module_name):
    module = import_module(module_name)
    missing = [
        f"{STAND_FOR[name]}.{attribute}"
        for name, kind in protocols().items()
        if name in STAND_FOR
        for attribute in described(kind)
        if not hasattr(resolved(module, STAND_FOR[name]), attribute)
        and not (name == "AheadConfig" and "rtx" not in module_name)
    ]
    missing += [name for name in described(bindings.TensorRt) if not hasattr(module, name)]
    assert missing == []


@pytest.mark.parametrize("module_name", installed_modules())
def test_every_argument_that_is_passed_is_in_the_installed_signatures(module_name):
    """pybind11 writes its signatures at the top of docstrings: as many arguments as we pass must fit one."""
    module = import_module(module_name)
    passed = {
        "OptimizationProfile.set_shape": 4,
        "BuilderConfig.create_timing_cache": 1,
        "BuilderConfig.set_timing_cache": 2,
        "Builder.create_network": 1,
        "Builder.build_serialized_network": 2,
        "ExecutionContext.set_input_shape": 2,
        "ExecutionContext.set_tensor_address": 2,
        "ExecutionContext.set_device_memory": 2,
        "ExecutionContext.execute_async_v3": 1,
        "CudaEngine.create_execution_context": 1,
        "Runtime.deserialize_cuda_engine": 1,
    }
    for name, count in passed.items():
        owner, method = name.split(".")
        text = getattr(resolved(module, STAND_FOR[owner]), method).__doc__
        signatures = re.findall(rf"{method}\((self[^\n]*)\) ->", text)
        assert any(len(re.findall(r"\w+: ", signature)) == count + 1 for signature in signatures), text
