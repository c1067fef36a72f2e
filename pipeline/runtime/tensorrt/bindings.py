"""The part of TensorRT's Python bindings that leukoflow uses, common to `tensorrt` 11 and `tensorrt_rtx` 1.7.

The module itself is injected. Each docstring names the class that the Protocol stands for; a test compares
every attribute with the installed bindings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Named(Protocol):
    """A value of one of the enumerations: DataType, TensorIOMode, ComputeCapability, …"""

    @property
    def name(self) -> str: ...

    def __int__(self) -> int: ...


class HostMemory(Protocol):
    """IHostMemory: a buffer of bytes."""

    @property
    def nbytes(self) -> int: ...

    def __buffer__(self, flags: int, /) -> memoryview: ...


class Logger(Protocol):
    """ILogger"""

    def log(self, severity: Named, text: str) -> None: ...


class ParserError(Protocol):
    """ParserError"""

    def desc(self) -> str: ...

    def node_name(self) -> str: ...

    def node_operator(self) -> str: ...


class Parser(Protocol):
    """OnnxParser"""

    @property
    def num_errors(self) -> int: ...

    def parse(self, model: bytes) -> bool: ...

    def get_error(self, index: int) -> ParserError: ...


class Tensor(Protocol):
    """ITensor"""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> Named: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


class Network(Protocol):
    """INetworkDefinition"""

    @property
    def num_inputs(self) -> int: ...

    @property
    def num_outputs(self) -> int: ...

    def get_input(self, index: int) -> Tensor: ...

    def get_output(self, index: int) -> Tensor: ...


class OptimizationProfile(Protocol):
    """IOptimizationProfile"""

    def set_shape(
        self,
        name: str,
        minimum: tuple[int, ...],
        optimum: tuple[int, ...],
        maximum: tuple[int, ...],
        /,
    ) -> None: ...


class TimingCache(Protocol):
    """ITimingCache"""

    def serialize(self) -> HostMemory: ...


class BuilderConfig(Protocol):
    """IBuilderConfig"""

    def add_optimization_profile(self, profile: OptimizationProfile) -> int: ...

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache: ...

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool: ...

    def get_timing_cache(self) -> TimingCache | None: ...


class AheadConfig(BuilderConfig, Protocol):
    """IBuilderConfig of TensorRT-RTX, which also builds for other GPUs than that of this machine."""

    num_compute_capabilities: int

    def set_compute_capability(self, compute_capability: Named, index: int) -> bool: ...


class Builder(Protocol):
    """Builder"""

    def create_network(self, flags: int) -> Network: ...

    def create_builder_config(self) -> BuilderConfig: ...

    def create_optimization_profile(self) -> OptimizationProfile: ...

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> HostMemory | None: ...


class ExecutionContext(Protocol):
    """IExecutionContext"""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...

    def get_tensor_shape(self, name: str) -> tuple[int, ...]: ...

    def set_tensor_address(self, name: str, memory: int) -> bool: ...

    def set_device_memory(self, memory: int, size: int) -> None: ...

    def execute_async_v3(self, stream_handle: int) -> bool: ...


class CudaEngine(Protocol):
    """ICudaEngine"""

    @property
    def num_io_tensors(self) -> int: ...

    @property
    def device_memory_size_v2(self) -> int: ...

    def get_tensor_name(self, index: int) -> str: ...

    def get_tensor_mode(self, name: str) -> Named: ...

    def get_tensor_dtype(self, name: str) -> Named: ...

    def get_tensor_shape(self, name: str) -> tuple[int, ...]: ...

    def create_execution_context(self, strategy: Named) -> ExecutionContext | None: ...


class Runtime(Protocol):
    """Runtime"""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None: ...


class AllocationStrategies(Protocol):
    """ExecutionContextAllocationStrategy"""

    @property
    def USER_MANAGED(self) -> Named: ...  # noqa: N802


class TensorRt(Protocol):
    """The module `tensorrt`, or `tensorrt_rtx`."""

    __name__: str
    __version__: str

    def __hash__(self) -> int: ...

    @property
    def ILogger(self) -> type: ...  # noqa: N802

    @property
    def NetworkDefinitionCreationFlag(self) -> object: ...  # noqa: N802

    @property
    def ComputeCapability(self) -> object: ...  # noqa: N802

    @property
    def ExecutionContextAllocationStrategy(self) -> AllocationStrategies: ...  # noqa: N802

    @property
    def Builder(self) -> Callable[[Logger], Builder]: ...  # noqa: N802

    @property
    def OnnxParser(self) -> Callable[[Network, Logger], Parser]: ...  # noqa: N802

    @property
    def Runtime(self) -> Callable[[Logger], Runtime]: ...  # noqa: N802
