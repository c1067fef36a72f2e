"""ONNX Runtime on the CPU behind the ports of segmentation and classification.

Graphs take `rgb`, uint8 (N, H, W, 3), and give `probabilities`, float32; normalisation and softmax are
inside.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from pipeline.domain import Probabilities, Rgb
from pipeline.errors import CapacityError, DeploymentError
from pipeline.geometry import Size
from pipeline.manifest import INPUT_NAME, OUTPUT_NAME
from pipeline.runtime.bundle import Bundle
from pipeline.taxonomy import LEAVES

TISSUES = 3
"""background, cytoplasm, nucleus"""
_UINT8, _FLOAT32 = "tensor(uint8)", "tensor(float)"
PIXELS_AT_ONCE = 2 * 1024 * 1024
"""of a segmenter's batch, or one picture: a megapixel takes a half-width U-Net's first level 0.4 GB"""
_SUM_TOLERANCE = 1e-3
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


def available_threads() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Probe:
    """What a graph is asked at load: one black picture of `size_px`, and the shape of the answer."""

    size_px: Size
    answer: tuple[int, ...]


class OnnxGraph:
    """One loaded ONNX file. Threads may run it at once."""

    def __init__(self, file: Path, threads: int) -> None:
        """Raises: DeploymentError, where the file is no graph of ours."""
        self._name = file.name
        try:
            self._session = ort.InferenceSession(
                str(file), sess_options=_options(threads), providers=["CPUExecutionProvider"]
            )
        except _ORT_ERRORS as error:
            raise self._unfit("cannot be loaded by ONNX Runtime") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [(node.name, node.type) for node in inputs] != [(INPUT_NAME, _UINT8)]:
            raise self._unfit(f"does not take just `{INPUT_NAME}` as uint8")
        if [(node.name, node.type) for node in outputs] != [(OUTPUT_NAME, _FLOAT32)]:
            raise self._unfit(f"does not give just `{OUTPUT_NAME}` as float32")
        if len(inputs[0].shape) != 4 or inputs[0].shape[3] != 3:
            raise self._unfit("does not take pictures as (N, H, W, 3)")

    def run(self, batch: Rgb) -> Probabilities:
        """Return what the graph makes of a uint8 (N, H, W, 3) batch.

        Raises: CapacityError, where there is no memory for it.
        """
        try:
            (answer,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(batch)})
        except MemoryError as error:
            raise self._full() from error
        except _ORT_ERRORS as error:
            if any(sign in str(error) for sign in _OUT_OF_MEMORY):
                raise self._full() from error
            raise
        return np.asarray(answer, np.float32)

    def check(self, probe: Probe) -> None:
        """Check that the graph answers, in the right shape, with probabilities.

        Raises: DeploymentError.
        """
        picture = np.zeros((1, probe.size_px.height, probe.size_px.width, 3), np.uint8)
        try:
            answer = self.run(picture)
        except _ORT_ERRORS as error:
            raise self._unfit(f"does not take {probe.size_px.width} × {probe.size_px.height} px") from error
        if answer.shape != probe.answer:
            raise self._unfit(f"gives the shape {answer.shape} where {probe.answer} belongs")
        if not np.allclose(answer.sum(axis=1), 1, atol=_SUM_TOLERANCE) or answer.min() < 0:
            raise self._unfit("does not give probabilities")

    def _unfit(self, what: str) -> DeploymentError:
        return DeploymentError(f"{self._name} of the model bundle {what}.", code="bundle_graph")

    def _full(self) -> CapacityError:
        return CapacityError(f"There is no memory for this batch of {self._name}.", code="batch_too_large")


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # batches differ in size
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    # Waiting threads would take the cores that decode the next tiles.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxSegmenter:
    """The mean of the profile's networks of tissues. Implements `ports.Segmenter`."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        """Raises: DeploymentError, where a graph does not fit the manifest, or the profile is missing."""
        self._stride_px = bundle.stride_px
        self._members: list[OnnxGraph] = []
        for entry in bundle.manifest.segmenters(bundle.profile):
            member = OnnxGraph(bundle.file_of(entry), threads or available_threads())
            for side_px in (2 * entry.stride_px, 3 * entry.stride_px):
                member.check(Probe(Size(side_px, side_px), (1, TISSUES, side_px, side_px)))
            self._members.append(member)

    @property
    def stride_px(self) -> int:
        return self._stride_px

    @property
    def engine(self) -> str:
        """Name and version of what runs the networks."""
        return f"onnxruntime {ort.__version__} CPU"

    def segment(self, batch: Rgb) -> Probabilities:
        """Return float32 (N, 3, H, W): see `ports.Segmenter`. Raises: CapacityError."""
        count, height, width, _ = batch.shape
        if not count:
            return np.zeros((0, TISSUES, height, width), np.float32)
        at_once = max(1, PIXELS_AT_ONCE // (height * width))
        return np.concatenate([self._mean(batch[at : at + at_once]) for at in range(0, count, at_once)])

    def _mean(self, batch: Rgb) -> Probabilities:
        total = self._members[0].run(batch)
        for member in self._members[1:]:
            total = total + member.run(batch)
        return total / np.float32(len(self._members))


class OnnxClassifier:
    """The bundle's ensemble. Implements `ports.Classifier`."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        """Raises: DeploymentError, where a graph does not fit the manifest."""
        entry = bundle.manifest.classifier
        self._crop_px = Size(entry.crop_px, entry.crop_px)
        self._crop_mpp_um = entry.crop_mpp_um
        self._members = [
            OnnxGraph(bundle.file_of(member), threads or available_threads()) for member in entry.members
        ]
        for member in self._members:
            member.check(Probe(self._crop_px, (1, len(LEAVES))))

    @property
    def crop_px(self) -> Size:
        return self._crop_px

    @property
    def crop_mpp_um(self) -> float:
        return self._crop_mpp_um

    def classify(self, batch: Rgb) -> Probabilities:
        """Return float32 (M, N, L): see `ports.Classifier`. Raises: CapacityError."""
        if not len(batch):
            return np.zeros((len(self._members), 0, len(LEAVES)), np.float32)
        return np.stack([member.run(batch) for member in self._members])
