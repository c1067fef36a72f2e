"""The interface of an engine, which runs one graph of a bundle.

The input of a graph is `rgb`, uint8 (N, H, W, 3), its output `probabilities`, float32. Normalisation and
softmax are part of the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from pipeline.bundle.int8_figures import Precision
from pipeline.bundle.manifest import INPUT_NAME, OUTPUT_NAME
from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.errors import CapacityError, DeploymentError
from pipeline.model.geometry import Size
from pipeline.runtime.concurrency.closing import Closing

_CHANNELS = 3


class EngineName(StrEnum):
    """The engines that a user may choose."""

    AUTO = "auto"
    """TensorRT where there is a GPU with its libraries, else OpenVINO"""
    TENSORRT = "tensorrt"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named input or output: numpy's name of its type, and its shape; None for an axis of any size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """The engine that ran a graph, for log and provenance."""

    name: str
    """`onnxruntime`, `openvino` or `tensorrt`"""
    version: str
    device: str
    precision: str
    """`fp32`, `fp16` or `int8`"""

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.device} {self.precision}"


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A verified ONNX file of a bundle, and the size of the pictures that it accepts."""

    path: Path
    precision: Precision
    fixed_px: Size | None
    """the only size that it accepts; None where it accepts every multiple of the stride"""
    stride_px: int


class BatchRefused(ValueError):
    """The graph does not accept a batch of this shape."""


class Engine(Protocol):
    """One loaded graph. All implementations pass tests/contract/test_engines.py."""

    @property
    def identity(self) -> EngineIdentity: ...

    @property
    def input(self) -> TensorSpec: ...

    @property
    def output(self) -> TensorSpec: ...

    def run(self, batch: Rgb) -> Probabilities:
        """Return the float32 output for a uint8 (N, H, W, 3) batch, N ≥ 1.

        Several threads may call it at once. Raises: CapacityError, where there is no memory for it.
        """
        ...

    def close(self) -> None:
        """Free all memory; the engine cannot be used again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LoadedEngine(Closing):
    """The part that all implementations of `Engine` share: what the loaded graph is."""

    def __init__(self, identity: EngineIdentity, input_spec: TensorSpec, output_spec: TensorSpec) -> None:
        self._identity = identity
        self._input = input_spec
        self._output = output_spec

    @property
    def identity(self) -> EngineIdentity:
        return self._identity

    @property
    def input(self) -> TensorSpec:
        return self._input

    @property
    def output(self) -> TensorSpec:
        return self._output


Opener = Callable[[GraphFile], Engine]
"""Opens a graph. Raises: DeploymentError, where the file is not a graph of a bundle."""


def require_bundle_graph(file: Path, input_spec: TensorSpec, output_spec: TensorSpec) -> None:
    """Raises: DeploymentError, where no graph of a bundle has this input and output."""
    if (input_spec.name, input_spec.dtype) != (INPUT_NAME, "uint8"):
        raise bundle_graph_error(file, f"does not have `{INPUT_NAME}` (uint8) as its only input")
    if (output_spec.name, output_spec.dtype) != (OUTPUT_NAME, "float32"):
        raise bundle_graph_error(file, f"does not have `{OUTPUT_NAME}` (float32) as its only output")
    if len(input_spec.shape) != 4 or input_spec.shape[3] != _CHANNELS:
        raise bundle_graph_error(file, "does not accept pictures as (N, H, W, 3)")


def require_matching(batch: Rgb, input_spec: TensorSpec) -> None:
    """Raises: BatchRefused, where the batch does not match the input, or is empty."""
    sizes_fit = len(batch.shape) == len(input_spec.shape) and all(
        expected in (None, actual) for expected, actual in zip(input_spec.shape, batch.shape, strict=True)
    )
    if batch.dtype != input_spec.dtype or not sizes_fit or 0 in batch.shape:
        raise BatchRefused(
            f"{input_spec.dtype} {input_spec.shape} is expected, not {batch.dtype} {batch.shape}"
        )


def bundle_graph_error(file: Path, what: str) -> DeploymentError:
    """Return the error for a graph that does not fit; `what` completes the sentence."""
    return DeploymentError(f"{file.name} of the model bundle {what}.", code="bundle_graph")


def batch_too_large(file: Path) -> CapacityError:
    """Return the error for a batch that does not fit into memory."""
    return CapacityError(f"There is no memory for this batch of {file.name}.", code="batch_too_large")
