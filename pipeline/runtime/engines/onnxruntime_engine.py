"""ONNX Runtime on the CPU: the portable engine, and the reference for the golden results."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.bundle.int8_figures import Precision
from pipeline.bundle.manifest import INPUT_NAME, OUTPUT_NAME
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
from pipeline.runtime.engines.onnxruntime_without_telemetry import ort, ort_errors

NAME = "onnxruntime"
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "out of memory")
_ORT_ERRORS = (
    ort_errors.Fail,
    ort_errors.RuntimeException,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
)


class OnnxRuntimeEngine(LoadedEngine):
    """One loaded ONNX file. Implements `Engine`."""

    def __init__(self, file: Path, threads: int, precision: Precision = Precision.FP32) -> None:
        """Raises: DeploymentError, where the file is not a graph of a bundle."""
        self._file = file
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                str(file), sess_options=_options(threads), providers=["CPUExecutionProvider"]
            )
        except _ORT_ERRORS as error:
            raise bundle_graph_error(file, "cannot be loaded by ONNX Runtime") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise bundle_graph_error(file, "does not have one input and one output")
        input_spec, output_spec = _spec(inputs[0]), _spec(outputs[0])
        require_bundle_graph(file, input_spec, output_spec)
        super().__init__(EngineIdentity(NAME, ort.__version__, "CPU", precision), input_spec, output_spec)

    def run(self, batch: Rgb) -> Probabilities:
        """Return the output for a uint8 (N, H, W, 3) batch: see `Engine`."""
        if self._session is None:
            raise RuntimeError("the engine is closed")
        require_matching(batch, self._input)
        try:
            (output,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(batch)})
        except MemoryError as error:
            raise batch_too_large(self._file) from error
        except _ORT_ERRORS as error:
            if any(sign in str(error) for sign in _OUT_OF_MEMORY):
                raise batch_too_large(self._file) from error
            raise BatchRefused(f"ONNX Runtime cannot run {batch.shape} on {self._file.name}") from error
        return np.asarray(output, np.float32)

    def close(self) -> None:
        """Release the graph."""
        self._session = None


def onnx_runtime(threads: int) -> Opener:
    """Return the function that opens graphs with ONNX Runtime, each with this many threads."""

    def opened(graph: GraphFile) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(graph.path, threads, graph.precision)

    return opened


def _spec(node: ort.NodeArg) -> TensorSpec:
    sizes = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), sizes)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # batches differ in size
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    # Spinning threads would occupy the cores that decode the next tiles.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
