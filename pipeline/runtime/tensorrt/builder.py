"""Builds a plan from an ONNX graph: for one GPU architecture, one TensorRT version and one shape profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from pipeline.bundle.manifest import INPUT_NAME
from pipeline.model.errors import DeploymentError
from pipeline.runtime.tensorrt.batch_shapes import ShapeProfile
from pipeline.runtime.tensorrt.bindings import (
    AheadConfig,
    Builder,
    BuilderConfig,
    Named,
    Network,
    Parser,
    TensorRt,
)
from pipeline.runtime.tensorrt.log_capture import log_listener_of


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX graph in its final precision, and the name of its file."""

    name: str
    onnx: bytes


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and the kernel timings measured while it was built."""

    plan: bytes
    timing_cache: bytes


@dataclass(frozen=True, slots=True)
class Target:
    """What a plan is built for."""

    shapes: ShapeProfile
    other_gpu: str | None = None
    """compute capability, for example `8.9`; None: the GPU of this machine"""


def build(trt: TensorRt, graph: Graph, target: Target, timing_cache: bytes = b"") -> Built:
    """Return the plan of `graph` for `target`.

    Raises: DeploymentError, where TensorRT cannot parse a node, cannot build the graph, or cannot build it
    for that compute capability.
    """
    listener = log_listener_of(trt)
    listener.captured.forget()
    builder = trt.Builder(listener.logger)
    network = builder.create_network(network_flags(trt))
    _parse(trt.OnnxParser(network, listener.logger), graph)
    config = builder.create_builder_config()
    _add_profile(builder, config, network, graph, target.shapes)
    if target.other_gpu is not None:
        _target_other_gpu(trt, config, target.other_gpu)
    cache = config.create_timing_cache(timing_cache)
    config.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeploymentError(
            f"TensorRT cannot build {graph.name} for {target.shapes}: {listener.captured.first}.",
            code="plan_unbuilt",
        )
    timings = config.get_timing_cache()
    return Built(bytes(plan), bytes(timings.serialize()) if timings is not None else b"")


def network_flags(trt: TensorRt) -> int:
    """Return the flags of a strongly typed network; newer TensorRT versions have no flag for it."""
    flag: Named | None = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(parser: Parser, graph: Graph) -> None:
    if parser.parse(graph.onnx):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not errors:
        raise DeploymentError(f"TensorRT cannot parse {graph.name}.", code="plan_unparsed")
    nodes = "; ".join(
        f"node {error.node_name() or '?'} ({error.node_operator() or '?'}): {_one_line(error.desc())}"
        for error in errors
    )
    raise DeploymentError(f"TensorRT cannot parse {graph.name}: {nodes}.", code="plan_unparsed")


def _add_profile(
    builder: Builder, config: BuilderConfig, network: Network, graph: Graph, shapes: ShapeProfile
) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if [tensor.name for tensor in inputs] != [INPUT_NAME]:
        raise DeploymentError(
            f"{graph.name} does not have `{INPUT_NAME}` as its only input.", code="bundle_graph"
        )
    fixed = tuple(inputs[0].shape)
    for axes in (shapes.minimum.axes, shapes.maximum.axes):
        if any(side not in (-1, axis) for side, axis in zip(fixed, axes, strict=True)):
            raise DeploymentError(f"{graph.name} does not accept batches of {axes}.", code="plan_profile")
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT_NAME, shapes.minimum.axes, shapes.optimum.axes, shapes.maximum.axes)
    if config.add_optimization_profile(profile) < 0:
        raise DeploymentError(f"TensorRT rejects the profile {shapes} of {graph.name}.", code="plan_profile")


def _target_other_gpu(trt: TensorRt, config: BuilderConfig, compute_capability: str) -> None:
    """Make the build target a GPU that is not in this machine."""
    if not hasattr(config, "set_compute_capability"):
        raise DeploymentError(
            f"{trt.__name__} {trt.__version__} builds plans for this machine's GPU only; use TensorRT-RTX.",
            code="plan_not_ahead",
        )
    ahead = cast(AheadConfig, config)
    wanted: Named | None = getattr(trt.ComputeCapability, "SM" + compute_capability.replace(".", ""), None)
    if wanted is None:
        raise DeploymentError(
            f"{trt.__name__} {trt.__version__} does not support compute capability {compute_capability}.",
            code="plan_not_ahead",
        )
    ahead.num_compute_capabilities = 1
    ahead.set_compute_capability(wanted, 0)


def _one_line(text: str) -> str:
    return " ".join(text.split())
