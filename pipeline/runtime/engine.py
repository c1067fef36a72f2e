"""What runs one graph of a bundle: loaded once a process, asked by threads, closed at the end."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from pipeline.domain import Probabilities, Rgb


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
