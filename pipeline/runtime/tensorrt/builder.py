"""Makes a plan of an ONNX graph: for one GPU architecture, one version of TensorRT, one profile of sizes."""

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
    """An ONNX graph in its precision, and the name of the file that it comes from."""

    name: str
    onnx: bytes


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and what was learnt while timing kernels for it."""

    plan: bytes
    timing_cache: bytes


@dataclass(frozen=True, slots=True)
class Target:
    """What a plan is made for. `ahead_of` is the compute capability, as 8.9, of a GPU that is not here."""

    shapes: ShapeProfile
    ahead_of: str | None = None


def build(trt: TensorRt, graph: Graph, target: Target, timing_cache: bytes = b"") -> Built:
    """Return the plan of `graph` for `target`.

    Raises: DeploymentError, where TensorRT does not parse a node, or cannot build the graph, or not for
    that compute capability.
    """
    listener = log_listener_of(trt)
    listener.captured.forget()
    builder = trt.Builder(listener.logger)
    network = builder.create_network(network_flags(trt))
    _parse(trt.OnnxParser(network, listener.logger), graph)
    config = builder.create_builder_config()
    _add_profile(builder, config, network, graph, target.shapes)
    if target.ahead_of is not None:
        _aim(trt, config, target.ahead_of)
    cache = config.create_timing_cache(timing_cache)
    config.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeploymentError(
            f"TensorRT cannot build {graph.name} for {target.shapes}: {listener.captured.first}.",
            code="plan_unbuilt",
        )
    learnt = config.get_timing_cache()
    return Built(bytes(plan), bytes(learnt.serialize()) if learnt is not None else b"")


def network_flags(trt: TensorRt) -> int:
    """Return the flags of a strongly typed network, which newer modules no longer have to be asked for."""
    flag: Named | None = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(parser: Parser, graph: Graph) -> None:
    if parser.parse(graph.onnx):
        return
    faults = [parser.get_error(index) for index in range(parser.num_errors)]
    if not faults:
        raise DeploymentError(f"TensorRT cannot parse {graph.name}.", code="plan_unparsed")
    nodes = "; ".join(
        f"node {fault.node_name() or '?'} ({fault.node_operator() or '?'}): {_one_line(fault.desc())}"
        for fault in faults
    )
    raise DeploymentError(f"TensorRT cannot parse {graph.name}: {nodes}.", code="plan_unparsed")


def _add_profile(
    builder: Builder, config: BuilderConfig, network: Network, graph: Graph, shapes: ShapeProfile
) -> None:
    asked = [network.get_input(index) for index in range(network.num_inputs)]
    if [tensor.name for tensor in asked] != [INPUT_NAME]:
        raise DeploymentError(f"{graph.name} does not take just `{INPUT_NAME}`.", code="bundle_graph")
    fixed = tuple(asked[0].shape)
    for axes in (shapes.least.axes, shapes.most.axes):
        if any(side not in (-1, axis) for side, axis in zip(fixed, axes, strict=True)):
            raise DeploymentError(f"{graph.name} does not take batches of {axes}.", code="plan_profile")
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT_NAME, shapes.least.axes, shapes.usual.axes, shapes.most.axes)
    if config.add_optimization_profile(profile) < 0:
        raise DeploymentError(f"TensorRT refuses the profile {shapes} of {graph.name}.", code="plan_profile")


def _aim(trt: TensorRt, config: BuilderConfig, compute_capability: str) -> None:
    """Build for a GPU that is not in the machine."""
    if not hasattr(config, "set_compute_capability"):
        raise DeploymentError(
            f"{trt.__name__} {trt.__version__} builds only for the GPU that is here; TensorRT-RTX, ahead.",
            code="plan_not_ahead",
        )
    ahead = cast(AheadConfig, config)
    wanted: Named | None = getattr(trt.ComputeCapability, "SM" + compute_capability.replace(".", ""), None)
    if wanted is None:
        raise DeploymentError(
            f"{trt.__name__} {trt.__version__} knows no compute capability {compute_capability}.",
            code="plan_not_ahead",
        )
    ahead.num_compute_capabilities = 1
    ahead.set_compute_capability(wanted, 0)


def _one_line(text: str) -> str:
    return " ".join(text.split())
