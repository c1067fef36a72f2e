"""What runs one graph of a bundle: loaded once a process, asked by threads, closed at the end.

Graphs take `rgb`, uint8 (N, H, W, 3), and give `probabilities`, float32; normalisation and softmax are
inside.
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

_CHANNELS = 3


class EngineName(StrEnum):
    """What a person may ask for."""

    AUTO = "auto"
    """TensorRT where a GPU and its libraries are, else OpenVINO"""
    TENSORRT = "tensorrt"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named input or output: numpy's name of its type, and its shape; None where any size is taken."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """What ran a graph, for log and provenance."""

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
    """A verified ONNX file of a bundle, and the pictures that it is made for."""

    path: Path
    precision: Precision
    fixed_px: Size | None
    """the one size of its pictures; None where any multiple of the stride is taken"""
    stride_px: int


class BatchRefused(ValueError):
    """The graph does not take such a batch: whoever asked is wrong, or at load the graph."""


class Engine(Protocol):
    """One graph, loaded. Implementations run one contract suite: tests/contract/test_engines.py."""

    @property
    def identity(self) -> EngineIdentity: ...

    @property
    def input(self) -> TensorSpec: ...

    @property
    def output(self) -> TensorSpec: ...

    def run(self, batch: Rgb) -> Probabilities:
        """Return float32, what the graph makes of a uint8 (N, H, W, 3) batch, N ≥ 1.

        Threads may call at once. Raises: CapacityError, where there is no memory for it.
        """
        ...

    def close(self) -> None:
        """Give back what the engine holds; it is not run again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Opener = Callable[[GraphFile], Engine]
"""Raises: DeploymentError, where the file is no graph of ours."""


def require_ours(file: Path, takes: TensorSpec, gives: TensorSpec) -> None:
    """Raises: DeploymentError, where a graph with this input and output is none of a bundle."""
    if (takes.name, takes.dtype) != (INPUT_NAME, "uint8"):
        raise unfit(file, f"does not take just `{INPUT_NAME}` as uint8")
    if (gives.name, gives.dtype) != (OUTPUT_NAME, "float32"):
        raise unfit(file, f"does not give just `{OUTPUT_NAME}` as float32")
    if len(takes.shape) != 4 or takes.shape[3] != _CHANNELS:
        raise unfit(file, "does not take pictures as (N, H, W, 3)")


def require_fitting(batch: Rgb, takes: TensorSpec) -> None:
    """Raises: BatchRefused, where the batch is not what the input says, or holds nothing."""
    sizes_fit = len(batch.shape) == len(takes.shape) and all(
        wanted in (None, given) for wanted, given in zip(takes.shape, batch.shape, strict=True)
    )
    if batch.dtype != takes.dtype or not sizes_fit or 0 in batch.shape:
        raise BatchRefused(f"{takes.dtype} {takes.shape} is taken, not {batch.dtype} {batch.shape}")


def unfit(file: Path, what: str) -> DeploymentError:
    """Return the error that says what is wrong with a graph."""
    return DeploymentError(f"{file.name} of the model bundle {what}.", code="bundle_graph")


def full(file: Path) -> CapacityError:
    """Return the error that says that there is no memory for a batch."""
    return CapacityError(f"There is no memory for this batch of {file.name}.", code="batch_too_large")
