"""The networks of a bundle as a segmenter and a classifier, on any engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.geometry import Size
from pipeline.model.taxonomy import LEAVES
from pipeline.runtime.bundle_loader import Bundle
from pipeline.runtime.concurrency.closing import Closing
from pipeline.runtime.concurrency.joining import joined
from pipeline.runtime.engines.engine_port import (
    BatchRefused,
    Engine,
    EngineIdentity,
    GraphFile,
    Opener,
    bundle_graph_error,
)

COMPARTMENTS = 3
"""background, cytoplasm, nucleus"""
MAX_BATCH_PIXELS = 2 * 1024 * 1024
"""at most in one batch of a segmenter: one megapixel takes 0.4 GB in the first level of a half-width U-Net"""
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class LoadCheck:
    """A test at load: one black picture of `size_px`, and the expected shape of the output."""

    size_px: Size
    output: tuple[int, ...]


class _Graphs(Closing):
    """Opened graphs of one kind, closed together."""

    def __init__(self, files: Sequence[GraphFile], opener: Opener) -> None:
        """Raises: DeploymentError, where one cannot be opened, or its output is not probabilities."""
        with ExitStack() as opened:
            self.engines = tuple(opened.enter_context(_checked(file, opener)) for file in files)
            self._closing = opened.pop_all()

    @property
    def identities(self) -> tuple[EngineIdentity, ...]:
        """The engine of each graph."""
        return tuple(engine.identity for engine in self.engines)

    def close(self) -> None:
        """Close the engines."""
        self._closing.close()


class GraphSegmenter(_Graphs):
    """The mean of the profile's segmentation networks. Implements `ports.Segmenter`."""

    def __init__(self, bundle: Bundle, opener: Opener) -> None:
        """Raises: DeploymentError, where a graph does not fit the manifest, or the profile is missing."""
        self._stride_px = bundle.stride_px
        super().__init__(bundle.segmenter_graphs, opener)

    @property
    def stride_px(self) -> int:
        return self._stride_px

    def segment(self, batch: Rgb) -> Probabilities:
        """Return float32 (N, 3, H, W): see `ports.Segmenter`. Raises: CapacityError."""
        count, height, width, _ = batch.shape
        if not count:
            return np.zeros((0, COMPARTMENTS, height, width), np.float32)
        at_once = max(1, MAX_BATCH_PIXELS // (height * width))
        return joined(self._mean(batch[at : at + at_once]) for at in range(0, count, at_once))

    def _mean(self, batch: Rgb) -> Probabilities:
        total = self.engines[0].run(batch)
        if len(self.engines) == 1:
            return total
        for member in self.engines[1:]:
            total = total + member.run(batch)
        return total / np.float32(len(self.engines))


class GraphClassifier(_Graphs):
    """The bundle's ensemble. Implements `ports.Classifier`."""

    def __init__(self, bundle: Bundle, opener: Opener) -> None:
        """Raises: DeploymentError, where a graph does not fit the manifest."""
        entry = bundle.manifest.classifier
        self._crop_px = Size(entry.crop_px, entry.crop_px)
        self._crop_mpp_um = entry.crop_mpp_um
        super().__init__(bundle.classifier_graphs, opener)

    @property
    def crop_px(self) -> Size:
        return self._crop_px

    @property
    def crop_mpp_um(self) -> float:
        return self._crop_mpp_um

    def classify(self, batch: Rgb) -> Probabilities:
        """Return float32 (M, N, L): see `ports.Classifier`. Raises: CapacityError."""
        if not len(batch):
            return np.zeros((len(self.engines), 0, len(LEAVES)), np.float32)
        return np.stack([member.run(batch) for member in self.engines])


def _checked(file: GraphFile, opener: Opener) -> Engine:
    engine = opener(file)
    with ExitStack() as cleanup:
        cleanup.callback(engine.close)
        for check in _load_checks(file):
            _check(file, engine, check)
        cleanup.pop_all()
    return engine


def _load_checks(file: GraphFile) -> tuple[LoadCheck, ...]:
    if file.fixed_px is not None:
        return (LoadCheck(file.fixed_px, (1, len(LEAVES))),)
    sides_px = (2 * file.stride_px, 3 * file.stride_px)
    return tuple(
        LoadCheck(Size(side_px, side_px), (1, COMPARTMENTS, side_px, side_px)) for side_px in sides_px
    )


def _check(file: GraphFile, engine: Engine, check: LoadCheck) -> None:
    """Raises: DeploymentError, where the output has another shape, or is not probabilities."""
    size_px = check.size_px
    try:
        output = engine.run(np.zeros((1, size_px.height, size_px.width, 3), np.uint8))
    except BatchRefused as error:
        raise bundle_graph_error(
            file.path, f"does not accept {size_px.width} × {size_px.height} px"
        ) from error
    if output.shape != check.output:
        raise bundle_graph_error(
            file.path, f"has an output of shape {output.shape} instead of {check.output}"
        )
    if not np.allclose(output.sum(axis=1), 1, atol=_SUM_TOLERANCE) or output.min() < 0:
        raise bundle_graph_error(file.path, "has an output that is not probabilities")
