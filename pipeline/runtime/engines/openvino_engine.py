"""OpenVINO on the CPU: the default engine where there is no GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, repeat
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from pipeline.bundle.int8_figures import Precision
from pipeline.model.domain import Probabilities, Rgb
from pipeline.runtime.engines.engine_port import (
    BatchRefused,
    EngineIdentity,
    GraphFile,
    LoadedEngine,
    Opener,
    TensorSpec,
    batch_too_large,
    bundle_graph_error,
    require_bundle_graph,
    require_matching,
)
from pipeline.runtime.engines.openvino_without_telemetry import ov

NAME = "openvino"
_DEVICE = "CPU"
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "out of memory", "Failed to allocate", "not enough memory")


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """A batch is computed in up to `streams` parts at once, by `threads` threads in total."""

    threads: int
    streams: int


class OpenVinoEngine(LoadedEngine):
    """One loaded ONNX file. Implements `Engine`.

    A batch is split into as many parts as there are streams; concurrent callers wait for a free stream.
    """

    def __init__(self, file: Path, streams: StreamCounts, precision: Precision = Precision.FP32) -> None:
        """Raises: DeploymentError, where the file is not a graph of a bundle."""
        self._file = file
        try:
            model = ov.Core().read_model(file)
            if len(model.inputs) != 1 or len(model.outputs) != 1:
                raise bundle_graph_error(file, "does not have one input and one output")
            input_spec, output_spec = _spec(model.inputs[0]), _spec(model.outputs[0])
            require_bundle_graph(file, input_spec, output_spec)
            self._requests = _RequestPool(model, streams)
        except RuntimeError as error:
            raise bundle_graph_error(file, "cannot be loaded by OpenVINO") from error
        self._streams = streams.streams
        self._callers = ThreadPoolExecutor(streams.streams, thread_name_prefix="openvino")
        self._closed = threading.Event()
        super().__init__(EngineIdentity(NAME, _version(), _DEVICE, precision), input_spec, output_spec)

    def run(self, batch: Rgb) -> Probabilities:
        """Return what the graph makes of a uint8 (N, H, W, 3) batch: see `Engine`."""
        if self._closed.is_set():
            raise RuntimeError("the engine is closed")
        require_matching(batch, self._input)
        parts = np.array_split(np.ascontiguousarray(batch), min(self._streams, len(batch)))
        starts = accumulate((len(part) for part in parts[:-1]), initial=0)
        output = _BatchOutput(len(batch))
        list(self._callers.map(self._compute, parts, starts, repeat(output)))  # raises what a part raised
        return output.whole()

    def _compute(self, part: Rgb, start: int, output: _BatchOutput) -> None:
        with self._requests.one() as request:
            try:
                request.start_async({0: ov.Tensor(part, shared_memory=True)})
                request.wait()
                output.put(start, request.get_output_tensor(0).data)
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY):
                    self._requests.renew(request)
                    raise batch_too_large(self._file) from error
                raise BatchRefused(f"OpenVINO cannot run {part.shape} on {self._file.name}") from error

    def close(self) -> None:
        """Finish the running batches, then release the graph."""
        self._closed.set()
        self._callers.shutdown()
        self._requests.release()


class _BatchOutput:
    """The output of a batch whose parts are computed separately; each part is copied once, into its place."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._all: Probabilities | None = None
        self._making = threading.Lock()

    def put(self, start: int, part: Probabilities) -> None:
        """Copy the output of the pictures from `start` on; parts do not overlap."""
        with self._making:
            if self._all is None:
                self._all = np.empty((self._count, *part.shape[1:]), np.float32)
        self._all[start : start + len(part)] = part

    def whole(self) -> Probabilities:
        """Return the outputs in the order of the batch."""
        assert self._all is not None, "nothing was computed"
        return self._all


class _RequestPool:
    """The inference requests of a compiled model, one for each stream."""

    def __init__(self, model: ov.Model, streams: StreamCounts) -> None:
        """Raises: RuntimeError, where OpenVINO cannot compile the model."""
        self._model = model
        self._streams = streams
        self._changing = threading.Lock()
        self._current: frozenset[ov.InferRequest] = frozenset()
        self._idle: SimpleQueue[ov.InferRequest] = SimpleQueue()
        self._compile()

    def _compile(self) -> None:
        compiled = ov.Core().compile_model(self._model, _DEVICE, _properties(self._streams))
        requests = [compiled.create_infer_request() for _ in range(self._streams.streams)]
        self._current = frozenset(requests)
        self._idle = SimpleQueue()
        for request in requests:
            self._idle.put(request)

    @contextmanager
    def one(self) -> Iterator[ov.InferRequest]:
        """Return a context with a request for exclusive use; wait until one is free."""
        with self._changing:
            idle = self._idle
        request = idle.get()
        try:
            yield request
        finally:
            idle.put(request)

    def renew(self, failed: ov.InferRequest) -> None:
        """Compile the model again: after running out of memory, OpenVINO requests as much for every batch."""
        with self._changing, suppress(MemoryError, RuntimeError):
            if failed in self._current:
                self._compile()

    def release(self) -> None:
        """Release the compiled model."""
        self._current, self._idle = frozenset(), SimpleQueue()


def openvino(streams: StreamCounts) -> Opener:
    """Return the function that opens graphs with OpenVINO, each with this many streams."""

    def opened(graph: GraphFile) -> OpenVinoEngine:
        return OpenVinoEngine(graph.path, streams, graph.precision)

    return opened


def _spec(port: ov.Output) -> TensorSpec:
    sizes = tuple(axis.get_length() if axis.is_static else None for axis in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()).name, sizes)


def _properties(streams: StreamCounts) -> dict[str, str | int | bool]:
    return {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": streams.streams,
        "INFERENCE_NUM_THREADS": streams.threads,
        # By default OpenVINO uses bfloat16 where the processor supports it: probabilities differ by 0.03.
        "INFERENCE_PRECISION_HINT": "f32",
        # With pinning, several workers on one machine would use the same cores.
        "ENABLE_CPU_PINNING": False,
    }


def _version() -> str:
    return str(ov.__version__).partition("-")[0]
