"""The networks of a bundle on whatever engine, behind the ports of segmentation and classification."""

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
    unfit,
)

TISSUES = 3
"""background, cytoplasm, nucleus"""
PIXELS_AT_ONCE = 2 * 1024 * 1024
"""of a segmenter's batch, or one picture: a megapixel takes a half-width U-Net's first level 0.4 GB"""
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Probe:
    """What a graph is asked at load: one black picture of `size_px`, and the shape of the answer."""

    size_px: Size
    answer: tuple[int, ...]


class _Graphs(Closing):
    """Opened graphs of one kind, closed together."""

    def __init__(self, files: Sequence[GraphFile], opener: Opener) -> None:
        """Raises: DeploymentError, where one cannot be opened, or does not answer with probabilities."""
        with ExitStack() as opened:
            self.engines = tuple(opened.enter_context(_checked(file, opener)) for file in files)
            self._closing = opened.pop_all()

    @property
    def identities(self) -> tuple[EngineIdentity, ...]:
        """What runs each graph."""
        return tuple(engine.identity for engine in self.engines)

    def close(self) -> None:
        """Close the engines."""
        self._closing.close()


class GraphSegmenter(_Graphs):
    """The mean of the profile's networks of tissues. Implements `ports.Segmenter`."""

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
            return np.zeros((0, TISSUES, height, width), np.float32)
        at_once = max(1, PIXELS_AT_ONCE // (height * width))
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
    with ExitStack() as undone:
        undone.callback(engine.close)
        for probe in _probes(file):
            _check(file, engine, probe)
        undone.pop_all()
    return engine


def _probes(file: GraphFile) -> tuple[Probe, ...]:
    if file.fixed_px is not None:
        return (Probe(file.fixed_px, (1, len(LEAVES))),)
    sides_px = (2 * file.stride_px, 3 * file.stride_px)
    return tuple(Probe(Size(side_px, side_px), (1, TISSUES, side_px, side_px)) for side_px in sides_px)


def _check(file: GraphFile, engine: Engine, probe: Probe) -> None:
    """Raises: DeploymentError, where the graph does not answer, in the right shape, with probabilities."""
    size_px = probe.size_px
    try:
        answer = engine.run(np.zeros((1, size_px.height, size_px.width, 3), np.uint8))
    except BatchRefused as error:
        raise unfit(file.path, f"does not take {size_px.width} × {size_px.height} px") from error
    if answer.shape != probe.answer:
        raise unfit(file.path, f"gives the shape {answer.shape} where {probe.answer} belongs")
    if not np.allclose(answer.sum(axis=1), 1, atol=_SUM_TOLERANCE) or answer.min() < 0:
        raise unfit(file.path, "does not give probabilities")
